"""Data that the tests share: clustered vectors, codebooks of them, and indexes of both metrics."""

import signal
from types import SimpleNamespace

import numpy as np
import pytest

import pydpq

DIM, LEVELS = 12, 3

# A shell starts programs in the background with this signal ignored, and tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data():
    random = np.random.default_rng(1)
    centres = random.normal(size=(40, DIM))
    x = (centres[random.integers(40, size=3000)] + 0.4 * random.normal(size=(3000, DIM))).astype(np.float32)
    queries = x[:20] + 0.1 * random.normal(size=(20, DIM)).astype(np.float32)
    codebooks = pydpq.Codebooks.train(x, LEVELS, codewords=32, iterations=5)
    return SimpleNamespace(x=x, queries=queries, codebooks=codebooks, codes=codebooks.encode(x))


@pytest.fixture(scope="session", params=["ip", "l2"])
def index(request, data):
    return pydpq.Index.from_codes(data.codes, data.codebooks, metric=request.param)


def scores_of_all(index, data, bits):
    """What the index ranks by, for every query and item, in f64."""
    x = data.codebooks.decode(data.codes, bits).astype(np.float64)
    products = data.queries.astype(np.float64) @ x.T
    return products if index.metric == "ip" else 2 * products - (x * x).sum(axis=1)
