"""Evaluates rankings with `dpq eval` and with the usual script, an argsort a query; prints what it measured as JSON.

Usage: compare.py DPQ FOLDER    `cargo xtask bench --against numpy` calls this.

FOLDER is that of a training of `cargo xtask reproduce-paper`. Both rank the gallery for each query by inner product
with what codes of each length stand for. The script's time is that of products, sorting and summing: features are
decoded and read before. That of dpq is the whole process: opening the index, reading, and the other figures that it
reports.
"""

import os
import sys
import tempfile
import time

import numpy as np
from sides import dpq, print_report, progress

BITS, ROUNDS = (8, 16, 24, 32), 3


def mean_average_precision(queries, query_labels, items, item_labels):
    """mAP over whole rankings, divided by the relevant items retrieved; ties in the order that argsort leaves."""
    total = 0.0
    scores, relevant = queries @ items.T, query_labels @ item_labels.T > 0
    for scores, relevant in zip(scores, relevant):
        relevant = relevant[np.argsort(-scores)]
        ranks = np.flatnonzero(relevant) + 1
        if len(ranks):
            total += (np.arange(1, len(ranks) + 1) / ranks).mean()
    return total / len(queries)


def timed(work):
    """Seconds, seconds of the CPU with those of ended children, and what came of it."""
    start, before = time.monotonic(), os.times()
    result = work()
    seconds, after = time.monotonic() - start, os.times()
    return seconds, sum(after[:4]) - sum(before[:4]), result


def compare(path, run, folder):
    query, gallery, model = f"{run}/query", f"{run}/gallery", f"{run}/train/model.safetensors"
    queries = np.load(f"{query}/features.npy")
    query_labels, item_labels = (np.load(f"{part}/labels.npy").astype(np.float32) for part in (query, gallery))
    decoded = {}
    for bits in BITS:
        out = f"{folder}/{bits}.npy"
        dpq(path, "decode", "--codes", f"{gallery}/codes.npy", "--codebook", model, "--bits", bits, "--out", out)
        decoded[bits] = np.load(out)
    ours = ["eval", "--index", f"{run}/index/gallery.dpq", "--bits", ",".join(map(str, BITS))]
    ours += ["--queries", f"{query}/features.npy", "--query-labels", f"{query}/labels.npy"]
    ours += ["--gallery-labels", f"{gallery}/labels.npy", "--gallery-ids", f"{gallery}/ids.npy"]

    def script():
        return [mean_average_precision(queries, query_labels, x, item_labels) for x in decoded.values()]

    def command():
        return dpq(path, *ours)["by_bits"]

    times = {"numpy": [], "ours": []}
    for turn in range(ROUNDS):
        progress(f"round {turn + 1}: script")
        *seconds, script_maps = timed(script)
        times["numpy"].append(seconds)
        progress(f"round {turn + 1}: dpq eval")
        *seconds, by_bits = timed(command)
        times["ours"].append(seconds)

    def row(bits, script_map):
        found = by_bits[str(bits)]
        assert found["map_min"] - 1e-4 <= script_map <= found["map_max"] + 1e-4, f"mAP at {bits} bits differs"
        return {"bits": bits, "numpy_map": script_map} | {name: found[name] for name in ("map", "map_min", "map_max")}

    report = {"items": len(item_labels), "queries": len(queries), "dim": queries.shape[1], "rounds": ROUNDS}
    for side, seconds in times.items():
        report[f"{side}_seconds"], report[f"{side}_cpu_seconds"] = np.median(seconds, axis=0).tolist()
    return report | {"lengths": list(map(row, BITS, script_maps))}


def main():
    with tempfile.TemporaryDirectory() as folder:
        print_report({}, compare(*sys.argv[1:], folder))


if __name__ == "__main__":
    main()
