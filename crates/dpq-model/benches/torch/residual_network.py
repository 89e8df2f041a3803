"""A residual network of 2, 2, 2 and 3 basic blocks in PyTorch beside dpq-model, by turns; prints images a second as JSON.

Usage: residual_network.py PEER
`cargo xtask bench --against torch` calls this; PEER is `crates/dpq-model/benches/residual.rs`.

Same layers, losses, optimiser, batch sizes and number of threads, on the CPU. Both sides fold batch normalisation into
convolutions for features. PyTorch has the memory layout that a short trial finds the faster one, and images that are in
memory as floats. Ours has the settings of memory and threads that the command `dpq` makes.
"""

import copy
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from sides import Peer, print_report, progress
from small_network import LAYOUTS, medians
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Number of images by side, and of classes where training has many.
SIDES, BATCH, ROUNDS = {64: 300, 112: 150, 224: 50}, 50, 3
CLASSES, MANY_CLASSES = 10, {64: [1_000, 10_000]}
# The command `dpq` starts with these settings.
SETTINGS = {
    "CANDLE_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


class Block(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out))
        self.second = nn.Sequential(nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out))
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class Network(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64))
        layers = [stem, nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        n_in = 64
        for stage, n_blocks in enumerate([2, 2, 2, 3]):
            for block in range(n_blocks):
                layers.append(Block(n_in, 64 << stage, 2 if stage > 0 and block == 0 else 1))
                n_in = 64 << stage
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5))
        self.embed, self.classifier = nn.Linear(512, 300), nn.Linear(512, n_classes)

    def forward(self, x):
        f = self.body(x)
        return self.embed(f).tanh(), self.classifier(f)


def fold(module):
    """Folds batch normalisation into the convolutions before it."""
    for name, child in module.named_children():
        if isinstance(child, nn.Sequential) and isinstance(child[-1], nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(*child))
        else:
            fold(child)
    return module


def margin_loss(x, classes, embeddings):
    """The margin loss of items with one label each, for embeddings of length 1."""
    to_x = F.normalize(x) @ embeddings.T
    deltas = 1 - embeddings[classes] @ embeddings.T
    hinges = (deltas - to_x.gather(1, classes[:, None]) + to_x).relu()
    return hinges.scatter(1, classes[:, None], 0).sum() / to_x.numel()


class Theirs:
    def __init__(self, layout, side, n_classes):
        torch.manual_seed(1)
        self.layout, self.format = layout, LAYOUTS[layout]
        self.network, self.folded = Network(n_classes).to(memory_format=self.format), None
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, fused=True)
        self.embeddings = F.normalize(torch.randn(n_classes, 300))
        self.images, self.classes = torch.randn(SIDES[side], 3, side, side), torch.arange(SIDES[side]) % n_classes

    def train(self):
        self.network.train()
        for rows in torch.randperm(len(self.images)).split(BATCH):
            x, c = self.images[rows].to(memory_format=self.format), self.classes[rows]
            features, logits = self.network(x)
            loss = margin_loss(features, c, self.embeddings) + F.cross_entropy(logits, c)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()

    @torch.inference_mode()
    def encode(self):
        if self.folded is None:
            self.folded = fold(copy.deepcopy(self.network).eval()).to(memory_format=self.format)
        for x in self.images.split(BATCH):
            self.folded(x.to(memory_format=self.format))

    def rate(self, work):
        """Images a second."""
        start = time.perf_counter()
        getattr(self, work)()
        return len(self.images) / (time.perf_counter() - start)


def measure(path, threads):
    torch.set_num_threads(threads)
    os.environ.update(SETTINGS, RAYON_NUM_THREADS=str(threads))
    rows = []
    with Peer(path) as ours:
        for side, n in SIDES.items():
            for n_classes in [*MANY_CLASSES.get(side, []), CLASSES]:
                both = [Theirs(layout, side, n_classes) for layout in LAYOUTS]
                # The network of the last training encodes.
                for work in ("train", "encode") if n_classes == CLASSES else ("train",):
                    for theirs in both:
                        theirs.rate(work)
                    theirs, rates = max(both, key=lambda theirs: theirs.rate(work)), {"torch": [], "ours": []}
                    arguments = [side, n, n_classes] if work == "train" else [side, n]
                    for turn in range(ROUNDS):
                        progress(f"{threads} threads, {work} at {side}, {n_classes} classes, round {turn + 1}")
                        rates["ours"].append(ours.ask(work, *arguments))
                        rates["torch"].append(theirs.rate(work))
                    row = {"work": work, "side": side, "classes": n_classes, "threads": threads}
                    rows.append(row | {"torch_layout": theirs.layout} | medians(rates))
    return rows


def main():
    rows = measure(sys.argv[1], 1) + measure(sys.argv[1], 2)
    print_report({"PyTorch": torch.__version__}, {"rounds": ROUNDS, "batch": BATCH, "rates": rows})


if __name__ == "__main__":
    main()
