"""The network of preset `best` in PyTorch beside `dpq train` and `dpq encode`, by turns on one device; prints images a
second as JSON.

Usage: small_network.py DPQ DEVICE
`cargo xtask bench --against torch` calls this for the CPU; DEVICE may be cuda:0 for a DPQ with that feature.

Same images, layers, losses, optimiser, batch sizes and number of threads. PyTorch takes images that are in memory as
floats; those of dpq are read and augmented too. It has the memory layout that a short trial finds the faster one. The
rate of encoding of dpq is that of all its work, codes included.
"""

import json
import sys
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F
from sides import dpq, fashion_mnist, print_report, progress
from torch import nn

# Each side runs an epoch more at the beginning of a round, which does not count.
BATCHES, ROUNDS, EPOCHS = (64, 512), 3, 3
# As many images as the training split has.
N_TRAIN, ENCODED_AT_ONCE = 5000, 512
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        stages = []
        for n_in, n_out in [(1, 32), (32, 64), (64, 128)]:
            convolution = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
            stages += [convolution, nn.MaxPool2d(2), nn.BatchNorm2d(n_out), nn.ReLU()]
        self.backbone = nn.Sequential(*stages, nn.Flatten(), nn.Linear(1152, 512), nn.ReLU(), nn.Dropout(0.5))
        self.embed, self.classifier = nn.Linear(512, 300), nn.Linear(512, 10)

    def forward(self, x):
        hidden = self.backbone(x)
        return self.embed(hidden).tanh(), self.classifier(hidden)


def margin_loss(x, labels, embeddings):
    to_x = F.normalize(x) @ F.normalize(embeddings).T
    deltas = 1 - F.normalize(embeddings) @ F.normalize(embeddings).T
    hinges = (deltas[None] - to_x[:, :, None] + to_x[:, None, :]).relu()
    return (hinges * labels[:, :, None] * (1 - labels)[:, None, :]).sum() / labels.numel()


class Theirs:
    def __init__(self, device, layout, images, classes):
        torch.manual_seed(1)
        self.layout, self.images, self.classes = layout, images, classes
        self.place = {"device": device, "memory_format": LAYOUTS[layout]}
        self.network = Network().to(**self.place)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3, fused=True)
        self.embeddings = F.normalize(torch.randn(10, 300)).to(device)

    def epoch(self, batch):
        self.network.train()
        order = torch.randperm(N_TRAIN)
        for rows in order[: N_TRAIN // batch * batch].split(batch):
            x, c = self.images[rows].to(**self.place), self.classes[rows].to(self.place["device"])
            features, logits = self.network(x)
            loss = margin_loss(features, F.one_hot(c, 10).float(), self.embeddings) + F.cross_entropy(logits, c)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return N_TRAIN // batch * batch

    @torch.no_grad()
    def encode(self):
        """Features of images and of their mirrors, averaged."""
        self.network.eval()
        for x in self.images.split(ENCODED_AT_ONCE):
            x = x.to(**self.place)
            ((self.network(x)[0] + self.network(x.flip(-1))[0]) / 2).cpu()
        return len(self.images)

    def rate(self, work):
        """Images a second."""
        start = time.perf_counter()
        n = work()
        if self.place["device"].type == "cuda":
            torch.cuda.synchronize()
        return n / (time.perf_counter() - start)


class Ours:
    def __init__(self, path, device, folder):
        self.path, self.folder = path, folder
        self.options = ["--data", "datasets/fashion-mnist", "--device", device, "--threads", torch.get_num_threads()]

    def epochs(self, batch):
        """Images a second in each epoch but the first, without the codebooks."""
        changes = ["--set", f"epochs={EPOCHS + 1}", "--set", f"batch_size={batch}"]
        dpq(self.path, "train", *self.options, "--preset", "best", *changes, "--out", self.folder)
        with open(f"{self.folder}/epochs.jsonl") as lines:
            return [json.loads(line)["images_per_second"] for line in lines][1:]

    def encode(self):
        model, out = f"{self.folder}/model.safetensors", f"{self.folder}/encoded"
        options = ["--model", model, "--split", "train", "--out-dir", out]
        return dpq(self.path, "encode", *self.options, *options)["items_per_second"]


def train_images():
    """Images [N, 1, 28, 28] from 0 to 1 and classes [N]."""
    images, classes = (fashion_mnist(f"train-{part}")[:N_TRAIN] for part in ("images-idx3", "labels-idx1"))
    return torch.tensor(images[:, None]) / 255, torch.tensor(classes, dtype=torch.int64)


def faster(both, work):
    """The layout that does `work` faster once it has done it before."""

    def trial(theirs):
        work(theirs)
        return theirs.rate(lambda: work(theirs))

    return max(both, key=trial)


def measure(path, device, folder):
    images, classes = train_images()
    both = [Theirs(torch.device(device), layout, images, classes) for layout in LAYOUTS]
    rows = []
    for batch in BATCHES:
        theirs, rates = faster(both, lambda theirs: theirs.epoch(batch)), {"torch": [], "ours": []}
        for turn in range(ROUNDS):
            progress(f"training, batches of {batch}, round {turn + 1}")
            rates["ours"] += Ours(path, device, f"{folder}/{batch}-{turn}").epochs(batch)
            rates["torch"] += [theirs.rate(lambda: theirs.epoch(batch)) for _ in range(EPOCHS + 1)][1:]
        rows.append({"work": "training", "batch": batch, "torch_layout": theirs.layout} | medians(rates))
    theirs, rates = faster(both, Theirs.encode), {"torch": [], "ours": []}
    for turn in range(ROUNDS):
        progress(f"encoding, round {turn + 1}")
        rates["ours"].append(Ours(path, device, f"{folder}/{BATCHES[0]}-0").encode())
        rates["torch"].append(theirs.rate(theirs.encode))
    return rows + [{"work": "encoding", "batch": ENCODED_AT_ONCE, "torch_layout": theirs.layout} | medians(rates)]


def medians(rates):
    return {f"{side}_per_second": float(np.median(values)) for side, values in rates.items()}


def main():
    path, device = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(path, device, folder)
    report = {"device": device, "threads": torch.get_num_threads(), "rounds": ROUNDS, "epochs": EPOCHS, "rates": rows}
    print_report({"PyTorch": torch.__version__}, report)


if __name__ == "__main__":
    main()
