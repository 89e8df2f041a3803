"""Writes the small indexes of faiss in this folder, and `expected.json`: queries and what faiss finds for them.

Usage: python fixtures.py, with the packages of xtask/python/faiss.txt
"""

import json
from pathlib import Path

import faiss
import numpy as np

FOLDER = Path(__file__).parent
DIM, ITEMS, QUERIES, K = 6, 40, 4, 5
NAMES = {faiss.METRIC_INNER_PRODUCT: "ip", faiss.METRIC_L2: "l2"}


def residual(metric, bits, search_type):
    return faiss.IndexResidualQuantizer(DIM, 3, bits, metric, search_type)


def product(metric, bits):
    return faiss.IndexPQ(DIM, 3, bits, metric)


def main():
    random = np.random.default_rng(6)
    x = random.standard_normal((ITEMS, DIM), np.float32)
    queries = random.standard_normal((QUERIES, DIM), np.float32)
    ids = random.permutation(1000)[:ITEMS].astype(np.int64)
    aq, ip, l2 = faiss.AdditiveQuantizer, faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
    indexes = {
        # Codes of three bits per level cross bytes.
        "residual-ip": residual(ip, 3, aq.ST_LUT_nonorm),
        "residual-l2": residual(l2, 3, aq.ST_norm_float),
        # The codebook of norms stands between codebooks and codes.
        "residual-l2-cqint4": residual(l2, 3, aq.ST_norm_cqint4),
        "product-ip": product(ip, 3),
        "product-l2-idmap": faiss.IndexIDMap(product(l2, 3)),
        "residual-ip-idmap2": faiss.IndexIDMap2(residual(ip, 4, aq.ST_decompress)),
    }
    expected = {"queries": queries.tolist(), "found": {}}
    for name, index in indexes.items():
        index.train(x)
        index.add_with_ids(x, ids) if "idmap" in name else index.add(x)
        faiss.write_index(index, str(FOLDER / f"{name}.index"))
        # Distances by faiss's own decoding: its cqint4 norms are not exact.
        codes = faiss.downcast_index(index.index) if "idmap" in name else index
        decoded = codes.reconstruct_n(0, ITEMS).astype(np.float64)
        q = queries.astype(np.float64)
        scores = q @ decoded.T
        if codes.metric_type == l2:
            scores = 2 * scores - np.square(decoded).sum(axis=1)
        if name != "residual-l2-cqint4":
            found, _ = index.search(queries, ITEMS)
            ours = -np.sort(-scores, axis=1)
            if codes.metric_type == l2:
                found = np.square(q).sum(axis=1, keepdims=True) - found
            assert np.allclose(found, ours, rtol=1e-5, atol=1e-5), name
        of_rows = ids if "idmap" in name else np.arange(ITEMS)
        # By score, then by id: equal codes have equal scores.
        order = np.lexsort((np.broadcast_to(of_rows, scores.shape), -scores))[:, :K]
        expected["found"][name] = {
            "metric": NAMES[codes.metric_type],
            "ids": of_rows[order].tolist(),
            "scores": np.take_along_axis(scores, order, axis=1).tolist(),
        }
    flat = faiss.IndexFlatL2(2)
    flat.add(x[:1, :2].copy())
    faiss.write_index(flat, str(FOLDER / "flat.index"))
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
