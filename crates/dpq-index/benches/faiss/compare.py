"""Searches the same codes with faiss and with dpq-index, by turns on one core, and prints what it measured as JSON.

Usage: compare.py PEER QUERIES ITEMS...    `cargo xtask bench --against faiss` builds PEER (../peer.rs) and calls this.

faiss is given our codes and codebooks, so that its scores are ours: `IndexPQ` sees L sub-vectors, each the whole
query, and `IndexResidualQuantizer` adds codewords as we do, with the norm of each approximation stored for Euclidean
distances. Every answer by turns is checked against the other side's.
"""

import itertools
import os
import sys
import time

# Before faiss and NumPy start their threads.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import faiss
import numpy as np
from sides import Peer, one_core, print_report, progress

SHAPES = ("collapsed", "clustered", "uniform")
DIM, CODEWORDS, LEVELS, LEVELS_OF_FILES = 300, 256, 4, 8
KS = (10, 1000, 5000)
BATCH, BATCH_ROUNDS = 32, 3
ROWS = 2
RANKING_ITEMS, RANKING_QUERIES = 64_000, 1000
TOLERANCE = 1e-5


class Data:
    """What both sides search: codebooks [L, K, D], codes [N, L], queries [Q, D]."""

    def __init__(self, peer, shape, n_items):
        codebooks, codes, queries = peer.ask("files", shape, n_items)
        self.codebooks = np.fromfile(codebooks, np.float32).reshape(-1, CODEWORDS, DIM)[:LEVELS]
        self.codes = np.fromfile(codes, np.uint8).reshape(-1, LEVELS_OF_FILES)[:, :LEVELS]
        self.queries = np.fromfile(queries, np.float32).reshape(-1, DIM)

    def norms(self, n_levels):
        """The squared norms of the approximations at a length, from the inner products of codewords."""
        flat = self.codebooks[:n_levels].reshape(-1, DIM).astype(np.float64)
        gram = flat @ flat.T
        norms = np.zeros(len(self.codes))
        for i, j in itertools.combinations_with_replacement(range(n_levels), 2):
            block = gram[i * CODEWORDS :][:CODEWORDS, j * CODEWORDS :][:, :CODEWORDS] * (1 if i == j else 2)
            norms += block[self.codes[:, i], self.codes[:, j]]
        return norms.astype(np.float32)


def fill(index, codes, vector, codebooks):
    """Puts codes and codebooks of our making into an index of faiss."""
    faiss.copy_array_to_vector(codebooks.ravel(), vector)
    faiss.copy_array_to_vector(np.ascontiguousarray(codes).ravel(), index.codes)
    index.ntotal, index.is_trained = len(codes), True
    assert index.codes.size() == index.ntotal * index.code_size
    return index


def product(data, n_levels):
    index = faiss.IndexPQ(DIM * n_levels, n_levels, 8, faiss.METRIC_INNER_PRODUCT)
    return fill(index, data.codes[:, :n_levels], index.pq.centroids, data.codebooks[:n_levels])


def residual(data, n_levels, metric):
    codes = data.codes[:, :n_levels]
    if metric == "ip":
        kind = faiss.METRIC_INNER_PRODUCT, faiss.AdditiveQuantizer.ST_LUT_nonorm
    else:
        kind = faiss.METRIC_L2, faiss.AdditiveQuantizer.ST_norm_float
        codes = np.concatenate([codes, data.norms(n_levels)[:, None].view(np.uint8)], axis=1)
    index = faiss.IndexResidualQuantizer(DIM, n_levels, 8, *kind)
    index.rq.is_trained = True
    return fill(index, codes, index.rq.codebooks, data.codebooks[:n_levels])


class Theirs:
    """An index of faiss and the queries in the form that it takes."""

    def __init__(self, index, queries):
        self.index, self.queries = index, queries

    def search(self, query, k):
        """Nanoseconds, ids, our scores, and how large the terms were that faiss made them of."""
        queries = self.queries[query : query + 1]
        start = time.monotonic_ns()
        scores, ids = self.index.search(queries, k)
        ns = time.monotonic_ns() - start
        if self.index.metric_type == faiss.METRIC_INNER_PRODUCT:
            # In a whole ranking some scores are next to 0.
            return ns, ids[0], scores[0], np.abs(scores[0]).max() if k == self.index.ntotal else 0
        # Our score is the squared norm of the query less the squared distance.
        norm = np.float32(np.square(queries, dtype=np.float64).sum())
        return ns, ids[0], norm - scores[0], norm

    def batch(self, n_queries, k):
        start = time.monotonic_ns()
        for first in range(0, n_queries, BATCH):
            self.index.search(self.queries[first : min(first + BATCH, n_queries)], k)
        return time.monotonic_ns() - start


def indexes(data, n_levels, metric):
    """The scans of faiss that give our scores, by name."""
    both = {"IndexResidualQuantizer": Theirs(residual(data, n_levels, metric), data.queries)}
    if metric == "ip":
        both["IndexPQ"] = Theirs(product(data, n_levels), np.tile(data.queries, n_levels))
    return both


def check(ids, scores, their_ids, their_scores, terms):
    """Scores are equal rank by rank; so are ids, but for the order among nearly equal scores and a last group of them."""
    allowed = TOLERANCE * np.maximum(np.abs(scores), terms)
    assert (np.abs(scores - their_scores) <= allowed).all(), "scores differ by more than the tolerance"
    group = np.concatenate([[0], np.cumsum(scores[:-1] - scores[1:] > 2 * allowed[:-1])])
    inner = group < group[-1]
    by_group = [side[np.lexsort((side, group))][inner] for side in (ids, their_ids)]
    assert (by_group[0] == by_group[1]).all(), "ids outside tied groups differ"


def compare(peer, kernels, theirs, bits, k, n_queries):
    """Median nanoseconds of both sides, by turns and in a row. The first query is not counted.

    By turns, each search of ours comes after a scan of theirs has gone through the caches. In a row, each side searches
    for all queries alone: our first kernel and their fastest scan.
    """
    times = {name: [] for name in (*kernels, *theirs)}
    for query in range(n_queries + 1):
        for kernel, name in zip_cycled(kernels, theirs):
            ns, *found = theirs[name].search(query, k)
            answer = peer.ask("query", kernel, bits, k, query)
            check(np.array(answer["ids"]), np.array(answer["scores"], np.float32), *found)
            times[name].append(ns)
            times[kernel].append(answer["ns"])
    by_turns = {name: median(ns[len(ns) // (n_queries + 1) :]) for name, ns in times.items()}
    fastest = theirs[min(theirs, key=by_turns.get)]
    faiss_ns, ours_ns = [], []
    for _ in range(ROWS):
        faiss_ns += [fastest.search(query, k)[0] for query in range(n_queries + 1)][1:]
        ours_ns += peer.ask("row", kernels[0], bits, k, n_queries + 1)[1:]
    return {
        "bits": bits,
        "k": k,
        "by_turns_ns": by_turns,
        "in_a_row": {"faiss_ns": median(faiss_ns), "ours_ns": median(ours_ns)},
    }


def median(ns):
    return int(np.median(ns))


def zip_cycled(a, b):
    """Pairs of both; the shorter one is gone through again."""
    n = max(len(a), len(b))
    return itertools.islice(zip(itertools.cycle(a), itertools.cycle(b)), n)


def compare_batch(peer, kernel, theirs, bits, k, n_queries, rounds):
    """Median nanoseconds a query of both sides, whose rounds alternate."""
    times = []
    for _ in range(rounds):
        times.append((theirs.batch(n_queries, k), peer.ask("batch", kernel, bits, k, n_queries)))
    faiss_ns, ours_ns = np.median(times, axis=0) / n_queries
    return {"bits": bits, "k": k, "faiss_ns": int(faiss_ns), "ours_ns": int(ours_ns)}


def fast_scan(data, n_queries):
    """What faiss has in place of a faster scan of our codes: one of other codes, as long, and with a recall.

    `IndexPQFastScan` takes 16 codewords a sub-vector, so it cannot hold our codes. It is given the vectors that our
    codes stand for, padded so that it can divide them; recall is the share of what it finds whose exact score is at
    least the k-th best.
    """
    padded = -(-DIM // (2 * LEVELS)) * 2 * LEVELS
    index = faiss.IndexPQFastScan(padded, 2 * LEVELS, 4, faiss.METRIC_INNER_PRODUCT)
    for first in range(0, len(data.codes), 100_000):
        codes = data.codes[first : first + 100_000]
        vectors = np.zeros((len(codes), padded), np.float32)
        for level in range(LEVELS):
            vectors[:, :DIM] += data.codebooks[level][codes[:, level]]
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
    queries = np.pad(data.queries[: n_queries + 1], ((0, 0), (0, padded - DIM)))
    exact = np.einsum("qd,lkd->qlk", data.queries[: n_queries + 1], data.codebooks)
    rows = {k: ([], []) for k in KS}
    for query in range(n_queries + 1):
        scores = sum(exact[query, level][data.codes[:, level]] for level in range(LEVELS))
        for k in KS:
            ns, ids, *_ = Theirs(index, queries).search(query, k)
            kth = np.partition(scores, len(scores) - k)[len(scores) - k]
            if query:
                rows[k][0].append(ns)
                rows[k][1].append((scores[ids] >= kth - TOLERANCE * abs(kth)).mean())
    return [{"k": k, "ns": median(ns), "recall": float(np.mean(recall))} for k, (ns, recall) in rows.items()]


def measure(path, n_items, n_queries, report):
    for shape in SHAPES:
        with Peer(path) as peer:
            data = Data(peer, shape, n_items)
        label = {"items": n_items, "shape": shape}
        for metric in ("ip", "l2"):
            # A process of its own, so that memory is that of this index.
            with Peer(path) as peer:
                measure_index(peer, data, label | {"metric": metric}, n_queries, report)
        progress(f"{n_items} {shape} IndexPQFastScan")
        report["fast_scans"] += [label | row for row in fast_scan(data, n_queries)]


def measure_index(peer, data, label, n_queries, report):
    n_items, shape, metric = label.values()
    file = peer.ask("build", shape, n_items, LEVELS, metric)
    kernels, opened = file.pop("kernels"), peer.ask("resident")
    for n_levels in range(1, LEVELS + 1):
        bits, theirs = 8 * n_levels, indexes(data, n_levels, metric)
        for k in KS:
            progress(f"{n_items} {shape} {metric} {bits} bits, k = {k}")
            report["searches"].append(label | compare(peer, kernels, theirs, bits, k, n_queries))
            if metric == "ip":
                batch = compare_batch(peer, kernels[0], theirs["IndexPQ"], bits, k, BATCH, BATCH_ROUNDS)
                report["batches"].append(label | batch)
    resident = file["open_bytes"] + peer.ask("resident") - opened
    report["files"].append(label | {"resident_bytes": resident} | file)
    report["kernels"] = kernels


def measure_rankings(path, report):
    with Peer(path) as peer:
        data = Data(peer, "clustered", RANKING_ITEMS)
        kernel = peer.ask("build", "clustered", RANKING_ITEMS, LEVELS, "ip")["kernels"][0]
        for n_levels in range(1, LEVELS + 1):
            bits, theirs = 8 * n_levels, indexes(data, n_levels, "ip")["IndexPQ"]
            progress(f"whole rankings of {RANKING_ITEMS} codes of {bits} bits")
            compare(peer, [kernel], {"IndexPQ": theirs}, bits, RANKING_ITEMS, 1)
            report["rankings"].append(
                compare_batch(peer, kernel, theirs, bits, RANKING_ITEMS, RANKING_QUERIES, 1)
            )


def main():
    path, n_queries, *items = sys.argv[1:]
    items = [int(n_items) for n_items in items]
    with Peer(path) as peer:
        for n_items, shape in [*itertools.product(items, SHAPES), (RANKING_ITEMS, "clustered")]:
            progress(f"data: {n_items} {shape}")
            peer.ask("files", shape, n_items)
    # From here on both sides have one core and one thread.
    core = one_core()
    os.environ["RAYON_NUM_THREADS"] = "1"
    report = {
        "core": core,
        "dim": DIM,
        "codewords": CODEWORDS,
        "queries": int(n_queries),
        "batch": BATCH,
        "searches": [],
        "batches": [],
        "fast_scans": [],
        "files": [],
        "rankings": [],
        "ranking_items": RANKING_ITEMS,
        "ranking_queries": RANKING_QUERIES,
    }
    for n_items in items:
        measure(path, n_items, int(n_queries), report)
    measure_rankings(path, report)
    build = " ".join(faiss.get_compile_options().split())
    print_report({"faiss-cpu": f"{faiss.__version__} ({build})"}, report)


if __name__ == "__main__":
    main()
