"""A live index in Python keeps the promises of docs/live.md."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest

import pydpq


@pytest.fixture
def live(data, tmp_path):
    with pydpq.LiveIndex.create(tmp_path / "live", data.codebooks) as live:
        yield live


def check(found, expected, queries):
    for bits in (8, 24):
        for a, b in zip(found.search(queries, 20, bits), expected.search(queries, 20, bits)):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_searches_are_those_of_one_index(data, metric, tmp_path):
    with pydpq.LiveIndex.create(tmp_path / "live", data.codebooks, metric) as live:
        live.upsert(np.arange(2000), data.codes[:2000])
        assert (len(live), live.metric, live.max_id) == (2000, metric, 1999)
        assert live.commit() == 1 and live.commit() == 1
        live.upsert(np.arange(1000, 3000), data.codes[1000:])
        live.delete(range(500))
        live.delete(2999)
        assert len(live) == 2499 and 2999 not in live and 2998 in live
        assert live.commit() == 2
        ids = np.arange(500, 2999)
        expected = pydpq.Index.from_codes(data.codes[500:2999], data.codebooks, ids, metric)
        check(live, expected, data.queries)
        assert live.compact() == 3
        check(live, expected, data.queries)
        assert not live.merge()
        snapshot = live.snapshot()
        assert len(snapshot) == 2499 and snapshot.metric == metric
        filters = [index.allow(ids[:100]) for index in (snapshot, expected)]
        for a, b in zip(live.search(data.queries, 9, filter=filters[0]), expected.search(data.queries, 9, filter=filters[1])):
            np.testing.assert_array_equal(a, b)


def test_changes_are_seen_after_a_commit(live, data):
    folder = repr(live).partition(" in ")[2][:-1]
    live.upsert([1, 2], data.codes[:2], ["one", None])
    assert (len(live), live.id_of("one")) == (2, 1)
    assert len(live.snapshot()) == 0 and list(live.search(data.queries[0], 2)[1]) == [-1, -1]
    live.commit()
    before = live.snapshot()
    assert sorted(live.search(data.queries[0], 2)[1]) == [1, 2] and before.name_of(1) == "one"
    live.delete(1)
    live.rollback()
    assert 1 in live
    live.delete([1])
    live.commit()
    assert [len(before), len(live.snapshot()), len(pydpq.Index.open(folder))] == [2, 1, 1]


def test_a_with_statement_commits_or_drops(data, tmp_path):
    path = tmp_path / "live"
    with pydpq.LiveIndex.create(path, data.codebooks) as live:
        live.upsert([7], data.codes[:1])
    assert repr(live).endswith("live, closed>")
    with pytest.raises(ValueError, match="the live index is closed, open it again"):
        len(live)
    with pytest.raises(ZeroDivisionError), pydpq.LiveIndex.open(path) as live:
        live.delete(7)
        1 / 0
    with pydpq.LiveIndex.open(path) as live:
        assert 7 in live
        live.close()
    live.close()


def test_there_is_one_writer(live, data, tmp_path):
    with pytest.raises(BlockingIOError, match="another writer has .*live open"):
        pydpq.LiveIndex.open(tmp_path / "live")
    live.close()
    pydpq.LiveIndex.open(tmp_path / "live").close()
    with pytest.raises(ValueError, match="is a live index already"):
        pydpq.LiveIndex.create(tmp_path / "live", data.codebooks)
    with pytest.raises(ValueError, match="is not a live index, check the path"):
        pydpq.LiveIndex.open(tmp_path / "missing")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda live, codes: live.upsert([1, 5], codes[:1]), ValueError, "there are 1 codes and 2 ids"),
        (lambda live, codes: live.upsert([5], codes[:1], ["a", "b"]), ValueError, "there are 2 names and 1 ids"),
        (lambda live, codes: live.upsert([5], codes[:1, 1:]), ValueError, "codes has rows of 2 values, expected 3"),
        (lambda live, codes: live.upsert([5], codes[:1].astype(float)), ValueError, "expected uint8"),
        (lambda live, codes: live.upsert([-5], codes[:1]), ValueError, "ids has the value -5"),
        (lambda live, codes: live.upsert([5, 6], codes[:2] + [[0], [224]]), ValueError, "the code of id 6 has"),
        (lambda live, codes: live.upsert([5, 6], codes[:2], ["x", "one"]), ValueError, 'id 1 has the name "one" already'),
        (lambda live, codes: live.upsert([5, 6], codes[:2], ["x", "x"]), ValueError, 'id 5 has the name "x" already'),
        (lambda live, codes: live.delete([1, 9]), KeyError, "no item has the id 9"),
        (lambda live, codes: live.delete("one"), ValueError, "ids is"),
        (lambda live, codes: live.search(codes[:1].astype(float), 1), ValueError, "queries has rows of 3 values"),
    ],
)
def test_a_refused_change_changes_nothing(live, data, change, error, message):
    live.upsert([1, 2], data.codes[:2], ["one", "two"])
    live.commit()
    with pytest.raises(error, match=message):
        change(live, data.codes)
    assert live.commit() == 1 and len(live) == 2 and (live.id_of("one"), live.id_of("x")) == (1, None)
    # An item may keep its name, and one name may go to the item that is given twice.
    live.upsert([1, 7, 7], data.codes[:3], ["one", "seven", "seven"])
    assert len(live) == 3


def opened(index):
    return len(index), index.name_of(1)


def test_a_snapshot_is_pickled_as_its_folder_and_a_writer_is_not(live, data):
    live.upsert([1], data.codes[:1], ["one"])
    live.commit()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(opened, [live.snapshot()]) == (1, "one")
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="LiveIndex"):
            call(live)


def test_threads_share_a_writer(live, data):
    """Calls of threads wait for each other, and not for ever."""

    def work(start):
        for i in range(start, 400, 4):
            live.upsert([i], data.codes[i : i + 1])
            if i % 20 == start:
                live.commit()
            live.search(data.queries[:2], 3, threads=1)
            len(live.snapshot())

    threads = [threading.Thread(target=work, args=[start], daemon=True) for start in range(4)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert not any(thread.is_alive() for thread in threads)
    live.commit()
    assert len(live.snapshot()) == 400
