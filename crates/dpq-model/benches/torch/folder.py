"""Features of a folder of images: a plain loader of PIL and PyTorch beside `dpq features`, by turns; prints JSON.

Usage: PYTHONPATH=xtask/python python folder.py DPQ WEIGHTS IMAGES [COPIES]

No task calls this, because it needs weights: those of a residual network of basic blocks, 2, 2, 2 and 3 in its stages,
as `dpq weights import` writes them. Each .jpg file of the folder IMAGES counts COPIES times.

Same images, network, weights, size of images and number of threads, on the CPU. Both decode each file, resize it by a
Catmull-Rom filter, and fold batch normalisation into convolutions. Each side is a process of its own. The loader is
the usual one, torch.utils.data.DataLoader. Its time begins after all imports, that of dpq with its process. The peak of
memory is that of the largest process of a side.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import dpq, print_report, progress

SIDE, BATCH, THREADS, ROUNDS, WORKERS = 64, 64, 2, 3, [0, 1]


def load(weights):
    """The network of `residual_network.py` with the weights of a file, whose arrays have the order of its layers."""
    import torch
    from residual_network import Network, fold
    from safetensors import safe_open

    network = Network(1)
    file = safe_open(weights, "pt")
    stored = [name.removeprefix("backbone.") for name in file.keys()]
    layers = ["conv1", "bn1"]
    for stage, n_blocks in enumerate([2, 2, 2, 3], start=1):
        for block in range(n_blocks):
            names = ["conv1", "bn1", "conv2", "bn2", "downsample.0", "downsample.1"]
            layers += [f"layer{stage}.{block}.{name}" for name in names]
    names = [f"{layer}.{part}" for layer in layers for part in ("weight", "gamma", "beta", "mean", "var")]
    names = [f"backbone.{name}" for name in names if name in stored]
    own = [(name, value) for name, value in network.body.state_dict().items() if "num_batches" not in name]
    assert len(own) == len(names) == len(stored), (len(own), len(names), len(stored))
    network.body.load_state_dict({ours: file.get_tensor(name) for (ours, _), name in zip(own, names)}, strict=False)
    return torch, fold(network.body.eval())


def loader(weights, folder, workers, out):
    """The other side: writes the features of a folder, and prints its seconds and its peak of memory."""
    torch, network = load(weights)
    from PIL import Image

    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    class Images(torch.utils.data.Dataset):
        def __init__(self):
            self.paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, row):
            with Image.open(self.paths[row]) as image:
                pixels = np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / deviation

    torch.set_num_threads(THREADS)
    start = time.perf_counter()
    with torch.inference_mode():
        batches = torch.utils.data.DataLoader(Images(), BATCH, num_workers=workers)
        features = torch.cat([network(batch) for batch in batches])
    seconds = time.perf_counter() - start
    np.save(out, features.numpy())
    print(json.dumps([seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))


def measure(path, weights, images, folder):
    names = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    ours, theirs, n = [], {workers: [] for workers in WORKERS}, len(names)
    with tempfile.TemporaryDirectory() as out:
        for turn in range(ROUNDS):
            progress(f"round {turn + 1}")
            start = time.perf_counter()
            words = ["--weights", weights, "--input", SIDE, "--images", folder, "--threads", THREADS]
            done = dpq(path, "features", *words, "--out-dir", f"{out}/ours-{turn}")
            ours.append((time.perf_counter() - start, done["peak_memory_bytes"]))
            for workers in WORKERS:
                words = [sys.executable, __file__, "--side", weights, folder, str(workers), f"{out}/theirs.npy"]
                theirs[workers].append(json.loads(subprocess.check_output(words)))
        ids, features = (np.load(f"{out}/ours-0/{name}.npy") for name in ("ids", "features"))
        expected = np.load(f"{out}/theirs.npy")
        paths = Path(f"{out}/ours-0/names.txt").read_text().splitlines()
        row = {str(name): row for row, name in enumerate(names)}
        expected = expected[[row[str(Path(folder, name))] for name in paths]]
        assert len(ids) == n, f"{len(ids)} of {n} images"
        cosine = (features * expected).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(expected, axis=1)
    side = lambda runs: {"per_second": n / np.median([run[0] for run in runs]), "peak_memory_bytes": max(run[1] for run in runs)}
    rows = [{"workers": workers} | side(runs) for workers, runs in theirs.items()]
    return {"images": n, "side": SIDE, "threads": THREADS, "rounds": ROUNDS, "batch": BATCH, "set": images,
            "least_cosine": float(cosine.min()), "ours": side(ours), "torch": rows}  # fmt: skip


def main():
    if sys.argv[1] == "--side":
        return loader(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    path, weights, images, *copies = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for copy in range(int(copies[0]) if copies else 1):
            for file in sorted(file for file in Path(images).rglob("*.jpg")):
                to = Path(folder, str(copy), file.relative_to(images))
                to.parent.mkdir(parents=True, exist_ok=True)
                os.link(file, to) if file.stat().st_dev == os.stat(folder).st_dev else to.write_bytes(file.read_bytes())
        results = measure(path, weights, Path(images).name, folder)
    import torch
    from PIL import __version__ as pillow

    print_report({"PyTorch": torch.__version__, "Pillow": pillow}, results)


if __name__ == "__main__":
    main()
