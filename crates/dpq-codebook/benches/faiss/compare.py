"""Fits codebooks and encodes with faiss's residual quantizer and with dpq-codebook; prints what it measured as JSON.

Usage: compare.py PEER ITEMS QUERIES [NAME=GALLERY.npy,QUERIES.npy]...
`cargo xtask bench --against faiss` builds PEER (../peer.rs) and calls this.

The first set is always the pixels of Fashion-MNIST, whose files lie in datasets/; further ones are features, float32
[N, D]. The first ITEMS of a gallery are what codebooks are fitted to and what is encoded. Times are those of the CPU,
one thread each: rates by turns on one core, then codes of both sides on all cores, several sets and lengths at once.
"""

import contextlib
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

# Before faiss and NumPy start their threads.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import faiss
import numpy as np
from sides import Peer, fashion_mnist, one_core, print_report, progress

CODEWORDS, LEVELS, ITERATIONS, ROUNDS = 256, (4, 8), 10, 10
FITS, ENCODINGS = 3, 5
KS = (1, 10, 100)
WIDTH, WIDE = 5, 32


class Ours:
    """Our codebooks of L levels, by files that both sides read."""

    def __init__(self, peer, folder, x, n_levels):
        self.peer, self.x, self.n_levels = peer, x, n_levels
        self.codebooks_file, self.codes_file = f"{folder}/codebooks", f"{folder}/codes"
        x.tofile(f"{folder}/features")
        peer.ask("features", f"{folder}/features", x.shape[1])

    def train(self):
        return self.peer.ask("train", self.n_levels, CODEWORDS, ITERATIONS, self.codebooks_file)

    def refine(self, width, weights):
        return self.peer.ask("refine", width, ROUNDS, self.codebooks_file, *weights)

    def encode(self, width, weights):
        if width == 1:
            return self.peer.ask("encode", self.codes_file)
        return self.peer.ask("beam", width, self.codes_file, *weights)

    def codebooks(self):
        return np.fromfile(self.codebooks_file, np.float32).reshape(self.n_levels, CODEWORDS, -1)

    def codes(self):
        return np.fromfile(self.codes_file, np.uint8).reshape(-1, self.n_levels)


def quantizer(dim, n_levels, width):
    rq = faiss.ResidualQuantizer(dim, n_levels, 8)
    rq.max_beam_size, rq.cp.niter = width, ITERATIONS
    return rq


def timed(work):
    start = time.thread_time_ns()
    result = work()
    return time.thread_time_ns() - start, result


def codebooks_of(rq, dim):
    return faiss.vector_to_array(rq.codebooks).reshape(-1, CODEWORDS, dim)


def quality(x, queries, nearest, codebooks, codes):
    """By length: the relative distortion, and the share of queries whose nearest item is among the first k."""
    rows, residual, energy = [], x.astype(np.float64), np.square(x, dtype=np.float64).sum()
    for level, codewords in enumerate(codebooks):
        residual -= codewords[codes[:, level]]
        decoded = (x - residual).astype(np.float32)
        distances = np.square(decoded).sum(1) - 2 * queries @ decoded.T
        found = (distances < distances[np.arange(len(queries)), nearest][:, None]).sum(1)
        rows.append(
            {
                "bits": 8 * (level + 1),
                "distortion": float(np.square(residual).sum() / energy),
                "recall": {k: float((found < k).mean()) for k in KS},
            }
        )
    return rows


def distortion(x, codebooks, codes):
    """Of the full length."""
    return quality(x, x[:1], [0], codebooks, codes)[-1]["distortion"]


def median(ns):
    return int(np.median(ns))


def encoding(ours, x):
    """Median vectors a second of both sides with the same codebooks, and the share of equal codes; rounds alternate."""
    rq = quantizer(x.shape[1], ours.n_levels, 1)
    faiss.copy_array_to_vector(ours.codebooks().ravel(), rq.codebooks)
    rq.is_trained = True
    rq.compute_codebook_tables()
    weights, rows = [0] * (ours.n_levels - 1) + [1], []
    for width in (1, WIDTH):
        rq.max_beam_size = width
        times = {"ours": [], "products": [], "tables": []}
        for _ in range(ENCODINGS):
            times["ours"].append(ours.encode(width, weights))
            for tables, name in enumerate(("products", "tables")):
                rq.use_beam_LUT = tables
                ns, codes = timed(lambda: rq.compute_codes(x))
                times[name].append(ns)
        rate = {name: len(x) / np.median(ns) * 1e9 for name, ns in times.items()}
        rows.append(
            {
                "width": width,
                "ours_per_second": rate["ours"],
                "faiss_per_second": max(rate["products"], rate["tables"]),
                "equal_codes": float((codes == ours.codes()).all(1).mean()),
            }
        )
    return rows


def fitting(ours, x):
    """Median nanoseconds of both sides for residual k-means, by faiss's way, and the distortion that is left.

    What faiss does by default fits in ten steps of more and more principal directions, with all iterations in each.
    """
    ways = {"progressive dimensions, its default": 1, "plain k-means": 0}
    times, quantizers = {"ours": []} | {way: [] for way in ways}, {}
    for _ in range(FITS):
        times["ours"].append(ours.train())
        for way, train_type in ways.items():
            rq = quantizers[way] = quantizer(x.shape[1], ours.n_levels, 1)
            rq.train_type = train_type
            times[way].append(timed(lambda: rq.train(x))[0])
    ours.encode(1, [])
    of_ours = {"ours_ns": median(times["ours"]), "ours_distortion": distortion(x, ours.codebooks(), ours.codes())}
    rows = []
    for way, rq in quantizers.items():
        left = distortion(x, codebooks_of(rq, x.shape[1]), rq.compute_codes(x))
        rows.append({"way": way, "faiss_ns": median(times[way]), "faiss_distortion": left} | of_ours)
    return rows


def codes_of_both(ours, x, queries, nearest):
    """The quality of every length of codes of both sides, with the time of fitting and of encoding."""
    every, last = [1] * ours.n_levels, [0] * (ours.n_levels - 1) + [1]

    def row(name, fit_ns, encode_ns, codebooks, codes):
        lengths = quality(x, queries, nearest, codebooks, codes)
        return {"codes": name, "fit_ns": fit_ns, "encode_ns": encode_ns, "lengths": lengths}

    fit_ns = ours.train()
    yield row("dpq, greedy", fit_ns, ours.encode(1, every), ours.codebooks(), ours.codes())
    for name, weights in (("every length", every), ("the longest", last)):
        ours.train()
        refine_ns = fit_ns + ours.refine(WIDTH, weights)
        for width in (WIDTH, WIDE):
            encode_ns = ours.encode(width, weights)
            name_of = f"dpq, refined for {name}, beam {width}"
            yield row(name_of, refine_ns, encode_ns, ours.codebooks(), ours.codes())
    for width in (1, WIDTH, WIDE):
        rq = quantizer(x.shape[1], ours.n_levels, width)
        fit_ns, _ = timed(lambda: rq.train(x))
        encode_ns, codes = timed(lambda: rq.compute_codes(x))
        yield row(f"faiss, beam {width}", fit_ns, encode_ns, codebooks_of(rq, x.shape[1]), codes)


def pixels(part):
    """The images of Fashion-MNIST, a row each."""
    return fashion_mnist(f"{part}-images-idx3").reshape(-1, 784).astype(np.float32)


@contextlib.contextmanager
def started(path, x, n_levels):
    with Peer(path) as peer, tempfile.TemporaryDirectory() as folder:
        yield Ours(peer, folder, x, n_levels)


def measure_codes(path, label, x, queries, nearest, n_levels):
    progress(f"{label['set']}, codes of {n_levels} levels")
    with started(path, x, n_levels) as ours:
        return [label | {"levels": n_levels} | row for row in codes_of_both(ours, x, queries, nearest)]


def load(name, gallery, queries, n_items, n_queries):
    """What a set is, its items [N, D], its queries [Q, D], and the item nearest to each query."""
    x, queries = np.ascontiguousarray(gallery[:n_items]), np.ascontiguousarray(queries[:n_queries])
    label = {"set": name, "items": len(x), "queries": len(queries), "dim": x.shape[1]}
    return label, x, queries, faiss.knn(queries, x, 1)[1][:, 0]


def main():
    path, n_items, n_queries, *files = sys.argv[1:]
    sizes = int(n_items), int(n_queries)
    sets = [load("pixels", pixels("train"), pixels("t10k"), *sizes)]
    for name, paths in (file.split("=") for file in files):
        sets.append(load(name, *map(np.load, paths.split(",")), *sizes))
    report = {
        "codewords": CODEWORDS,
        "iterations": ITERATIONS,
        "rounds": ROUNDS,
        "fitting": [],
        "encoding": [],
        "codes": [],
    }
    cores = os.sched_getaffinity(0)
    one_core()
    for label, x, *_ in sets:
        progress(f"{label['set']}, rates")
        with started(path, x, LEVELS[0]) as ours:
            report["fitting"] += [label | row for row in fitting(ours, x)]
            report["encoding"] += [label | row for row in encoding(ours, x)]
    os.sched_setaffinity(0, cores)
    with ProcessPoolExecutor(len(cores)) as pool:
        # The longest first, so that no core waits for the other.
        jobs = {(n, i): pool.submit(measure_codes, path, *sets[i], n) for n in LEVELS[::-1] for i in range(len(sets))}
        for _, job in sorted(jobs.items()):
            report["codes"] += job.result()
    report["jobs"] = len(cores)
    build = " ".join(faiss.get_compile_options().split())
    print_report({"faiss-cpu": f"{faiss.__version__} ({build})"}, report)


if __name__ == "__main__":
    main()
