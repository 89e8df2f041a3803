"""Searches real vectors as codes of dpq, faiss and turbovec, and prints what it measured as JSON.

Usage: compare.py PEER DPQ    `cargo xtask bench --against turbovec` builds both (PEER is ../peer.rs) and calls this.

Each side codes the same vectors as its library would, so answers differ: recall@R is the share of the R nearest
vectors that is among the first R hits. Then the vectors themselves rank the first DEPTH hits again. Indexes are made on
all cores and kept in FOLDER. Searches run in two processes of this script, with one thread and with two, where all
sides take turns: one query at a time with one thread, and batches with two.

faiss and turbovec are timed around their call from Python, dpq inside its process, so what such a call costs that
finds nothing is measured too.
"""

import collections
import json
import os
import re
import subprocess
import sys
import time

THREADS = int(sys.argv[3]) if len(sys.argv) > 3 else None
# Before the libraries start their threads.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS") if THREADS else ():
    os.environ[variable] = str(THREADS)

import faiss
import numpy as np
import turbovec
from sides import Peer, dpq, one_core, print_report, progress

FOLDER = "target/bench-data/vectors"
PAIRS = "../shared/data/debian-pairs.safetensors"
# For each split S: dpq features --weights W --input 64 --data datasets/cifar-10 --split S
# --out-dir FEATURES/S
FEATURES = f"{FOLDER}/features"
# Hits, hits that vectors rank again, and queries: for recall, and those of a round.
K, DEPTH, QUERIES, TIMED, ROUNDS, BATCH = 10, 100, 1000, 64, 5, 32
RECALLS = (1, 10, 100)
SPLITS = ("gallery", "query")
# dpq: levels of the codebooks, lengths, and shortlists of the 32-byte codes.
LEVELS = 64
LENGTHS = (1, 2, 3, 4, 6, 8, 16, 32, 64)
SHORTLISTS = ("100@6", "100@8", "200@8", "1000@4", "200@8!")
SHORTLISTED, TABLES = 32, (4, 8, 16, 32, 64)
# faiss: the rounds of OPQ, 50 by default, and the evenly spaced vectors that slow trainings are
# given, a few more than 39 per codeword, its minimum. RQ is trained by plain k-means in place of
# ten times as much.
OPQ_ROUNDS, SAMPLE = 8, 10_000
SLOW = ("OPQ", "RQ", "LSQ", "RR")
TURBOVEC = (2, 4)


class Set:
    """Vectors [N, D], queries [Q, D], faiss's codes, and dpq's metrics, of which the others have the first."""

    def __init__(self, name, metrics, faiss_codes, x, queries):
        self.name, self.metrics, self.faiss_codes, self.x, self.queries = name, metrics, faiss_codes, x, queries
        self.folder = f"{FOLDER}/{name}"

    def path(self, name):
        return f"{self.folder}/{name}"

    def truth(self):
        """The nearest vectors of each query, the nearest first."""
        scores = self.queries @ self.x.T
        if self.metrics[0] == "l2":
            scores -= np.square(self.x).sum(1) / 2
        nearest = np.argpartition(-scores, DEPTH, axis=1)[:, :DEPTH]
        return np.take_along_axis(nearest, np.argsort(-np.take_along_axis(scores, nearest, 1), 1, "stable"), 1)


def pixels(path):
    """Fashion-MNIST, each image less the mean image and scaled to unit length."""
    for split in SPLITS:
        folder = f"{FOLDER}/pixels/{split}"
        if not os.path.exists(f"{folder}/features.npy"):
            dpq(path, "data", "export", "--data", "datasets/fashion-mnist", "--split", split, "--out-dir", folder)
    # Padded for the lengths that do not divide 784.
    product = [f"PQ{m}" for m in (4, 8, 16, 28)] + ["Pad800,PQ32", "Pad832,PQ64"]
    fast = [f"PQ{m}x4fs" for m in (8, 16, 56, 112)]
    return Set("pixels", ("l2", "ip"), [*product, *fast, *others(784, (8, 28), "float")], *parts("pixels"))


def parts(name):
    """The vectors and the queries of a folder."""
    return [np.load(f"{FOLDER}/{name}/{split}/features.npy") for split in SPLITS]


def features():
    """CIFAR-10 by a residual network that learnt ImageNet, each feature scaled to unit length."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in parts("features")]
    codes = [f"PQ{m}" for m in (4, 8, 16, 32, 64)] + [f"PQ{m}x4fs" for m in (8, 16, 64, 128)]
    return Set("features", ("l2",), [*codes, *others(512, (8, 32), "float")], *unit)


def pairs():
    """Sentence embeddings of unit length: descriptions of Debian's packages, and summaries as queries."""
    with open(PAIRS, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()

    def tensor(name):
        begin, end = header[name]["data_offsets"]
        return np.frombuffer(data[begin:end], np.float16).reshape(header[name]["shape"]).astype(np.float32)

    codes = [f"PQ{m}" for m in (4, 8, 16, 32, 64)] + [f"PQ{m}x4fs" for m in (8, 16, 64, 128)]
    # The set names its last rows for tests.
    queries = np.ascontiguousarray(tensor("queries")[15_000:][:QUERIES])
    return Set("sentences", ("ip",), [*codes, *others(384, (8, 32), "none")], tensor("keys"), queries)


def others(dim, opq, norm):
    """Further codes in the words of faiss's index factory."""
    additive = [f"{name}{m}x8_N{norm}" for name, m in (("RQ", 4), ("RQ", 8), ("LSQ", 8))]
    rotated = [f"RR{dim},RaBitQ{bits}" for bits in ("", 2, 4, "fs", "fs4")]
    return [*(f"OPQ{m},PQ{m}" for m in opq), *additive, *rotated, "Flat"]


def prepare(path, data):
    """Makes what is missing in the folder of a set; returns the seconds that making each code took."""
    os.makedirs(data.folder, exist_ok=True)
    log = data.path("seconds.json")
    seconds = json.load(open(log)) if os.path.exists(log) else {}
    for name, x in (("vectors", data.x), ("queries", data.queries)):
        if not os.path.exists(data.path(name)):
            np.save(data.path(f"{name}.npy"), x)
            x.tofile(data.path(name))

    def make(name, file, action):
        if not os.path.exists(data.path(file)):
            progress(f"{data.name}: making {name}")
            start = time.monotonic()
            action(data.path(file))
            seconds[name] = round(time.monotonic() - start, 1)
            json.dump(seconds, open(log, "w"))

    vectors, codebook = data.path("vectors.npy"), data.path("codebook.safetensors")
    train = "codebook", "train", "--features", vectors, "--levels", LEVELS
    make("dpq, codebook", "codebook.safetensors", lambda out: dpq(path, *train, "--out", out))

    def encode(out):
        dpq(path, "encode", "--codebook", codebook, "--features", vectors, "--out-dir", data.path("encoded"))
        np.load(data.path("encoded/codes.npy")).tofile(out)

    make("dpq, codes", "codes", encode)
    for name in data.faiss_codes:
        make(name, f"{name}.faiss", lambda out: faiss.write_index(faiss_index(data, name), out))
    for bits in TURBOVEC:
        make(f"turbovec, {bits} bits", f"turbovec-{bits}", lambda out: turbovec_index(data, bits).write(out))
    return seconds


def faiss_index(data, name):
    metric = faiss.METRIC_L2 if data.metrics[0] == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(data.x.shape[1], name, metric)
    if name.startswith("OPQ"):
        faiss.downcast_VectorTransform(index.chain.at(0)).niter = OPQ_ROUNDS
    if name.startswith("RQ"):
        index.rq.train_type = faiss.ResidualQuantizer.Train_default
    index.train(sample(data, SAMPLE) if name.startswith(SLOW) else data.x)
    index.add(data.x)
    return index


def turbovec_index(data, bits):
    index = turbovec.TurboQuantIndex(data.x.shape[1], bits)
    # As its documentation advises.
    index.calibrate(sample(data, 1024))
    index.add(data.x)
    return index


def sample(data, n):
    return np.ascontiguousarray(data.x[np.linspace(0, len(data.x) - 1, min(n, len(data.x))).astype(int)])


class Ours:
    """One length of dpq, or a shortlist at a shorter one, with one kernel."""

    def __init__(self, peer, kernel, length):
        self.peer, self.options = peer, (kernel, length)

    def ask(self, command, k, rescored, n_queries):
        return self.peer.ask(command, *self.options, f"{k}/{DEPTH}" if rescored else k, n_queries)

    def ids(self, k, rescored):
        return np.array(self.ask("ids", k, rescored, QUERIES))

    def row(self, rescored):
        return self.ask("row", K, rescored, TIMED)

    def batches(self, rescored):
        return [self.ask("batch", K, rescored, TIMED) / TIMED]


class Theirs:
    """A search for ids by a call from Python."""

    def __init__(self, data, search):
        self.queries, self.search = data.queries, search

    def ids(self, k, rescored):
        return self.search(self.queries, k, rescored)

    def timed(self, rescored, size):
        for first in range(0, TIMED, size):
            queries = self.queries[first : min(first + size, TIMED)]
            start = time.monotonic_ns()
            self.search(queries, K, rescored)
            yield time.monotonic_ns() - start

    def row(self, rescored):
        return list(self.timed(rescored, 1))

    def batches(self, rescored):
        return [sum(self.timed(rescored, BATCH)) / TIMED]


def faiss_side(data, name, flat):
    index = faiss.read_index(data.path(f"{name}.faiss"))
    refined = faiss.IndexRefine(index, flat)
    refined.k_factor = DEPTH / K
    side = Theirs(data, lambda queries, k, rescored: (refined if rescored else index).search(queries, k)[1])
    side.n_bytes = index.sa_code_size()
    return side


def turbovec_side(data, bits):
    index = turbovec.TurboQuantIndex.load(data.path(f"turbovec-{bits}"))
    index.prepare()

    def search(queries, k, rescored):
        ids = index.search(queries, DEPTH if rescored else k)[1]
        if rescored:
            vectors = data.x[ids]
            scores = -np.square(vectors - queries[:, None]).sum(2) if data.metrics[0] == "l2" else (
                np.matmul(vectors, queries[:, :, None])[:, :, 0])
            ids = np.take_along_axis(ids, np.argsort(-scores, axis=1)[:, :k], axis=1)
        return ids

    side = Theirs(data, search)
    # A number per vector is stored with its code.
    side.n_bytes = data.x.shape[1] * bits // 8 + 4
    return side


def sides(data, peers):
    """Rows without measurements, the side of each, and for dpq the same with its second kernel."""
    for metric, (peer, index) in peers.items():
        norm = 4 if metric == "l2" else 0
        kernels = index["kernels"][:2]
        for n_bytes in LENGTHS:
            both = (Ours(peer, kernel, 8 * n_bytes) for kernel in kernels)
            yield ours(index, metric, "exact", n_bytes, n_bytes + norm), *both
        for shortlist in SHORTLISTS if metric == data.metrics[0] else ():
            n, at, end = re.fullmatch(r"(\d+)@(\d+)(!?)", shortlist).groups()
            both = (Ours(peer, kernel, f"{8 * SHORTLISTED}:{n}@{8 * int(at)}{end}") for kernel in kernels)
            # With the norm of the shorter length.
            yield ours(index, metric, shortlist, SHORTLISTED, SHORTLISTED + 2 * norm), *both
    row = {"metric": data.metrics[0]}
    flat = faiss.read_index(data.path("Flat.faiss"))
    for name in data.faiss_codes:
        side = faiss_side(data, name, flat)
        product = re.fullmatch(r"(?:Pad\d+,)?PQ(\d+)", name)
        named = row | {"program": "faiss", "name": name, "code": int(product[1]) if product else None}
        yield named | {"bytes": side.n_bytes, "file_bytes": os.path.getsize(data.path(f"{name}.faiss"))}, side, None
    for bits in TURBOVEC:
        side = turbovec_side(data, bits)
        named = row | {"program": "turbovec", "name": f"{bits} bits", "code": None, "bytes": side.n_bytes}
        yield named | {"file_bytes": os.path.getsize(data.path(f"turbovec-{bits}"))}, side, None


def ours(index, metric, name, code, n_bytes):
    row = {"program": "dpq", "metric": metric, "name": name, "code": code, "bytes": n_bytes}
    return row | {"file_bytes": index["file_bytes"]}


def open_peer(path, data, n_levels, metric):
    peer = Peer(path)
    files = [data.path(name) for name in ("codebook.safetensors", "codes", "queries", "vectors")]
    return peer, peer.ask("index", *files[:2], n_levels, metric, *files[2:])


def measure(path, data):
    """Searches with as many threads as this process has: times, and recalls with two threads."""
    peers = {metric: open_peer(path, data, LEVELS, metric) for metric in data.metrics}
    rows = list(sides(data, peers))
    truth, times, tables = data.truth(), collections.defaultdict(list), collections.defaultdict(list)
    for row, side, _ in rows:
        progress(f"{data.name}, threads: {THREADS}, {row['program']} {row['name']} {row['bytes']}")
        if THREADS > 1:
            row["recall"] = [recall(side.ids(k, rescored), truth) for k, rescored in ((DEPTH, False), (K, True))]
    for turn in range(ROUNDS):
        progress(f"{data.name}, threads: {THREADS}, round {turn + 1}")
        for number, (_, side, second) in enumerate(rows):
            for rescored in (False, True):
                times[number, rescored] += side.row(rescored) if THREADS == 1 else side.batches(rescored)
            if second and THREADS == 1:
                times[number, "second"] += second.row(False)
        for n_bytes in TABLES if THREADS == 1 else ():
            tables[n_bytes] += peers[data.metrics[0]][0].ask("table", 8 * n_bytes, TIMED)
    for number, (row, *_) in enumerate(rows):
        row["ns"] = [median(times[number, rescored]) for rescored in (False, True)]
        row["second_ns"] = median(times[number, "second"])
    empty = Theirs(data, lambda queries, k, _: faiss.IndexFlatL2(data.x.shape[1]).search(queries, k))
    label = {"kernels": peers[data.metrics[0]][1]["kernels"], "faiss_simd": faiss.SIMDConfig.get_level_name()}
    label["empty_call_ns"] = median(empty.row(False))
    label["tables"] = [{"code": n_bytes, "ns": median(ns)} for n_bytes, ns in tables.items()]
    return label | {"rows": [row for row, *_ in rows]}


def median(ns):
    return int(np.median(ns)) if ns else None


def recall(ids, truth):
    """The share of the R nearest vectors among the first R hits, for each R of which there are hits."""
    found = [r for r in RECALLS if r <= ids.shape[1]]
    return [float((ids[:, :r, None] == truth[:, None, :r]).any(2).mean()) for r in found]


def report(path, data, seconds):
    """What both processes measured, and the size of a file of 32 levels."""
    words = [sys.executable, *sys.argv]
    one, two = (json.loads(subprocess.check_output([*words, str(threads), data.name])) for threads in (1, 2))
    for row, other in zip(one["rows"], two["rows"], strict=True):
        row["ns"], row["recall"] = [row["ns"], other["ns"]], other["recall"]
    peer, file = open_peer(path, data, 32, data.metrics[0])
    with peer:
        label = {"name": data.name, "items": len(data.x), "dim": data.x.shape[1], "metric": data.metrics[0]}
    return label | {"seconds": seconds, "file_bytes_of_32": file["file_bytes"]} | one


def main():
    path, command, *rest = sys.argv[1:]
    sets = {"pixels": lambda: pixels(command), "features": features, "sentences": pairs}
    if rest:
        if THREADS == 1:
            one_core()
        json.dump(measure(path, sets[rest[1]]()), sys.stdout)
        return
    left_out = {}
    for name, path_of_set in (("features", f"{FEATURES}/query/features.npy"), ("sentences", PAIRS)):
        if not os.path.exists(path_of_set):
            progress(f"{path_of_set} is not there: left out")
            left_out[name] = "the set was not there"
            del sets[name]
    sets = [load() for load in sets.values()]
    made = [prepare(command, data) for data in sets]
    results = {
        "k": K,
        "depth": DEPTH,
        "queries": QUERIES,
        "timed": TIMED,
        "rounds": ROUNDS,
        "batch": BATCH,
        "sample": SAMPLE,
        "opq_rounds": OPQ_ROUNDS,
        "left_out": left_out,
        "sets": [report(path, data, seconds) for data, seconds in zip(sets, made)],
    }
    print_report({"faiss-cpu": faiss.__version__, "turbovec": turbovec.__version__}, results)


if __name__ == "__main__":
    main()
