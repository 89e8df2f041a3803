"""pydpq.sklearn.VectorQuantizer is a transformer as scikit-learn wants it, and encodes as Codebooks does."""

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pydpq
from pydpq.sklearn import VectorQuantizer

# The checks fit as few as ten rows. None is expected to fail.
SMALL = [
    VectorQuantizer(levels=2, codewords=4),
    VectorQuantizer(levels=2, codewords=4, beam=3, refine=2),
    VectorQuantizer(levels=1, codewords=4, form="product"),
]


@parametrize_with_checks(SMALL)
def test_estimator_checks(estimator, check):
    check(estimator)


WEIGHTS = {"length_weights": [0.0, 0.0, 1.0]}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beam": 3, "refine": 2},
        {"beam": 3, **WEIGHTS},
        {"refine": 1, **WEIGHTS},
        {"init_size": 500},
        {"form": "product"},
    ],
)
def test_codes_are_those_of_codebooks(data, options):
    quantizer = VectorQuantizer(3, codewords=32, iterations=5, **options).fit(data.x.astype(float))
    codebooks = pydpq.Codebooks.train(data.x, 3, codewords=32, iterations=5, **options)
    assert quantizer.codebooks_.fingerprint == codebooks.fingerprint
    search = {name: options[name] for name in ("beam", "length_weights") if name in options and "beam" in options}
    codes = codebooks.encode(data.x, **search)
    np.testing.assert_array_equal(quantizer.transform(data.x), codes)
    np.testing.assert_array_equal(quantizer.inverse_transform(codes), codebooks.decode(codes))
    if not options:
        np.testing.assert_array_equal(quantizer.inverse_transform(codes, bits=8), codebooks.decode(codes, 8))
    assert np.square(quantizer.inverse_transform(codes) - data.x).mean() < np.square(data.x).mean() / 2


def test_output_has_names_and_pandas_keeps_the_index(data):
    frame = pandas.DataFrame(data.x, index=np.arange(3000) + 7, columns=[f"x{i}" for i in range(12)])
    quantizer = VectorQuantizer(3, codewords=32).set_output(transform="pandas")
    codes = quantizer.fit_transform(frame)
    assert list(codes.columns) == [f"vectorquantizer{i}" for i in range(3)] == list(quantizer.get_feature_names_out())
    assert codes.index[0] == 7 and set(codes.dtypes) == {np.dtype(np.uint8)}
    np.testing.assert_array_equal(quantizer.inverse_transform(codes), quantizer.codebooks_.decode(codes.to_numpy()))


def test_it_works_in_pipelines_and_searches(data):
    pipeline = make_pipeline(StandardScaler(), VectorQuantizer(2, codewords=16))
    codes = pipeline.fit_transform(data.x)
    np.testing.assert_array_equal(clone(pipeline).fit(data.x).transform(data.x), codes)
    assert pipeline.inverse_transform(codes).shape == data.x.shape

    def error(estimator, x, y=None):
        return -np.square(estimator.inverse_transform(estimator.transform(x)) - x).mean()

    search = GridSearchCV(VectorQuantizer(codewords=16), {"levels": [1, 3]}, scoring=error, cv=2).fit(data.x)
    assert search.best_params_ == {"levels": 3}


def test_too_few_rows_are_named(data):
    with pytest.raises(ValueError, match=r"10 sample\(s\) .* while a minimum of 256 is required by VectorQuantizer"):
        VectorQuantizer().fit(data.x[:10])
