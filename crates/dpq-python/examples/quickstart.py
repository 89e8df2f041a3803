"""Fashion-MNIST in half a minute: train codebooks on pixels, encode once, search and evaluate at every code length.

    python crates/dpq-python/examples/quickstart.py

Pixels, not a network's features, so that nothing has to be trained for long; `dpq train` and `dpq.Model` do better.
"""

import gzip
import tempfile
import time
from pathlib import Path

import numpy as np

import pydpq

DATA = Path(__file__).parents[3] / "datasets/fashion-mnist"

# %% The ten thousand test images, and their classes: 9,800 for the gallery, 200 as queries.
pixels = np.frombuffer(gzip.open(DATA / "t10k-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
classes = np.frombuffer(gzip.open(DATA / "t10k-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
x = pixels.reshape(-1, 784).astype(np.float32)
x -= x.mean(axis=0)
x /= np.linalg.norm(x, axis=1, keepdims=True)
labels = np.eye(10, dtype=np.uint8)[classes]
queries, gallery = x[:200], x[200:]

# %% Codebooks, and a code of four bytes for each image of the gallery.
start = time.perf_counter()
codebooks = pydpq.Codebooks.train(gallery[:3000], levels=4, iterations=10)
codes = codebooks.encode(gallery)
print(f"trained and encoded {codes.shape} codes in {time.perf_counter() - start:.1f} s")

# %% One index for every code length, kept in a file that is mapped, not read.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "gallery.dpq"
    pydpq.Index.from_codes(codes, codebooks).save(path)
    index = pydpq.Index.open(path)
    print(index)

    # %% Search: scores and ids as of faiss, exact at each length.
    scores, ids = index.search(queries, k=5, bits=32)
    for query in range(3):
        print(f"query of class {classes[query]}, its nearest are of classes {classes[200 + ids[query]]}")

    # %% Evaluate: every query ranks the whole gallery, ties count as their expectation.
    for bits in (8, 16, 24, 32):
        scores, ids = index.search(queries, k=len(index), bits=bits)
        precision = pydpq.mean_average_precision(labels[:200], labels[200:], ids=ids, scores=scores)
        error = np.square(gallery - codebooks.decode(codes, bits)).sum() / np.square(gallery).sum()
        print(f"{bits:>2} bits: mAP@all {precision:.4f}, distortion {error:.4f}")
