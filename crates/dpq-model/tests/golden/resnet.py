"""Writes resnet.json: features of small residual networks in NumPy and float64, for tests/it/weights.rs.

The networks have torchvision's names, and its layers as its source defines them: padding 3 of 7x7, 1 of 3x3, pooling 3x3
of stride 2 and padding 1, the stride in the 3x3 convolution. Weights and images come from a generator that the test
repeats. `features` also serves real weights. Run with Python 3 and NumPy: `python3 resnet.py`.
"""

import json
from pathlib import Path

import numpy as np

MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


def conv(x, weight, stride):
    """x [n, c, h, w], weight [out, in, k, k], padding k // 2."""
    k = weight.shape[-1]
    x = np.pad(x, [(0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)])
    h, w = ((side - k) // stride + 1 for side in x.shape[2:])
    y = 0
    for i in range(k):
        for j in range(k):
            taps = x[:, :, i : i + stride * h : stride, j : j + stride * w : stride]
            y = y + np.einsum("oc,nchw->nohw", weight[:, :, i, j], taps, optimize=True)
    return y


def pool(x):
    """Maxima of 3x3 windows, stride 2, padding 1."""
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    h, w = ((side - 3) // 2 + 1 for side in x.shape[2:])
    windows = [x[:, :, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in range(3) for j in range(3)]
    return np.max(windows, axis=0)


def features(arrays, images):
    """Mean over positions of the last block. Images [n, 3, h, w], bytes."""

    def layer(x, of_conv, of_norm, stride=1):
        weight, bias, mean, var = (
            arrays[f"{of_norm}.{kind}"][:, None, None] for kind in ("weight", "bias", "running_mean", "running_var")
        )
        return (conv(x, arrays[f"{of_conv}.weight"], stride) - mean) / np.sqrt(var + 1e-5) * weight + bias

    x = (images / 255.0 - MEAN[:, None, None]) / DEVIATION[:, None, None]
    x = pool(np.maximum(layer(x, "conv1", "bn1", 2), 0.0))
    for stage in (1, 2, 3, 4):
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in arrays:
            at = f"layer{stage}.{block}"
            n_layers = 3 if f"{at}.conv3.weight" in arrays else 2
            stride = 2 if stage > 1 and block == 0 else 1
            y = x
            for i in range(1, n_layers + 1):
                strided = arrays[f"{at}.conv{i}.weight"].shape[-1] == 3 and (n_layers == 3 or i == 1)
                y = layer(y, f"{at}.conv{i}", f"{at}.bn{i}", stride if strided else 1)
                y = np.maximum(y, 0.0) if i < n_layers else y
            if f"{at}.downsample.0.weight" in arrays:
                x = layer(x, f"{at}.downsample.0", f"{at}.downsample.1", stride)
            x = np.maximum(y + x, 0.0)
            block += 1
    return x.mean(axis=(2, 3))


def shapes(blocks, width, is_bottleneck):
    """The shapes of all arrays by name, in the order of the layers."""
    arrays, n_in = {}, width

    def add(of_conv, of_norm, n_in, n_out, k):
        arrays[f"{of_conv}.weight"] = [n_out, n_in, k, k]
        for kind in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{of_norm}.{kind}"] = [n_out]

    add("conv1", "bn1", 3, width, 7)
    for stage, n_blocks in enumerate(blocks):
        narrow = width * 2**stage
        sizes = [(narrow, 1), (narrow, 3), (4 * narrow, 1)] if is_bottleneck else [(narrow, 3), (narrow, 3)]
        for block in range(n_blocks):
            at, first = f"layer{stage + 1}.{block}", n_in
            for i, (n_out, k) in enumerate(sizes):
                add(f"{at}.conv{i + 1}", f"{at}.bn{i + 1}", n_in, n_out, k)
                n_in = n_out
            if first != n_in:
                add(f"{at}.downsample.0", f"{at}.downsample.1", first, n_in, 1)
    return arrays


class Generator:
    """Numbers in [0, 1) of 24 bits, exact in float32."""

    def __init__(self):
        self.state = 1

    def draw(self, n):
        values = np.empty(n)
        for i in range(n):
            self.state = (self.state * 1664525 + 1013904223) % 2**32
            values[i] = (self.state >> 8) / 2**24
        return values


def values(shapes, generator):
    """Weights of convolutions in ±1/sqrt(inputs), scales and variances in 0.5…1.5, the rest in ±0.5."""
    arrays = {}
    for name, shape in shapes.items():
        drawn = generator.draw(int(np.prod(shape)))
        if len(shape) == 4:
            drawn = (2.0 * drawn - 1.0) / np.sqrt(shape[1] * shape[2] * shape[3])
        elif name.endswith(("weight", "running_var")):
            drawn = drawn + 0.5
        else:
            drawn = drawn - 0.5
        arrays[name] = drawn.astype(np.float32).astype(np.float64).reshape(shape)
    return arrays


if __name__ == "__main__":
    cases = []
    for blocks, width, is_bottleneck, side in (([2, 1, 1, 3], 3, False, 64), ([1, 2, 1, 1], 2, True, 96)):
        generator = Generator()
        named = shapes(blocks, width, is_bottleneck)
        arrays = values(named, generator)
        images = np.floor(256.0 * generator.draw(2 * 3 * side * side)).reshape(2, 3, side, side)
        found = [[float(f"{x:.9g}") for x in row] for row in features(arrays, images)]
        cases.append({"blocks": blocks, "side": side, "arrays": list(named.items()), "features": found})
    text = json.dumps(cases, separators=(",", ":")).replace('],["', '],\n["').replace('},{"', '},\n{"')
    Path(__file__).with_name("resnet.json").write_text(text + "\n")
