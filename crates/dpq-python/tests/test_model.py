
import numpy as np
import pytest

import pydpq


def test_a_codebook_is_no_model(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot open"):
        pydpq.Model.load(tmp_path / "missing")
    data.codebooks.save(tmp_path / "codebook")
    with pytest.raises(ValueError, match="the file holds a `dpq-codebook` of version `1`, expected `dpq-model` of version `1`"):
        pydpq.Model.load(tmp_path / "codebook")
