"""pydpq.train trains what `dpq train` trains, and models of images, features and pairs encode as the command does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading

import numpy as np
import pytest

import pydpq

COMMAND = shutil.which("dpq", path=sysconfig.get_path("scripts"))
SMALL = {"epochs": 3, "quantizer.codewords": 8, "quantizer.levels": 2, "network.dim": 16}


def command(words, folder):
    subprocess.run([COMMAND, *words.split()], cwd=folder, check=True, capture_output=True)


def read(folder, name="model.safetensors"):
    return (folder / name).read_bytes()


@pytest.fixture
def items(tmp_path):
    """Features of four classes, and their class numbers, in memory and as files."""
    random = np.random.default_rng(1)
    labels = np.arange(200) % 4
    features = random.normal(size=(4, 24))[labels] + 0.3 * random.normal(size=(200, 24))
    np.save(tmp_path / "x.npy", features.astype(np.float32))
    np.save(tmp_path / "y.npy", labels)
    return features, labels


DATASET = """
name = "photos"
shape = { channels = 3, height = 9, width = 9 }
images = { format = "folder", path = "images" }
protocol = { queries_per_class = 4, train_per_class = 16, seed = 1 }
"""


@pytest.fixture
def photos(tmp_path):
    """A data set of two classes of image files, dark and bright."""
    random = np.random.default_rng(2)
    for kind, low in [("dark", 0), ("bright", 150)]:
        (tmp_path / "photos/images" / kind).mkdir(parents=True)
        for i in range(24):
            pixels = random.integers(low, low + 100, size=(12, 12, 3), dtype=np.uint8)
            # A Windows bitmap needs no library.
            head = b"BM" + (54 + pixels.nbytes).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
            sizes = b"".join(n.to_bytes(4, "little") for n in [40, 12, 12, 1 | 24 << 16, 0, pixels.nbytes])
            (tmp_path / "photos/images" / kind / f"{i}.bmp").write_bytes(head + sizes + bytes(16) + pixels.tobytes())
    (tmp_path / "photos/dataset.toml").write_text(DATASET)
    return tmp_path / "photos"


def test_features_are_trained_as_by_the_command(items, tmp_path):
    features, labels = items
    epochs = []
    model, folder = pydpq.train(
        features=features, labels=labels, out=tmp_path / "a", preset="quick", set=SMALL, seed=3, on_epoch=epochs.append
    )
    sets = " ".join(f"--set {key}={value}" for key, value in SMALL.items())
    command(f"train --features x.npy --labels y.npy --out b --preset quick {sets} --seed 3", tmp_path)
    assert folder == tmp_path / "a" and read(folder) == read(tmp_path / "b")
    logged = [json.loads(line) for line in read(folder, "epochs.jsonl").splitlines()]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2] and epochs == logged

    assert (model.takes, model.image_shape) == ("features", (24, 1, 1))
    assert repr(model).startswith("<pydpq.Model of features [24], <pydpq.Codebooks [2, 8, 16]")
    command("encode --model b/model.safetensors --features x.npy --out-dir codes", tmp_path)
    codes, encoded = model.encode(features)
    np.testing.assert_array_equal(codes, np.load(tmp_path / "codes/codes.npy"))
    np.testing.assert_array_equal(encoded, np.load(tmp_path / "codes/features.npy"))
    assert [row.shape for row in model.encode(features[0])] == [(2,), (16,)]
    with pytest.raises(ValueError, match="features has rows of 23 values, expected 24"):
        model.encode(features[:, 1:])
    with pytest.raises(ValueError, match="the model takes features, expected one of pairs"):
        model.encode_queries(features)
    # Files, and labels as multi-hot, give the same network.
    hot = np.eye(4, dtype=bool)[labels]
    again, _ = pydpq.train(
        features=tmp_path / "x.npy", labels=hot, out=tmp_path / "c", preset="quick", set=SMALL, seed=3, threads=2
    )
    assert again.codebooks.fingerprint == model.codebooks.fingerprint


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("2", "2")])
def test_the_import_limits_threads_of_candle(given, expected):
    variables = {name: value for name, value in os.environ.items() if name != "CANDLE_NUM_THREADS"}
    variables |= {} if given is None else {"CANDLE_NUM_THREADS": given}
    code = "import os, pydpq; print(os.environ['CANDLE_NUM_THREADS'])"
    found = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == expected


def test_a_folder_of_images_is_trained(photos, tmp_path):
    model, folder = pydpq.train(photos, out=tmp_path / "run", preset="quick", set={**SMALL, "epochs": 1})
    assert model.takes == "images" and model.image_shape == (3, 9, 9)
    sets = " ".join(f"--set {key}={value}" for key, value in {**SMALL, "epochs": 1}.items())
    command(f"train --data photos --out b --preset quick {sets}", tmp_path)
    assert read(folder) == read(tmp_path / "b")
    assert json.loads(read(folder, "train.json"))["data"] == str(photos)


def test_pairs_are_trained_and_queries_mapped(items, tmp_path):
    features, _ = items
    settings = {"epochs": 1, "quantizer.codewords": 8, "quantizer.levels": 2}
    model, _ = pydpq.train(queries=features, keys=features + 0.1, out=tmp_path / "run", set=settings)
    assert model.takes == "pairs"
    command("features --model run/model.safetensors --queries --features x.npy --out-dir q", tmp_path)
    mapped = model.encode_queries(features)
    np.testing.assert_array_equal(mapped, np.load(tmp_path / "q/features.npy"))
    codes, _ = model.encode(features + 0.1)
    _, found = pydpq.Index.from_codes(codes, model.codebooks).search(mapped, 5)
    assert found.shape == (200, 5)
    rows = np.stack([np.arange(50), np.arange(50)[::-1]], axis=1)
    other, _ = pydpq.train(queries=features, keys=features, pairs=rows, out=tmp_path / "other", set=settings)
    assert other.codebooks.fingerprint != model.codebooks.fingerprint


def test_a_callback_ends_a_run_that_resumes(items, tmp_path):
    features, labels = items
    options = dict(features=features, labels=labels, preset="quick", set=SMALL)

    class Enough(Exception):
        pass

    def end(epoch):
        assert threading.current_thread() is threading.main_thread()
        if epoch["epoch"] == 1:
            raise Enough

    with pytest.raises(Enough):
        pydpq.train(**options, out=tmp_path / "a", on_epoch=end)
    assert not (tmp_path / "a/model.safetensors").exists()
    with pytest.raises(ValueError, match="is of an earlier training"):
        pydpq.train(**options, out=tmp_path / "a")
    later = []
    pydpq.train(**options, out=tmp_path / "a", resume=True, on_epoch=lambda epoch: later.append(epoch["epoch"]))
    pydpq.train(**options, out=tmp_path / "b")
    assert later == [1, 2] and read(tmp_path / "a") == read(tmp_path / "b")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_keeps_the_checkpoint(items, tmp_path):
    features, labels = items
    options = dict(features=features, labels=labels, preset="quick", set={**SMALL, "epochs": 100_000})
    begun = threading.Event()
    timer = threading.Thread(target=lambda: begun.wait(60) and os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        pydpq.train(**options, out=tmp_path / "run", on_epoch=lambda epoch: epoch["epoch"] == 2 and begun.set())
    timer.join()
    assert (tmp_path / "run/checkpoint.safetensors").exists() and not (tmp_path / "run/model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"required arguments were not provided: --data <DIR>"),
        ({"data": "missing"}, r"missing\S*: no such file, "),
        ({"features": [[1.0]], "labels": [0.5]}, r"labels are float64 \[1\], expected whole numbers"),
        ({"features": [[1.0]], "labels": [[300]]}, "labels have values that uint8 does not hold"),
        ({"features": [[1.0]], "labels": [0], "set": {"epoch": 3}}, "--set epoch=3: .*unknown field"),
        ({"features": [[1.0]], "labels": [0], "preset": "bst"}, "invalid value 'bst' .*possible values: best"),
        ({"features": [[1.0]], "labels": [0, 1]}, r"features\.npy has 1 items, \S*labels\.npy has 2"),
        ({"features": [[1.0]], "queries": [[1.0]], "keys": [[1.0]]}, "cannot be used with"),
        ({"features": [[1.0]]}, "these features have no labels"),
    ],
)
def test_wrong_use_is_one_sentence(options, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message) as raised:
        pydpq.train(**options, out=tmp_path / "run")
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


def test_settings_are_written_as_toml(items, tmp_path):
    features, labels = items
    changes = {
        **SMALL,
        "epochs": np.int64(1),
        "schedule": "two-step",
        "network_optimizer": {"rate": 1e-05},
        "mirror_average": False,
    }
    _, folder = pydpq.train(features=features, labels=labels, out=tmp_path / "a", preset="quick", set=changes)
    config = json.loads(read(folder, "train.json"))["config"]
    assert (config["epochs"], config["network_optimizer"]["rate"]) == (1, 1e-05)
