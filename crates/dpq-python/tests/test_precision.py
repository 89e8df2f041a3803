import itertools

import numpy as np
import pytest

import pydpq

QUERY, GALLERY = np.array([[1, 0]], np.uint8), np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.uint8)


def average_precision(relevant, divisor):
    ranks = np.flatnonzero(relevant) + 1
    return sum((i + 1) / rank for i, rank in enumerate(ranks)) / divisor if len(ranks) else 0.0


def test_hand_worked_rankings():
    ranked = lambda ids, **rest: pydpq.mean_average_precision(QUERY, GALLERY, ids=np.array([ids]), **rest)
    assert ranked([0, 2, 1, 3]) == 1.0
    assert ranked([1, 0, 3, 2]) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert ranked([1, 0], rule="dpq") == pytest.approx(1 / 2)
    assert ranked([1, 0, -1], rule="standard") == pytest.approx(1 / 4)
    assert ranked([1, 0, 3, 2], at=2) == pytest.approx(1 / 2)
    assert ranked([1, 3]) == 0.0


def test_ties_count_as_the_mean_over_their_orders():
    scores = np.array([[0.5, 0.5, 0.1, 0.5]], np.float32)
    orders = [average_precision(GALLERY[list(order) + [2], 0], 2) for order in itertools.permutations([0, 1, 3])]
    expected = np.mean(orders)
    assert pydpq.mean_average_precision(QUERY, GALLERY, scores=scores) == pytest.approx(expected)
    ids = np.array([[0, 1, 3, 2]])
    ranked = np.take_along_axis(scores, ids, axis=1)
    assert pydpq.mean_average_precision(QUERY, GALLERY, ids=ids, scores=ranked) == pytest.approx(expected)
    by_id = pydpq.mean_average_precision(QUERY, GALLERY, scores=scores, rule="standard")
    assert by_id == pytest.approx(average_precision([1, 0, 0, 1], 2))


def test_search_and_scores_agree(index, data):
    labels = np.eye(4, dtype=np.uint8)[data.codes[:, 0] % 4]
    for bits in (8, 24):
        scores, ids = index.search(data.queries, len(index), bits)
        all_scores = np.empty_like(scores)
        np.put_along_axis(all_scores, ids, scores, axis=1)
        for rule in ("dpq", "standard"):
            ranked = pydpq.mean_average_precision(labels[:20], labels, ids=ids, scores=scores, rule=rule)
            scored = pydpq.mean_average_precision(labels[:20], labels, scores=all_scores, rule=rule)
            assert ranked == scored
    relevant = (labels[:20] @ labels.T).astype(bool)
    by_id = [average_precision(row[order], row.sum()) for row, order in zip(relevant, ids)]
    assert ranked == pytest.approx(np.mean(by_id))


def test_queries_without_relevant_items_follow_the_rule():
    queries = np.array([[1, 0], [0, 0]], np.uint8)
    ids = np.array([[0, 1, 2, 3]] * 2)
    found = pydpq.mean_average_precision(queries, GALLERY, ids=ids)
    assert found == pytest.approx((1 + 2 / 3) / 2 / 2)
    assert pydpq.mean_average_precision(queries, GALLERY, ids=ids, rule="standard") == pytest.approx(2 * found)


def test_errors_say_what_was_expected():
    ids, scores = np.array([[0, 1, 2, 3]]), np.array([[4, 3, 2, 1]], np.float32)
    wrong = [
        ({}, "neither ids nor scores, expected one or both"),
        ({"ids": ids, "rule": "trec"}, "rule is `trec`, expected `dpq` or `standard`"),
        ({"ids": ids, "at": 0}, "a cut-off is 0, expected at least 1: ranks count from 1"),
        ({"ids": np.array([[0, 9]])}, "the id 9 for query 0, but gallery_labels has 4 rows"),
        ({"ids": np.array([[0, 0]])}, "the id 0 twice for query 0"),
        ({"ids": ids[:0]}, r"ids has the shape \[0, 4\], expected \[1, 4\]"),
        ({"scores": scores[:, :3].copy()}, r"scores has the shape \[1, 3\], expected \[1, 4\]"),
        ({"ids": ids, "scores": scores[:, :3].copy()}, r"scores has the shape \[1, 3\], expected \[1, 4\]"),
        ({"ids": ids, "scores": scores[:, ::-1].copy()}, "out of order"),
        ({"scores": np.full((1, 4), np.nan, np.float32)}, "NaN"),
        ({"scores": ids * 1j}, "scores is an array of complex128"),
        ({"ids": ids / 2}, r"ids is an array of float64 \[1, 4\], expected int64"),
    ]
    for given, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            pydpq.mean_average_precision(QUERY, GALLERY, **given)
    with pytest.raises(ValueError, match="expected 0 or 1"):
        pydpq.mean_average_precision(QUERY, GALLERY * 2, ids=ids)
    with pytest.raises(ValueError, match="the query labels have 4 classes and the gallery labels 2"):
        pydpq.mean_average_precision(np.repeat(QUERY, 2, axis=1), GALLERY, ids=ids)
    with pytest.raises(ValueError, match="query_labels has the class -1, expected numbers from 0"):
        pydpq.mean_average_precision(np.array([-1]), GALLERY, ids=ids)
    with pytest.raises(ValueError, match="query_labels is an array of float64"):
        pydpq.mean_average_precision(np.array([0.5]), GALLERY, ids=ids)


def test_numpy_converts_labels_and_rankings():
    ids, scores = np.array([[0, 1, 2, 3]]), np.array([[4, 3, 2, 1]], np.float32)
    expected = pydpq.mean_average_precision(QUERY, GALLERY, ids=ids, scores=scores)
    for query, gallery in [(QUERY.tolist(), GALLERY.tolist()), (QUERY == 1, GALLERY == 1), (QUERY, GALLERY.astype(int))]:
        found = pydpq.mean_average_precision(query, gallery, ids=ids.tolist(), scores=scores.astype(np.float64))
        assert found == expected
    assert pydpq.mean_average_precision([0], [0, 1, 0, 1], ids=ids.astype(np.int32), scores=scores) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_class_numbers_are_labels(dtype):
    ids = np.array([[1, 0, 3, 2]])
    expected = pydpq.mean_average_precision(QUERY, GALLERY, ids=ids)
    query, gallery = (labels.argmax(axis=1).astype(dtype) for labels in (QUERY, GALLERY))
    # A column of a table is class numbers, too.
    for query, gallery in [(query, gallery), (query[:, None], gallery[:, None]), (query, GALLERY)]:
        assert pydpq.mean_average_precision(query, gallery, ids=ids) == expected
