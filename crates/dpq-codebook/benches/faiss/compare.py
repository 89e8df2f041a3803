"""Fits codebooks and encodes with faiss's residual quantizer and with dpq-codebook, by turns on one core, and prints
what it measured as JSON.

Usage: compare.py PEER ITEMS QUERIES [NAME=GALLERY.npy,QUERIES.npy]...    PEER is ../peer.rs, built.

From the repository's root. The first set is always the pixels of Fashion-MNIST, whose files lie in datasets/; further ones
are features, float32 [N, D]. The first ITEMS of a gallery are what codebooks are fitted to and what is encoded. Times are
those of the CPU, one thread each.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import time

# Before faiss and NumPy start their threads.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import faiss
import numpy as np

CODEWORDS, LEVELS, ITERATIONS, ROUNDS = 256, (4, 8), 10, 10
TURNS = 5
KS = (1, 10, 100)
WIDTH = 5


class Peer:
    """Our side: a process that answers a line with a line of JSON, and ends when its input does."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"dpq's side ended at `{' '.join(map(str, words))}`, its message is above")
        return json.loads(answer)


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


def speed(ours, x):
    """Median nanoseconds of both sides for the same codebooks, by width, and whether codes agree; their rounds alternate."""
    rq = quantizer(x.shape[1], ours.n_levels, 1)
    faiss.copy_array_to_vector(ours.codebooks().ravel(), rq.codebooks)
    rq.is_trained = True
    rq.compute_codebook_tables()
    weights, rows = [0] * (ours.n_levels - 1) + [1], []
    for width in (1, WIDTH):
        rq.max_beam_size = width
        times = {"ours": [], "faiss": [], "faiss_tables": []}
        for _ in range(TURNS):
            times["ours"].append(ours.encode(width, weights))
            for tables, name in enumerate(("faiss", "faiss_tables")):
                rq.use_beam_LUT = tables
                ns, codes = timed(lambda: rq.compute_codes(x))
                times[name].append(ns)
        equal = float((codes == ours.codes()).all(1).mean())
        per_second = {f"{name}_per_second": len(x) / np.median(ns) * 1e9 for name, ns in times.items()}
        distortion = [
            quality(x, x[:1], [0], ours.codebooks(), codes)[-1]["distortion"] for codes in (ours.codes(), codes)
        ]
        rows.append({"width": width, "equal_codes": equal, "distortion": distortion} | per_second)
    return rows


def training(ours, x):
    """Nanoseconds of both sides for codebooks, and what they leave; their rounds alternate."""
    rows = []
    for _ in range(TURNS):
        rq = quantizer(x.shape[1], ours.n_levels, 1)
        ours_ns, (faiss_ns, _) = ours.train(), timed(lambda: rq.train(x))
        rows.append((ours_ns, faiss_ns))
    ours.encode(1, [])
    of_ours = quality(x, x[:1], [0], ours.codebooks(), ours.codes())[-1]["distortion"]
    of_faiss = quality(x, x[:1], [0], codebooks_of(rq, x.shape[1]), rq.compute_codes(x))[-1]["distortion"]
    ours_ns, faiss_ns = np.median(rows, axis=0)
    return {
        "ours_ns": int(ours_ns),
        "faiss_ns": int(faiss_ns),
        "ours_distortion": of_ours,
        "faiss_distortion": of_faiss,
    }


def codes_of_both(ours, x, queries, nearest):
    """The quality of every length of codes of both sides, with the time of fitting and of encoding."""
    every, last = [1] * ours.n_levels, [0] * (ours.n_levels - 1) + [1]

    def row(name, train_ns, encode_ns, codebooks, codes):
        progress(f"{name}, {ours.n_levels} levels")
        lengths = quality(x, queries, nearest, codebooks, codes)
        return {"codes": name, "train_ns": train_ns, "encode_ns": encode_ns, "lengths": lengths}

    train_ns = ours.train()
    yield row("dpq, greedy", train_ns, ours.encode(1, every), ours.codebooks(), ours.codes())
    for name, weights in (("every length", every), ("the longest", last)):
        ours.train()
        refine_ns = train_ns + ours.refine(WIDTH, weights)
        for width in (WIDTH, 32):
            encode_ns = ours.encode(width, weights)
            name_of = f"dpq, refined for {name}, beam {width}"
            yield row(name_of, refine_ns, encode_ns, ours.codebooks(), ours.codes())
    for width in (1, WIDTH, 32):
        rq = quantizer(x.shape[1], ours.n_levels, width)
        train_ns, _ = timed(lambda: rq.train(x))
        encode_ns, codes = timed(lambda: rq.compute_codes(x))
        yield row(f"faiss, beam {width}", train_ns, encode_ns, codebooks_of(rq, x.shape[1]), codes)


def pixels(part):
    """The images of Fashion-MNIST, a row each."""
    with gzip.open(f"datasets/fashion-mnist/{part}-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784).astype(np.float32)


def progress(what):
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def main():
    path, n_items, n_queries, *files = sys.argv[1:]
    sets = {"Fashion-MNIST pixels": lambda: (pixels("train"), pixels("t10k"))}
    for name, paths in (file.split("=") for file in files):
        sets[name] = lambda paths=paths: [np.load(path) for path in paths.split(",")]
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    faiss.omp_set_num_threads(1)
    report = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "faiss": f"{faiss.__version__} ({' '.join(faiss.get_compile_options().split())})",
        "codewords": CODEWORDS,
        "iterations": ITERATIONS,
        "rounds": ROUNDS,
        "speed": [],
        "training": [],
        "codes": [],
    }
    for name, load in sets.items():
        gallery, queries = load()
        x = np.ascontiguousarray(gallery[: int(n_items)])
        queries = np.ascontiguousarray(queries[: int(n_queries)])
        nearest = faiss.knn(queries, x, 1)[1][:, 0]
        label = {"set": name, "items": len(x), "queries": len(queries), "dim": x.shape[1]}
        for n_levels in LEVELS:
            with Peer(path) as peer, tempfile.TemporaryDirectory() as folder:
                ours = Ours(peer, folder, x, n_levels)
                levels = label | {"levels": n_levels}
                if n_levels == LEVELS[0]:
                    progress(f"{name}: speed")
                    report["training"].append(levels | training(ours, x))
                    report["speed"] += [levels | row for row in speed(ours, x)]
                report["codes"] += [levels | row for row in codes_of_both(ours, x, queries, nearest)]
    json.dump(report, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
