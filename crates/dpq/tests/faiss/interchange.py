"""Checks that indexes pass between faiss and dpq both ways: searches give the same scores to 1e-5 and the same ids outside
groups of equal scores.

Usage: interchange.py DPQ    `cargo xtask ci --step faiss` builds DPQ, the command, and calls this.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import faiss
import numpy as np

DIM, ITEMS, QUERIES, K, LEVELS = 32, 5000, 50, 100, 4
TOLERANCE = 1e-5
IP, L2 = faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2


class Dpq:
    def __init__(self, command, folder):
        self.command, self.folder = command, folder

    def __call__(self, *words):
        words = [self.command, *map(str, words), "--json"]
        return json.loads(subprocess.run(words, cwd=self.folder, check=True, stdout=subprocess.PIPE).stdout)

    def search(self, index):
        """Scores and ids, [QUERIES, K]."""
        self("search", index, "--queries", "queries.npy", "-k", K, "--out", "hits.npz")
        hits = np.load(self.folder / "hits.npz")
        return hits["scores"], hits["ids"]


def compare(name, index, queries, ours):
    """Searches `index`, of faiss, and compares with the scores and ids that dpq found."""
    scores, ids = index.search(queries, K)
    # The terms that a score is the sum of: rounding is relative to these.
    scale = np.abs(scores).max(axis=1, keepdims=True)
    if index.metric_type == L2:
        # Our score is the squared norm of the query less the squared distance.
        norms = np.square(queries, dtype=np.float64).sum(axis=1, keepdims=True)
        scores, scale = norms - scores, norms
    differences = np.abs(scores - ours[0]) / scale
    assert differences.max() <= TOLERANCE, f"{name}: scores differ by {differences.max()}"
    n_compared = 0
    for row, found, expected in zip(scores / scale, ids, ours[1]):
        # A rank stands alone if both neighbours are further away than rounding can move a score.
        # The last rank may tie with items that were cut off.
        gaps = row[:-1] - row[1:] > 2 * TOLERANCE
        alone = np.append(True, gaps[:-1]) & gaps
        assert (found[:-1][alone] == expected[:-1][alone]).all(), f"{name}: other ids"
        # Groups hold the same items.
        for group in np.split(np.arange(K), np.flatnonzero(gaps) + 1)[:-1]:
            assert set(found[group]) == set(expected[group]), f"{name}: other ids in a group"
        n_compared += int(alone.sum())
    assert n_compared > QUERIES, f"{name}: nearly all scores are tied, nothing was compared"
    print(f"{name}: scores within {differences.max():.1e}, {n_compared} of {ids.size} ids stand alone and are the same")


def indexes():
    """Every kind that dpq reads, by both metrics."""
    aq = faiss.AdditiveQuantizer
    for metric, name in [(IP, "ip"), (L2, "l2")]:
        norms = aq.ST_norm_float if metric == L2 else aq.ST_LUT_nonorm
        yield f"residual-{name}", faiss.IndexResidualQuantizer(DIM, LEVELS, 8, metric, norms)
        yield f"residual-6-bits-{name}", faiss.IndexResidualQuantizer(DIM, LEVELS, 6, metric, aq.ST_decompress)
        yield f"product-{name}", faiss.IndexPQ(DIM, LEVELS, 8, metric)
        yield f"product-5-bits-{name}", faiss.IndexPQ(DIM, 8, 5, metric)
        yield f"product-map-{name}", faiss.IndexIDMap(faiss.IndexPQ(DIM, LEVELS, 8, metric))
        inner = faiss.IndexResidualQuantizer(DIM, LEVELS, 8, metric, norms)
        yield f"residual-map-2-{name}", faiss.IndexIDMap2(inner)


def main(command):
    # Threads that wait for each other take minutes where others use the machine.
    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(1)
    spread = np.linspace(2, 0.1, DIM, dtype=np.float32)
    x, queries = (random.standard_normal((n, DIM), np.float32) * spread for n in (ITEMS, QUERIES))
    ids = random.permutation(10 * ITEMS)[:ITEMS].astype(np.int64)
    with tempfile.TemporaryDirectory() as folder:
        dpq = Dpq(command, Path(folder))
        np.save(dpq.folder / "queries.npy", queries)
        for name, index in indexes():
            index.train(x)
            if "map" in name:
                index.add_with_ids(x, ids)
            else:
                index.add(x)
            faiss.write_index(index, str(dpq.folder / "in.index"))
            dpq("index", "import", "in.index", "--from", "faiss", "--out", "x.dpq")
            ours = dpq.search("x.dpq")
            compare(f"{name}, from faiss", index, queries, ours)
            dpq("index", "export", "x.dpq", "--to", "faiss", "--out", "out.index")
            back = faiss.read_index(str(dpq.folder / "out.index"))
            assert back.ntotal == ITEMS
            compare(f"{name}, and back", back, queries, ours)

        # An index of dpq, whose codebooks are smaller than faiss's, is searched by faiss.
        np.save(dpq.folder / "x.npy", x)
        dpq("codebook", "train", "--features", "x.npy", "--codewords", 100, "--levels", LEVELS, "--out", "cb.safetensors")
        dpq("encode", "--codebook", "cb.safetensors", "--features", "x.npy", "--out-dir", ".")
        for metric in ["ip", "l2"]:
            build = ["--codes", "codes.npy", "--codebook", "cb.safetensors", "--metric", metric]
            dpq("index", "build", *build, "--out", "x.dpq")
            dpq("index", "export", "x.dpq", "--to", "faiss", "--out", "out.index")
            index = faiss.read_index(str(dpq.folder / "out.index"))
            compare(f"dpq's own, {metric}, to faiss", index, queries, dpq.search("x.dpq"))
            index.add(x[:10])
            assert index.ntotal == ITEMS + 10
            rows = index.reconstruct_n(0, ITEMS + 10)
            assert np.allclose(rows[ITEMS:], rows[:10], atol=1e-4), "faiss encodes other than dpq"


if __name__ == "__main__":
    main(*sys.argv[1:])
