"""Training, as `dpq train` does it."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pydpq._pydpq import Model, run_training

_Path = str | os.PathLike[str]


def train(
    data: _Path | None = None,
    *,
    out: _Path,
    features: _Path | ArrayLike | None = None,
    labels: _Path | ArrayLike | None = None,
    views: int = 1,
    queries: _Path | ArrayLike | None = None,
    keys: _Path | ArrayLike | None = None,
    pairs: _Path | ArrayLike | None = None,
    preset: str | None = None,
    config: _Path | None = None,
    set: Mapping[str, Any] | None = None,
    weights: _Path | None = None,
    freeze: int | None = None,
    embeddings: _Path | None = None,
    strict: bool = False,
    seed: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    resume: bool = False,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
) -> tuple[Model, Path]:
    """Trains a network and its codebooks as `dpq train` does. Returns the model and the run folder.

    Train on one of three things: data, the folder of a data set, for which your images need a dataset.toml of a few
    lines; features, float32 [n, D], with labels, class numbers [n] or multi-hot [n, C]; or queries and keys, float32
    [n, D]. Row i of queries matches row i of keys, unless pairs, int [p, 2], lists the rows that match. All but data
    are arrays, or paths of files. Arrays are written to temporary files for the time of the training.

    set changes the configuration of the preset: {"epochs": 5, "quantizer.levels": 8}. The other options are those of
    `dpq train --help`, and messages name them as the command does.

    on_epoch is called after each epoch with its line of epochs.jsonl, a dict. An exception that it raises ends the
    training; the checkpoint is then that of the epoch before. Ctrl-C raises KeyboardInterrupt; the checkpoint of the
    last epoch stays in the folder out, and the same call with resume=True continues there and ends with the same bytes.
    A folder with a model or a checkpoint is refused without it.
    """
    options = {
        "--data": data,
        "--out": out,
        "--preset": preset,
        "--config": config,
        "--weights": weights,
        "--freeze": freeze,
        "--embeddings": embeddings,
        "--seed": seed,
        "--device": device,
        "--threads": threads,
    }
    with tempfile.TemporaryDirectory(prefix="pydpq-") as folder:
        for name, given, is_whole in [
            ("features", features, False),
            ("labels", labels, True),
            ("queries", queries, False),
            ("keys", keys, False),
            ("pairs", pairs, True),
        ]:
            if given is not None and not isinstance(given, (str, os.PathLike)):
                file = Path(folder, name).with_suffix(".npy")
                np.save(file, _whole(name, given) if is_whole else np.asarray(given, np.float32))
                given = file
            options[f"--{name}"] = given
        words = [f"{name}={os.fspath(value) if isinstance(value, os.PathLike) else value}"
                 for name, value in options.items() if value is not None]  # fmt: skip
        words += [f"--views={views}"] if views != 1 else []
        words += [f"--set={key}={_toml(value)}" for key, value in (set or {}).items()]
        words += ["--strict"] * strict + ["--resume"] * resume
        run_training(words, None if on_epoch is None else lambda line: on_epoch(json.loads(line)))
    return Model.load(Path(out, "model.safetensors")), Path(out)


def _whole(name: str, given: ArrayLike) -> np.ndarray[Any, np.dtype[Any]]:
    """Returns class numbers or row numbers as int64, and multi-hot labels as uint8."""
    array = np.asarray(given)
    if array.dtype.kind not in "biu":
        raise ValueError(f"{name} are {array.dtype} {list(array.shape)}, expected whole numbers")
    whole = array.astype(np.uint8 if name == "labels" and array.ndim == 2 else np.int64)
    if not np.array_equal(whole, array):
        raise ValueError(f"{name} have values that {whole.dtype} does not hold")
    return whole


def _toml(value: Any) -> str:
    """Writes a value of a configuration as TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value.item() if isinstance(value, np.generic) else value)
