import copy
import json
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import scores_of_all

import pydpq


@pytest.mark.parametrize("bits", [8, 16, 24])
@pytest.mark.parametrize("threads", [None, 1, 2])
def test_search_is_scoring_and_sorting_everything(index, data, bits, threads):
    scores, ids = index.search(data.queries, k=50, bits=bits, threads=threads)
    assert (scores.dtype, ids.dtype, scores.shape, ids.shape) == (np.float32, np.int64, (20, 50), (20, 50))
    expected = scores_of_all(index, data, bits)
    np.testing.assert_allclose(scores, -np.sort(-expected)[:, :50], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, ids, axis=1), rtol=1e-5, atol=1e-5)
    tied = scores[:, :-1] == scores[:, 1:]
    assert np.all(scores[:, :-1] >= scores[:, 1:])
    assert np.all(ids[:, :-1][tied] < ids[:, 1:][tied])
    one = [index.search(query[None], k=50, bits=bits, threads=threads) for query in data.queries]
    np.testing.assert_array_equal(np.concatenate([scores for scores, _ in one]), scores)
    np.testing.assert_array_equal(np.concatenate([ids for _, ids in one]), ids)


def test_search_uses_all_levels_by_default(index, data):
    for found, expected in zip(index.search(data.queries, 10), index.search(data.queries, 10, 24)):
        np.testing.assert_array_equal(found, expected)
    assert np.any(index.search(data.queries, 10)[0] != index.search(data.queries, 10, 16)[0])


@pytest.mark.parametrize("threads", [None, 1])
def test_a_shortlist_is_scored_again(index, data, threads):
    expected = index.search(data.queries, 10)
    for options in [{"shortlist": (3000, 8)}, {"shortlist": (10, 8), "exact": True}]:
        for a, b in zip(index.search(data.queries, 10, threads=threads, **options), expected):
            np.testing.assert_array_equal(a, b)
    listed = index.search(data.queries, 100, 16)[1]
    scores, ids = index.search(data.queries, 10, shortlist=(100, 16), threads=threads)
    assert all(np.isin(row, among).mean() > 0.8 for row, among in zip(ids, listed))  # Ties are listed too.
    np.testing.assert_allclose(scores, np.take_along_axis(scores_of_all(index, data, 24), ids, 1), rtol=1e-5, atol=1e-5)


def test_hits_are_scored_again_by_vectors(index, data, tmp_path):
    x, queries = data.x.astype(np.float64), data.queries.astype(np.float64)
    expected = queries @ x.T if index.metric == "ip" else 2 * queries @ x.T - (x * x).sum(axis=1)
    np.save(tmp_path / "x.npy", data.x)
    for depth, k in [(3000, 10), (50, 50), (5, 7)]:
        found = index.search(data.queries, depth)[1]
        scores, ids = index.rerank(data.queries, found, np.load(tmp_path / "x.npy", mmap_mode="r"), k)
        order = np.argsort(-np.take_along_axis(expected, found, 1), axis=1)[:, :k]
        n = order.shape[1]
        np.testing.assert_array_equal(ids[:, :n], np.take_along_axis(found, order, 1))
        np.testing.assert_allclose(scores[:, :n], np.take_along_axis(expected, ids[:, :n], 1), rtol=1e-5, atol=1e-5)
        assert np.all(ids[:, n:] == -1) and np.all(scores[:, n:] == np.finfo(np.float32).min)
    for call, sentence in [
        (lambda: index.rerank(data.queries, found, data.x[:5], 3), "vectors has 5 rows, none for id"),
        (lambda: index.rerank(data.queries, found[:3], data.x, 3), "ids has 3 rows, expected 20, one per query"),
        (lambda: index.rerank(data.queries, found, data.x * np.float32(np.nan), 3), "has the score NaN, expected finite"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            call()


def test_norms_and_versions(data):
    ip = pydpq.Index.from_codes(data.codes, data.codebooks)
    l2 = pydpq.Index.from_codes(data.codes, data.codebooks, metric="l2", norms=[8, 24])
    assert (ip.version, ip.norms, l2.version, l2.norms) == (1, [], 2, [24])
    assert pydpq.Index.from_codes(data.codes, data.codebooks, metric="l2", norms=[]).norms == []
    old = pydpq.Index.open(Path(__file__).parents[2] / "dpq-index/tests/data/v1-l2.dpq")
    new = old.upgrade()
    assert (old.version, old.norms, new.version, new.norms, len(new)) == (1, [], 2, [24, 32], len(old))
    queries = data.queries[:, : old.dim].copy()
    for a, b in zip(old.search(queries, 20), new.search(queries, 20)):
        np.testing.assert_array_equal(a, b)


def test_distances_are_those_of_reconstructions(data):
    index = pydpq.Index.from_codes(data.codes, data.codebooks, metric="l2")
    for bits in (8, 24):
        scores, ids = index.search(data.queries, 10, bits)
        x = data.codebooks.decode(data.codes, bits)[ids]
        expected = np.square(data.queries[:, None].astype(np.float64) - x).sum(axis=2)
        np.testing.assert_allclose(index.squared_distances(data.queries, scores), expected, rtol=1e-4, atol=1e-4)
    scores, _ = index.search(data.queries, 2, filter=index.allow(np.arange(1)))
    assert np.all(index.squared_distances(data.queries, scores)[:, 1] == np.finfo(np.float32).max)
    with pytest.raises(ValueError, match="scores has 20 rows, expected 3, one per query"):
        index.squared_distances(data.queries[:3], scores)
    with pytest.raises(ValueError, match="inner products, which give no distances"):
        pydpq.Index.from_codes(data.codes, data.codebooks).squared_distances(data.queries, scores)


def test_pieces_of_a_large_batch_come_in_order(index, data):
    many = np.concatenate([data.queries] * 40)
    np.testing.assert_array_equal(index.search(many, 3)[1], np.tile(index.search(data.queries, 3)[1], (40, 1)))


def test_few_matches_are_padded_as_in_faiss(index, data):
    scores, ids = index.search(data.queries, k=5, filter=index.allow(np.array([7, 3, 10**12])))
    assert np.all(np.sort(ids[:, :2]) == [3, 7]) and np.all(ids[:, 2:] == -1)
    assert np.all(scores[:, 2:] == np.finfo(np.float32).min) and np.all(scores[:, :2] > np.finfo(np.float32).min)
    scores, ids = index.search(data.queries, k=2, filter=index.allow(np.array([], np.uint64)))
    assert np.all(ids == -1) and scores.shape == (20, 2)
    assert (index.search(data.queries, k=3010)[1] == -1).sum() == 20 * 10


def test_filters_are_what_filtering_afterwards_gives(index, data):
    _, ids = index.search(data.queries, k=3000)
    even, low = index.allow(np.arange(0, 3000, 2)), index.deny(np.arange(100, dtype=np.uint64))
    for filter, n, passes in [
        (even, 1500, ids % 2 == 0),
        (~even, 1500, ids % 2 == 1),
        (even & low, 1450, (ids % 2 == 0) & (ids >= 100)),
        (even | low, 2950, (ids % 2 == 0) | (ids >= 100)),
    ]:
        assert len(filter) == n and repr(filter) == f"<pydpq.Filter that {n} items pass>"
        found = index.search(data.queries, k=20, filter=filter)[1]
        np.testing.assert_array_equal(found, [row[keep][:20] for row, keep in zip(ids, passes)])


def test_ids_and_masks_select_the_same(index, data):
    mask = data.codes[:, 0] % 2 == 0
    ids = np.flatnonzero(mask)
    expected = index.search(data.queries, 20, filter=index.allow(ids))[1]
    for given in [mask, mask.tolist(), ids.tolist(), ids.astype(np.int32), ids.astype(np.uint64)]:
        np.testing.assert_array_equal(index.search(data.queries, 20, filter=index.allow(given))[1], expected)
        np.testing.assert_array_equal(index.search(data.queries, 20, filter=~index.deny(given))[1], expected)
    assert len(index.allow([])) == 0
    other = pydpq.Index.from_codes(data.codes, data.codebooks, np.arange(3000) + 1)
    with pytest.raises(ValueError, match="a mask selects row numbers, and the ids of this index are others"):
        other.allow(mask)
    with pytest.raises(ValueError, match="ids is an array of bool"):
        pydpq.Index.from_codes(data.codes, data.codebooks, mask)


def test_one_query_is_a_vector(index, data):
    scores, ids = index.search(data.queries, 9)
    for query in [data.queries[3], data.queries[3].tolist(), data.queries[3].astype(np.float64)]:
        one_scores, one_ids = index.search(query, 9)
        np.testing.assert_array_equal(one_scores, scores[3])
        np.testing.assert_array_equal(one_ids, ids[3])
    again = index.rerank(data.queries[3], ids[3], data.x, 4)
    for found, expected in zip(again, index.rerank(data.queries, ids, data.x, 4)):
        np.testing.assert_array_equal(found, expected[3])
    if index.metric == "l2":
        distances = index.squared_distances(data.queries, scores)
        np.testing.assert_array_equal(index.squared_distances(data.queries[3], scores[3]), distances[3])


def test_indexes_pickle_and_copy(index, data, tmp_path):
    expected = index.search(data.queries, 9)
    index.save(tmp_path / "gallery.dpq")
    opened = pydpq.Index.open(tmp_path / "gallery.dpq")
    assert len(pickle.dumps(opened)) < 300 < len(index.to_bytes()) < len(pickle.dumps(index))
    assert index.to_bytes() == opened.to_bytes() == (tmp_path / "gallery.dpq").read_bytes()
    for made in [f(x) for x in (index, opened) for f in (lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy)]:
        for found, hits in zip(made.search(data.queries, 9), expected):
            np.testing.assert_array_equal(found, hits)


def test_a_relative_path_pickles_whole(index, tmp_path, monkeypatch):
    index.save(tmp_path / "gallery.dpq")
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(pydpq.Index.open("gallery.dpq"))
    monkeypatch.chdir("/")
    assert len(pickle.loads(pickled)) == 3000


def test_a_filter_fits_only_its_index(index, data):
    other = pydpq.Index.from_codes(data.codes[::-1].copy(), data.codebooks, metric=index.metric)
    for call in [
        lambda: other.search(data.queries, 3, filter=index.allow(np.arange(3))),
        lambda: index.allow(np.arange(3)) & other.allow(np.arange(3)),
    ]:
        with pytest.raises(ValueError, match="filter"):
            call()


@pytest.mark.parametrize("ids", [None, np.arange(3000)[::-1] * 7])
def test_faiss_files_hold_the_same_index(index, data, ids, tmp_path):
    path = tmp_path / "x.index"
    index = pydpq.Index.from_codes(data.codes, data.codebooks, ids, index.metric)
    index.to_faiss(path)
    assert path.read_bytes()[:4] == (b"IxRq" if ids is None else b"IxMp")
    read = pydpq.Index.from_faiss(path)
    assert (len(read), read.metric, read.codebooks.n_codewords) == (3000, index.metric, 256)
    for found, expected in zip(read.search(data.queries, 50), index.search(data.queries, 50)):
        np.testing.assert_array_equal(found, expected)


FIXTURES = Path(__file__).parents[2] / "dpq/tests/faiss"


def test_files_of_faiss_give_what_faiss_found():
    expected = json.loads((FIXTURES / "expected.json").read_text())
    queries = np.array(expected["queries"], np.float32)
    for name, found in expected["found"].items():
        index = pydpq.Index.from_faiss(FIXTURES / f"{name}.index")
        scores, ids = index.search(queries, 5)
        assert index.metric == found["metric"]
        np.testing.assert_array_equal(ids, found["ids"])
        np.testing.assert_allclose(scores, found["scores"], atol=1e-5)


def test_other_faiss_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="flat.index: is an IndexFlatL2, expected faiss's IndexResidualQuantizer"):
        pydpq.Index.from_faiss(FIXTURES / "flat.index")
    with pytest.raises(FileNotFoundError, match="cannot read .*missing.index"):
        pydpq.Index.from_faiss(tmp_path / "missing.index")


def test_ids_are_those_given(data):
    ids = np.arange(3000)[::-1] * 7
    index = pydpq.Index.from_codes(data.codes, data.codebooks, ids)
    rows = pydpq.Index.from_codes(data.codes, data.codebooks).search(data.queries, 1, 24)[1]
    scores = scores_of_all(index, data, 24)
    found = index.search(data.queries, 1, 24)[1]
    np.testing.assert_allclose(scores.max(axis=1), scores[np.arange(20), 2999 - found[:, 0] // 7], rtol=1e-5)
    assert found.shape == rows.shape
    large = np.arange(3000, dtype=np.uint64) + np.uint64(2**64 - 3000)
    found = pydpq.Index.from_codes(data.codes, data.codebooks, large).search(data.queries, 1, 24)[1]
    np.testing.assert_array_equal(found.view(np.uint64) - np.uint64(2**64 - 3000), rows)


def test_files_hold_what_was_built(index, data, tmp_path):
    path = tmp_path / "gallery.dpq"
    index.save(path)
    opened = pydpq.Index.open(path)
    opened.verify()
    assert (len(opened), opened.dim, opened.n_levels, opened.metric) == (3000, 12, 3, index.metric)
    assert opened.fingerprint == data.codebooks.fingerprint == opened.codebooks.fingerprint
    assert repr(opened) == f"<pydpq.Index of 3000 items, dim 12, 3 levels, {index.metric}, {opened.fingerprint}>"
    for a, b in zip(opened.search(data.queries, 9, 24), index.search(data.queries, 9, 24)):
        np.testing.assert_array_equal(a, b)
    opened.save(path)
    pydpq.Index.open(path).verify()


def test_damage_is_named(index, tmp_path):
    path = tmp_path / "gallery.dpq"
    index.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="section `.*` is damaged, make the file again or restore it from a copy"):
        pydpq.Index.open(path).verify()


def test_errors_say_what_was_expected(index, data, tmp_path):
    queries = data.queries
    wrong = [
        (lambda: index.search(queries[None], 3), r"queries is an array of float32 \[1, 20, 12\], expected float32 \[n, D\]"),
        (lambda: index.search(3, 3), r"queries is a int, expected float32 \[n, D\]"),
        (lambda: index.search(queries[:, :5].copy(), 3), "queries has rows of 5 values, expected 12, the dimension"),
        (lambda: index.search(np.full((2, 12), np.inf, np.float32), 3), "queries has the value inf at position 0"),
        (lambda: index.search(queries, 0), "k is 0, expected at least 1"),
        (lambda: index.search(queries, 3, 7), "code length in bits is 7, expected a multiple of 8"),
        (lambda: index.search(queries, 3, 32), "code length in bits is 32, expected at most 24"),
        (lambda: index.search(queries, 3, shortlist=(2, 8)), "size of the shortlist is 2, expected at least 3"),
        (lambda: index.search(queries, 3, shortlist=(9, 7)), "code length in bits is 7, expected a multiple of 8"),
        (lambda: pydpq.Index.from_codes(data.codes, data.codebooks, metric="l2", norms=[32]), "is 32, expected at most 24"),
        (lambda: index.search(queries, 3, threads=0), "threads is 0, expected 1 to 1024, or None for all cores"),
        (lambda: index.allow([-1]), "ids has the value -1, expected uint64, 0 to 18446744073709551615"),
        (lambda: index.deny(np.array([1.0])), r"ids is an array of float64 \[1\], expected uint64 \[n\] \(whole numbers"),
        (lambda: index.allow(np.zeros(5, bool)), "the mask has 5 values, expected 3000, one per item"),
        (lambda: pydpq.Index.from_bytes(b"nothing"), "bytes in memory: the file is truncated"),
        (lambda: pydpq.Index.from_codes(data.codes, data.codebooks, metric="cos"), 'unknown metric "cos", expected "ip"'),
        (lambda: pydpq.Index.from_codes(data.codes, data.codebooks, np.zeros(3000, int)), "id 0 is given to more"),
        (lambda: pydpq.Index.from_codes(data.codes, data.codebooks, np.arange(5)), "ids has 5 values, expected 3000"),
        (lambda: pydpq.Index.from_codes(data.codes[:, :2].copy(), data.codebooks), "codes has rows of 2 values, expected 3"),
        (lambda: pydpq.Index.from_codes(data.codes | 32, data.codebooks), "but there are 32 codewords"),
    ]
    for call, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            call()
    with pytest.raises(MemoryError, match="the memory does not hold"):
        index.search(queries, 2**60)
    with pytest.raises(FileNotFoundError, match="cannot open .*missing.dpq"):
        pydpq.Index.open(tmp_path / "missing.dpq")
    data.codebooks.save(tmp_path / "codebook")
    with pytest.raises(ValueError, match="is a dpq-codebook file, expected a dpq-index file"):
        pydpq.Index.open(tmp_path / "codebook")


def test_an_index_of_nothing_and_no_queries(data):
    empty = pydpq.Index.from_codes(data.codes[:0], data.codebooks)
    assert len(empty) == 0 and np.all(empty.search(data.queries, 2)[1] == -1)
    assert empty.search(data.queries[:0], 2)[1].shape == (0, 2)


def test_other_threads_run_while_a_call_works(index, data):
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    # One piece of work: a call that looks for Ctrl-C once, at its start.
    many = np.concatenate([data.queries] * 13)[:256]
    thread = threading.Thread(target=tick)
    thread.start()
    found, deadline = 0, time.perf_counter() + 20
    while found < 3 and time.perf_counter() < deadline:  # A busy machine may leave the thread waiting.
        start = time.perf_counter()
        index.search(many, k=3000, bits=24, threads=1)
        end = time.perf_counter()
        found = sum(start < tick < end for tick in ticks)
    stop.set()
    thread.join()
    assert found >= 3


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_a_long_search(index, data):
    many = np.concatenate([data.queries] * 2000)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    start = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        while time.perf_counter() < start + 60:
            index.search(many, k=3000, bits=24)
    assert time.perf_counter() < start + 30
