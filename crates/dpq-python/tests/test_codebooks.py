import copy
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

import pydpq


def test_codes_are_nearest_codewords_of_residuals(data):
    values = data.codebooks.as_array().astype(np.float64)
    left = data.x.astype(np.float64)
    for level, codewords in enumerate(values):
        best = np.square(left[:, None] - codewords).sum(axis=2).argmin(axis=1)
        assert np.mean(best == data.codes[:, level]) > 0.999
        left -= codewords[data.codes[:, level]]


def test_decoding_adds_codewords_and_more_bits_are_nearer(data):
    values = data.codebooks.as_array()
    expected, errors = np.zeros_like(data.x), []
    for level in range(3):
        expected += values[level, data.codes[:, level]]
        decoded = data.codebooks.decode(data.codes, 8 * (level + 1))
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, expected)
        errors.append(np.square(data.x - decoded).sum())
    assert errors[0] > errors[1] > errors[2]
    np.testing.assert_array_equal(data.codebooks.decode(data.codes), expected)


def test_training_is_decided_by_its_features(data):
    train = lambda x: pydpq.Codebooks.train(x, 3, codewords=32, iterations=5)
    assert train(data.x).fingerprint == data.codebooks.fingerprint != train(data.x[1:]).fingerprint


def test_refinement_and_a_beam_leave_less_of_what_is_weighed(data):
    def left(codebooks, codes):
        errors = [np.square(data.x - codebooks.decode(codes, 8 * (level + 1))).sum() for level in range(3)]
        return np.array(errors)

    greedy = left(data.codebooks, data.codes)
    train = lambda **options: pydpq.Codebooks.train(data.x, 3, codewords=32, iterations=5, **options)
    refined = train(refine=5, beam=4)
    alike = left(refined, refined.encode(data.x, beam=4))
    assert alike.sum() < greedy.sum()
    longest = {"beam": 4, "length_weights": [0, 0, 1]}
    refined = train(refine=5, **longest)
    alone = left(refined, refined.encode(data.x, **longest))
    assert alone[2] < alike[2] and alone.sum() > alike.sum()
    np.testing.assert_array_equal(data.codebooks.encode(data.x, beam=1), data.codes)
    with pytest.raises(ValueError, match="weights has 2 values, expected 3"):
        data.codebooks.encode(data.x, beam=4, length_weights=[1, 1])
    with pytest.raises(ValueError, match="beam is 1, which is greedy"):
        data.codebooks.encode(data.x, length_weights=[0, 0, 1])
    with pytest.raises(ValueError, match="beam width is 0, expected at least 1"):
        train(beam=0)
    with pytest.raises(ValueError, match="give beam or refine, or no weights"):
        train(length_weights=[0, 0, 1])
    with pytest.raises(ValueError, match="levels"):
        pydpq.Codebooks.train(data.x, 2**62)
    with pytest.raises(ValueError, match="beam width is 0, expected at least 1"):
        data.codebooks.encode(data.x, beam=0)


def test_codebooks_fitted_for_a_beam_suit_features_that_were_not_fitted(data):
    few, others = data.x[:600], data.x[600:]
    longest = {"beam": 5, "length_weights": [0, 0, 1]}
    errors = []
    for options in ({}, longest):
        codebooks = pydpq.Codebooks.train(few, 3, codewords=64, iterations=5, **options)
        errors.append(np.square(others - codebooks.decode(codebooks.encode(others, **longest))).sum())
    assert errors[1] < errors[0]


def test_files_and_arrays_hold_the_same_codebooks(data, tmp_path):
    path = tmp_path / "codebook.safetensors"
    data.codebooks.save(path)
    copies = [pydpq.Codebooks.load(path), pydpq.Codebooks.load(str(path)), pydpq.Codebooks(data.codebooks.as_array())]
    for twin in copies:
        assert (twin.n_levels, twin.n_codewords, twin.dim, twin.assignment) == (3, 32, 12, "euclidean")
        assert twin.fingerprint == data.codebooks.fingerprint
        assert repr(twin) == f"<pydpq.Codebooks [3, 32, 12], euclidean, {twin.fingerprint}>"
    assert pydpq.Codebooks(data.codebooks.as_array(), "cosine").assignment == "cosine"


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_a_product_is_fitted_searched_and_kept(data, metric, tmp_path):
    codebooks = pydpq.Codebooks.train(data.x, 3, codewords=32, iterations=5, form="product")
    assert (codebooks.form, codebooks.dim, codebooks.as_array().shape) == ("product", 12, (3, 32, 4))
    assert repr(codebooks) == f"<pydpq.Codebooks [3, 32, 4], product, euclidean, {codebooks.fingerprint}>"
    codes = codebooks.encode(data.x)
    parts = np.split(data.x, 3, axis=1)
    for level, part in enumerate(parts):
        alone = pydpq.Codebooks.train(part, 1, codewords=32, iterations=5)
        np.testing.assert_array_equal(alone.as_array()[0], codebooks.as_array()[level])
        np.testing.assert_array_equal(alone.encode(part)[:, 0], codes[:, level])
    decoded = codebooks.decode(codes)
    expected = [codewords[code] for codewords, code in zip(codebooks.as_array(), codes.T)]
    np.testing.assert_array_equal(decoded, np.hstack(expected))

    codebooks.save(tmp_path / "cb.safetensors")
    twins = [pydpq.Codebooks.load(tmp_path / "cb.safetensors"), pickle.loads(pickle.dumps(codebooks))]
    assert {twin.fingerprint for twin in twins} == {codebooks.fingerprint}
    assert pydpq.Codebooks(codebooks.as_array()).fingerprint != codebooks.fingerprint

    index = pydpq.Index.from_codes(codes, codebooks, metric=metric)
    scores, ids = index.search(data.queries, 50)
    x, queries = decoded.astype(np.float64), data.queries.astype(np.float64)
    all_scores = queries @ x.T if metric == "ip" else 2 * queries @ x.T - (x * x).sum(axis=1)
    np.testing.assert_allclose(scores, -np.sort(-all_scores, axis=1)[:, :50], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(all_scores, ids.astype(np.int64), 1), scores, rtol=1e-5, atol=1e-5)
    index.to_faiss(tmp_path / "x.index")
    assert (tmp_path / "x.index").read_bytes()[:4] == b"IxPq"
    again = pydpq.Index.from_faiss(tmp_path / "x.index")
    np.testing.assert_array_equal(again.search(data.queries, 50)[1], ids)
    one_length = "code length is 8 bits, expected 24 bits: the codes of product codebooks have one length"
    for call in [lambda: index.search(data.queries, 5, 8), lambda: codebooks.decode(codes, 8)]:
        with pytest.raises(ValueError, match=one_length):
            call()
    with pytest.raises(ValueError, match="expected a multiple of 5, the levels of product codebooks"):
        pydpq.Codebooks.train(data.x, 5, form="product")
    with pytest.raises(ValueError, match="leave out beam search"):
        codebooks.encode(data.x, beam=4)


def test_codebooks_open_with_plain_safetensors(data, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    data.codebooks.save(tmp_path / "codebook.safetensors")
    found = safetensors.load_file(tmp_path / "codebook.safetensors")
    np.testing.assert_array_equal(found["codebook"], data.codebooks.as_array())


def test_no_rows_give_no_rows(data):
    assert data.codebooks.encode(data.x[:0]).shape == (0, 3)
    assert data.codebooks.decode(data.codes[:0]).shape == (0, 12)


def test_errors_say_what_was_expected(data, tmp_path):
    codebooks, x = data.codebooks, data.x
    wrong = [
        (lambda: codebooks.encode(x[None]), r"x is an array of float32 \[1, 3000, 12\], expected float32 \[n, D\]"),
        (lambda: codebooks.encode(None), r"x is a NoneType, expected float32 \[n, D\]"),
        (lambda: codebooks.encode([["a"]]), r"x is an array of <U1 \[1, 1\], expected float32 \[n, D\]"),
        (lambda: codebooks.encode(x * 1j), "x is an array of complex64"),
        (lambda: codebooks.encode([[1.0], [1.0, 2.0]]), "inhomogeneous"),
        (lambda: codebooks.encode([[1.0]]), "x has rows of 1 values, expected 12, the dimension of the codebooks"),
        (lambda: codebooks.encode(x.astype(np.float64) * 1e300), "features has the value -?inf at position"),
        (lambda: codebooks.decode(data.codes.astype(np.int64) + 300), r"codes has the value 3\d\d, expected uint8, 0 to 255"),
        (lambda: codebooks.decode(data.codes.astype(np.int64) - 300), r"codes has the value -\d+, expected uint8, 0 to 255"),
        (lambda: codebooks.encode(x[:, :6].copy()), "x has rows of 6 values, expected 12, the dimension of the codebooks"),
        (lambda: codebooks.encode(np.full((1, 12), np.nan, np.float32)), "features has the value NaN at position 0"),
        (lambda: codebooks.decode(data.codes.astype(np.float32)), r"whole numbers convert with codes.astype\(numpy.uint8\)"),
        (lambda: codebooks.decode(data.codes, 12), "code length in bits is 12, expected a multiple of 8 from 8"),
        (lambda: codebooks.decode(data.codes, 32), "code length in bits is 32, expected at most 24"),
        (lambda: codebooks.decode(data.codes | 32), "code is 63, expected at most 31"),
        (lambda: pydpq.Codebooks.train(x[:10], 3), "10 features cannot fit 256 codewords"),
        (lambda: pydpq.Codebooks.train(x, 0), "number of levels is 0, expected 1 to 255"),
        (lambda: pydpq.Codebooks(codebooks.as_array(), "nearest"), "expected `euclidean` or `cosine`"),
    ]
    for call, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            call()


def same_values(x):
    """x in the forms that NumPy converts, each of the same values."""
    unaligned = np.frombuffer(b"0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
    assert unaligned.flags.aligned == (x.itemsize == 1)
    wide = np.repeat(x, 2, axis=1)[:, ::2]
    assert not wide.flags.c_contiguous
    read_only = x.copy()
    read_only.flags.writeable = False
    other = x.astype(np.float64 if x.dtype.kind == "f" else np.int32)
    return [x.tolist(), tuple(map(tuple, x)), np.asfortranarray(x), unaligned, wide, read_only, other, other.byteswap().view(other.dtype.newbyteorder())]


def test_numpy_converts_what_keeps_its_meaning(data):
    x, codebooks = data.x[:40], data.codebooks
    codes, decoded = codebooks.encode(x), codebooks.decode(data.codes[:40])
    for given in same_values(x):
        np.testing.assert_array_equal(codebooks.encode(given), codes)
    for given in same_values(codes):
        np.testing.assert_array_equal(codebooks.decode(given), decoded)
    whole = np.arange(24).reshape(2, 12)
    np.testing.assert_array_equal(codebooks.encode(whole), codebooks.encode(whole.astype(np.float32)))
    np.testing.assert_array_equal(codebooks.encode(x.astype(np.float16)), codebooks.encode(x.astype(np.float16).astype(np.float32)))
    trained = [pydpq.Codebooks.train(given, 2, codewords=8, iterations=2).fingerprint for given in [x, *same_values(x)]]
    assert len(set(trained)) == 1


def test_one_row_alone(data):
    x, codebooks = data.x, data.codebooks
    np.testing.assert_array_equal(codebooks.encode(x[0]), codebooks.encode(x[:1])[0])
    np.testing.assert_array_equal(codebooks.encode(x[:, 0][:12].tolist()).shape, [3])
    np.testing.assert_array_equal(codebooks.decode(data.codes[0], 16), codebooks.decode(data.codes[:1], 16)[0])


def test_codebooks_pickle_and_copy(data):
    cosine = pydpq.Codebooks(data.codebooks.as_array(), "cosine")
    for made in (pickle.loads(pickle.dumps(cosine)), copy.deepcopy(cosine), copy.copy(cosine)):
        assert repr(made) == repr(cosine)


def test_what_the_system_refuses_is_an_os_error(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot open .*missing"):
        pydpq.Codebooks.load(tmp_path / "missing")
    with pytest.raises(OSError, match="cannot open"):
        pydpq.Codebooks.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="cannot write"):
        data.codebooks.save(tmp_path / "no" / "folder")
    (tmp_path / "text").write_text("no codebooks")
    with pytest.raises(ValueError, match="text: .*safetensors"):
        pydpq.Codebooks.load(tmp_path / "text")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_training():
    x = np.random.default_rng(1).standard_normal((200_000, 64), dtype=np.float32)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    start = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pydpq.Codebooks.train(x, levels=4, iterations=10_000, refine=1000)
    assert time.perf_counter() < start + 20
