"""The network of preset `best` in PyTorch, trained and run on one device: what `dpq train` and `dpq encode` are measured against.

Same layers, losses, optimiser and batch sizes; images are uploaded for every step, as dpq does, but neither read nor
augmented. Usage: python3 small_network.py cuda:0
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

device = torch.device(sys.argv[1])


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        stages = []
        for n_in, n_out in [(1, 32), (32, 64), (64, 128)]:
            stages += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(n_out), nn.ReLU()]
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


def rate(step, batch, seconds=4.0):
    """Images a second: the best of three rounds, after a warm-up."""
    rates = []
    for _ in range(20):
        step()
    for _ in range(3):
        torch.cuda.synchronize()
        start, n = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 3:
            step()
            n += batch
        torch.cuda.synchronize()
        rates.append(n / (time.perf_counter() - start))
    return max(rates)


for batch in [64, 512]:
    torch.manual_seed(1)
    network = Network().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    images = torch.randn(batch, 1, 28, 28)
    classes = torch.randint(10, (batch,))
    labels = F.one_hot(classes, 10).float()
    embeddings = F.normalize(torch.randn(10, 300)).to(device)

    def train():
        x, y, c = images.to(device), labels.to(device), classes.to(device)
        features, logits = network(x)
        loss = margin_loss(features, y, embeddings) + F.cross_entropy(logits, c)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def encode():
        for x in (images, images.flip(-1)):
            network(x.to(device))[0].cpu()

    network.train()
    print(f"torch train batch {batch}: {rate(train, batch):.0f} images/s", flush=True)
    network.eval()
    print(f"torch encode (two passes an image) batch {batch}: {rate(encode, batch):.0f} images/s", flush=True)
