"""Fits codebooks and encodes with faiss's residual quantizer and with dpq-codebook; prints what it measured as JSON.

Usage: compare.py PEER ITEMS QUERIES [NAME=GALLERY.npy,QUERIES.npy]...
`cargo xtask bench --against faiss` builds PEER (../peer.rs) and calls this.

The first set is always the pixels of Fashion-MNIST, whose files lie in datasets/; further ones are features, float32
[N, D]. The first ITEMS of a gallery are what codebooks are fitted to, encoded and searched; the next as many are
encoded too, for the distortion of what was not fitted. Times are those of the CPU, one thread each: rates by turns on
one core, then codes of both sides on all cores, several sets and lengths at once.
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

CODEWORDS, LEVELS, ITERATIONS, MANY, ROUNDS = 256, (4, 8), 10, 50, 10
FITS, ENCODINGS = 3, 15
KS = (1, 10, 100)
WIDTH, WIDE = 5, 32
DEFAULT, TOP = faiss.ResidualQuantizer.Train_progressive_dim, faiss.ResidualQuantizer.Train_top_beam
PLAIN = faiss.ResidualQuantizer.Train_default
# How faiss fits: name, beam, training, and whether codebooks are refined afterwards.
WAYS = [
    ("beam 1", 1, DEFAULT, False),
    (f"beam {WIDTH}", WIDTH, DEFAULT, True),
    (f"beam {WIDE}", WIDE, DEFAULT, False),
    (f"top of the beam, beam {WIDTH}", WIDTH, DEFAULT | TOP, True),
]


class Ours:
    """Our codebooks of L levels, by files that both sides read."""

    def __init__(self, peer, folder, x, n_levels):
        self.peer, self.n_levels = peer, n_levels
        self.features_file, self.codebooks_file = f"{folder}/features", f"{folder}/codebooks"
        self.codes_file = f"{folder}/codes"
        self.give(x)

    def give(self, x):
        """What is fitted and encoded from here on."""
        x.tofile(self.features_file)
        self.peer.ask("features", self.features_file, x.shape[1])

    def train(self, width, weights):
        shape = (self.n_levels, CODEWORDS)
        return self.peer.ask("train", *shape, ITERATIONS, width, self.codebooks_file, *weights)

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


def refine(rq, x):
    for _ in range(rq.niter_codebook_refine):
        rq.retrain_AQ_codebook(len(x), faiss.swig_ptr(x))
    rq.compute_codebook_tables()


def codebooks_of(rq, dim):
    return faiss.vector_to_array(rq.codebooks).reshape(-1, CODEWORDS, dim)


def residuals(x, codebooks, codes):
    """What the codes of each length leave of x."""
    residual = x.astype(np.float64)
    for level, codewords in enumerate(codebooks):
        residual -= codewords[codes[:, level]]
        yield residual


def distortions(x, codebooks, codes):
    """By length, relative."""
    energy = np.square(x, dtype=np.float64).sum()
    return [float(np.square(residual).sum() / energy) for residual in residuals(x, codebooks, codes)]


def recalls(x, queries, nearest, codebooks, codes):
    """By length: the share of queries whose nearest item is among the first k."""
    for residual in residuals(x, codebooks, codes):
        decoded = (x - residual).astype(np.float32)
        distances = np.square(decoded).sum(1) - 2 * queries @ decoded.T
        found = (distances < distances[np.arange(len(queries)), nearest][:, None]).sum(1)
        yield {k: float((found < k).mean()) for k in KS}


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
    ways = {
        "progressive dimensions, its default": (DEFAULT, ITERATIONS),
        "plain k-means": (PLAIN, ITERATIONS),
        f"plain k-means, {MANY} rounds": (PLAIN, MANY),
    }
    times, quantizers = {"ours": []} | {way: [] for way in ways}, {}
    for _ in range(FITS):
        times["ours"].append(ours.train(1, [1] * ours.n_levels))
        for way, (train_type, n_rounds) in ways.items():
            rq = quantizers[way] = quantizer(x.shape[1], ours.n_levels, 1)
            rq.train_type, rq.cp.niter = train_type, n_rounds
            times[way].append(timed(lambda: rq.train(x))[0])
    ours.encode(1, [])
    of_ours = {"ours_ns": median(times["ours"]), "ours_distortion": distortions(x, ours.codebooks(), ours.codes())[-1]}
    rows = []
    for way, rq in quantizers.items():
        left = distortions(x, codebooks_of(rq, x.shape[1]), rq.compute_codes(x))[-1]
        rows.append({"way": way, "faiss_ns": median(times[way]), "faiss_distortion": left} | of_ours)
    return rows


def codes_of_both(ours, x, others, queries, nearest):
    """The quality of every length of codes of both sides, with the time of fitting and of encoding."""
    every, last = [1] * ours.n_levels, [0] * (ours.n_levels - 1) + [1]

    def row(name, fit_ns, encode_ns, codebooks, codes, codes_of_others):
        columns = {
            "bits": range(8, 8 * ours.n_levels + 1, 8),
            "distortion": distortions(x, codebooks, codes),
            "others_distortion": distortions(others, codebooks, codes_of_others),
            "recall": recalls(x, queries, nearest, codebooks, codes),
        }
        lengths = [dict(zip(columns, values)) for values in zip(*columns.values())]
        return {"codes": name, "fit_ns": fit_ns, "encode_ns": encode_ns, "lengths": lengths}

    def row_of_ours(name, fit_ns, width, weights):
        ours.give(others)
        ours.encode(width, weights)
        codes_of_others = ours.codes()
        ours.give(x)
        encode_ns = ours.encode(width, weights)
        return row(f"dpq, {name}", fit_ns, encode_ns, ours.codebooks(), ours.codes(), codes_of_others)

    yield row_of_ours("greedy", ours.train(1, every), 1, every)
    for name, weights in (("every length", every), ("the longest", last)):
        fit_ns = ours.train(WIDTH, weights)
        for width in (WIDTH, WIDE):
            yield row_of_ours(f"fitted for {name}, beam {width}", fit_ns, width, weights)
        fit_ns += ours.refine(WIDTH, weights)
        for width in (WIDTH, WIDE):
            yield row_of_ours(f"refined for {name}, beam {width}", fit_ns, width, weights)

    def row_of_faiss(name, fit_ns, rq):
        encode_ns, codes = timed(lambda: rq.compute_codes(x))
        codebooks = codebooks_of(rq, x.shape[1])
        return row(f"faiss, {name}", fit_ns, encode_ns, codebooks, codes, rq.compute_codes(others))

    for name, width, train_type, refined in WAYS:
        rq = quantizer(x.shape[1], ours.n_levels, width)
        rq.train_type = train_type
        fit_ns, _ = timed(lambda: rq.train(x))
        yield row_of_faiss(name, fit_ns, rq)
        if refined:
            # The second part of Train_refine_codebook, without its training.
            refine_ns, _ = timed(lambda: refine(rq, x))
            yield row_of_faiss(f"refined, {name}", fit_ns + refine_ns, rq)


def pixels(part):
    """The images of Fashion-MNIST, a row each."""
    return fashion_mnist(f"{part}-images-idx3").reshape(-1, 784).astype(np.float32)


@contextlib.contextmanager
def started(path, x, n_levels):
    with Peer(path) as peer, tempfile.TemporaryDirectory() as folder:
        yield Ours(peer, folder, x, n_levels)


def measure_codes(path, n_levels, label, x, *rest):
    progress(f"{label['set']}, codes of {n_levels} levels")
    with started(path, x, n_levels) as ours:
        return [label | {"levels": n_levels} | row for row in codes_of_both(ours, x, *rest)]


def load(name, gallery, queries, n_items, n_queries):
    """What a set is, its items [N, D], others [N, D], its queries [Q, D], and the item nearest to each query."""
    x, others, queries = map(
        np.ascontiguousarray, (gallery[:n_items], gallery[n_items : 2 * n_items], queries[:n_queries])
    )
    label = {"set": name, "items": len(x), "others": len(others), "queries": len(queries), "dim": x.shape[1]}
    return label, x, others, queries, faiss.knn(queries, x, 1)[1][:, 0]


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
        "faiss_rounds": faiss.ResidualQuantizer().niter_codebook_refine,
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
        jobs = {(n, i): pool.submit(measure_codes, path, n, *sets[i]) for n in LEVELS[::-1] for i in range(len(sets))}
        for _, job in sorted(jobs.items()):
            report["codes"] += job.result()
    report["jobs"] = len(cores)
    build = " ".join(faiss.get_compile_options().split())
    print_report({"faiss-cpu": f"{faiss.__version__} ({build})"}, report)


if __name__ == "__main__":
    main()
