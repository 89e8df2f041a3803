"""Searches the same vectors with USearch, which keeps them, and as codes with dpq, and prints what it measured as JSON.

Usage: compare.py DPQ FOLDER    `cargo xtask bench --against usearch` calls this.

FOLDER is that of a training of `cargo xtask reproduce-paper`. Recall is that of the K items of largest inner product of
the vectors themselves; precision is the share of what is found that has the query's class. Searches: one query at a
time, one thread, rounds alternate. Indexes are built on all threads. USearch is timed around its call from Python, dpq
inside its process, so what such a call costs that finds nothing is measured too.
"""

import os
import sys
import tempfile
import time

# Before NumPy starts its threads.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import usearch
from sides import dpq, one_core, print_report, progress
from usearch.index import Index

K, ROUNDS, BITS = 10, 3, (8, 16, 24, 32)
# Numbers that USearch keeps, and bytes of each.
TYPES = {"f32": 4, "i8": 1}
# Queries of a scan of all vectors, which takes milliseconds.
SCANNED = 100


class Theirs:
    """An index of USearch: its graph, or all its vectors one after the other."""

    def __init__(self, name, index, exact, n_bytes, seconds):
        self.name, self.index, self.exact, self.bytes, self.build_seconds = name, index, exact, n_bytes, seconds

    def search(self, queries):
        """Median nanoseconds, and ids [Q, K], -1 where none was found."""
        queries = queries[:SCANNED] if self.exact else queries
        times, ids = [], np.full((len(queries), K), -1)
        for row, query in zip(ids, queries):
            start = time.monotonic_ns()
            matches = self.index.search(query, K, exact=self.exact, threads=1)
            times.append(time.monotonic_ns() - start)
            row[: len(matches)] = matches.keys
        return np.median(times), ids


class Ours:
    """Codes of one length in an index that has all lengths."""

    def __init__(self, path, bits, index, queries, seconds):
        self.name, self.path, self.bits, self.index, self.queries = f"dpq, {bits} bits", path, bits, index, queries
        self.bytes, self.build_seconds = os.path.getsize(index), seconds

    def search(self, _):
        hits = f"{self.index}.npz"
        options = ["--queries", self.queries, "--bits", self.bits, "-k", K, "--threads", 1, "--out", hits]
        found = dpq(self.path, "search", self.index, *options)
        return found["ns_per_query_median"], np.load(hits)["ids"].astype(np.int64)


def built(path, run, x, folder):
    """What is searched."""
    for dtype, size in TYPES.items():
        progress(f"building: usearch, {dtype}")
        index, start = Index(ndim=x.shape[1], metric="ip", dtype=dtype), time.monotonic()
        index.add(np.arange(len(x)), x)
        seconds = time.monotonic() - start
        index.save(f"{folder}/{dtype}")
        yield Theirs(f"usearch, {dtype}, exact", index, True, size * x.size, None)
        yield Theirs(f"usearch, {dtype}, HNSW", index, False, os.path.getsize(f"{folder}/{dtype}"), seconds)
    progress("building: dpq")
    model, index, start = f"{run}/train/model.safetensors", f"{folder}/index.dpq", time.monotonic()
    dpq(path, "encode", "--codebook", model, "--features", f"{run}/gallery/features.npy", "--out-dir", folder)
    dpq(path, "index", "build", "--codes", f"{folder}/codes.npy", "--codebook", model, "--out", index)
    seconds = time.monotonic() - start
    for bits in BITS:
        yield Ours(path, bits, index, f"{run}/query/features.npy", seconds)


def empty_call(queries):
    """Median nanoseconds of a call of USearch that has nothing to search."""
    return int(Theirs("empty", Index(ndim=queries.shape[1], metric="ip"), False, 0, None).search(queries)[0])


def compare(path, run, folder):
    x, queries = (np.load(f"{run}/{part}/features.npy") for part in ("gallery", "query"))
    classes, wanted = (np.load(f"{run}/{part}/labels.npy").argmax(1) for part in ("gallery", "query"))
    nearest = np.argpartition(-(queries @ x.T), K, axis=1)[:, :K]
    sides = list(built(path, run, x, folder))
    one_core()
    times, found = {side.name: [] for side in sides}, {}
    for turn in range(ROUNDS):
        for side in sides:
            progress(f"{side.name}, round {turn + 1}")
            ns, found[side.name] = side.search(queries)
            times[side.name].append(ns)

    def row(side):
        ids = found[side.name]
        n = len(ids)
        return {
            "name": side.name,
            "queries": n,
            "bytes_an_item": side.bytes / len(x),
            "build_seconds": side.build_seconds,
            "ns": int(np.median(times[side.name])),
            "recall": float((ids[:, :, None] == nearest[:n, None]).any(2).mean()),
            "precision": float(((ids >= 0) & (classes[ids] == wanted[:n, None])).mean()),
        }

    label = {"items": len(x), "queries": len(queries), "dim": x.shape[1], "k": K, "rounds": ROUNDS}
    return label | {"empty_call_ns": empty_call(queries), "searches": [row(side) for side in sides]}


def main():
    with tempfile.TemporaryDirectory() as folder:
        print_report({"usearch": usearch.__version__}, compare(*sys.argv[1:], folder))


if __name__ == "__main__":
    main()
