"""The module and the `dpq` command, which pip installs with it, do the same: a network from images to a report."""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time

import numpy as np
import pytest

import pydpq

COMMAND = shutil.which("dpq", path=sysconfig.get_path("scripts"))

DATASET = """
name = "bands"
classes = ["top", "middle", "end"]
shape = { channels = 1, height = 9, width = 9 }
protocol = { queries_per_class = 4, train_per_class = 16, seed = 1 }
[images]
format = "idx"
parts = [{ images = { file = "images" }, labels = { file = "labels" } }]
"""


def run(words, folder, *more):
    command = [COMMAND, *words.split(), *more, "--json"]
    return json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of three classes, a bright band each, a network trained on them, and what the command makes of them."""
    folder = tmp_path_factory.mktemp("command")
    random = np.random.default_rng(1)
    labels = np.arange(120, dtype=np.uint8) % 3
    images = random.integers(0, 50, size=(120, 1, 9, 9), dtype=np.uint8)
    images[np.arange(9)[:, None] // 3 == labels[:, None, None, None] + np.zeros((1, 9), int)] += 200
    (folder / "set").mkdir()
    head = lambda kind, *sizes: b"".join(n.to_bytes(4, "big") for n in [0x800 + kind, *sizes])
    (folder / "set/images").write_bytes(head(3, 120, 9, 9) + images.tobytes())
    (folder / "set/labels").write_bytes(head(1, 120) + labels.tobytes())
    (folder / "set/dataset.toml").write_text(DATASET)
    np.save(folder / "images.npy", images)

    config = subprocess.run([COMMAND, "train", "--print-config", "--preset", "quick"], check=True, capture_output=True)
    config = config.stdout.decode().replace("epochs = 12", "epochs = 20").replace("codewords = 256", "codewords = 8")
    (folder / "c.toml").write_text(config)
    run("train --data set --out run --config c.toml", folder)
    for split in ["train", "query", "gallery"]:
        run(f"encode --model run/model.safetensors --data set --split {split} --out-dir {split}", folder)
    build = "index build --codes gallery/codes.npy --codebook run/model.safetensors --ids gallery/ids.npy --out g.dpq"
    run(build, folder)
    return folder


def test_a_model_encodes_as_the_command_does(folder):
    model = pydpq.Model.load(folder / "run/model.safetensors")
    assert model.image_shape == (1, 9, 9) and repr(model).startswith("<pydpq.Model of images (1, 9, 9), <pydpq.Codebooks")
    images = np.load(folder / "images.npy")
    for split in ["query", "gallery"]:
        codes, features = model.encode(images[np.load(folder / split / "ids.npy")])
        np.testing.assert_array_equal(codes, np.load(folder / split / "codes.npy"))
        np.testing.assert_array_equal(features, np.load(folder / split / "features.npy"))
    codes, _ = model.encode(np.concatenate([images] * 5))
    np.testing.assert_array_equal(codes, np.concatenate([model.encode(images)[0]] * 5))
    assert [array.shape for array in model.encode(images[:0])] == [(0, 4), (0, 300)]
    with pytest.raises(ValueError, match=r"images are \[9, 1, 9\], the model was trained on \[1, 9, 9\]"):
        model.encode(images.reshape(120, 9, 1, 9))
    with pytest.raises(ValueError, match=r"float32 \[120, 1, 9, 9\], expected uint8 \[n, C, H, W\]"):
        model.encode(images.astype(np.float32))


def test_an_index_is_built_and_searched_as_by_the_command(folder):
    index = pydpq.Index.open(folder / "g.dpq")
    codes, ids = np.load(folder / "gallery/codes.npy"), np.load(folder / "gallery/ids.npy")
    codebooks = pydpq.Codebooks.load(folder / "run/model.safetensors")
    pydpq.Index.from_codes(codes, codebooks, ids).save(folder / "copy.dpq")
    assert (folder / "copy.dpq").read_bytes() == (folder / "g.dpq").read_bytes()
    for bits in (8, 32):
        run(f"search g.dpq --queries query/features.npy --bits {bits} -k 7 --out hits.npz", folder)
        hits = np.load(folder / "hits.npz")
        scores, found = index.search(np.load(folder / "query/features.npy"), 7, bits)
        np.testing.assert_array_equal(found, hits["ids"])
        np.testing.assert_array_equal(scores, hits["scores"])


def test_a_live_index_is_opened_like_a_file(folder, tmp_path):
    add = "index add live --codes gallery/codes.npy --ids gallery/ids.npy --codebook run/model.safetensors"
    run(add + " --commit-every 7", folder)
    file, live = pydpq.Index.open(folder / "g.dpq"), pydpq.Index.open(folder / "live")
    queries, ids = np.load(folder / "query/features.npy"), np.load(folder / "gallery/ids.npy")
    for name in ("dim", "n_levels", "metric", "version", "norms", "fingerprint"):
        assert getattr(live, name) == getattr(file, name)
    assert len(live) == len(file) and repr(live) == repr(file)
    live.verify()

    def check(live, filters=(None, None)):
        for options in ({}, {"bits": 8}, {"shortlist": (20, 8)}, {"threads": 2}):
            expected = file.search(queries, 9, filter=filters[0], **options)
            for a, b in zip(live.search(queries, 9, filter=filters[1], **options), expected):
                np.testing.assert_array_equal(a, b)

    check(live)
    check(live, [(i.allow(ids[:20]) & i.deny(ids[:9])) | ~i.allow(ids[5:]) for i in (file, live)])
    with pytest.raises(ValueError, match="the filter belongs to another index"):
        live.search(queries, 9, filter=file.allow(ids))
    with pytest.raises(ValueError, match="the filter belongs to another index"):
        live.allow(ids) & file.allow(ids)
    vectors = np.zeros((ids.max() + 1, live.dim), np.float32)
    for a, b in zip(*(i.rerank(queries, i.search(queries, 20)[1], vectors, 5) for i in (file, live))):
        np.testing.assert_array_equal(a, b)
    live.save(tmp_path / "copy.dpq")
    assert (tmp_path / "copy.dpq").read_bytes() == (folder / "g.dpq").read_bytes()

    # A commit is seen by those who open the folder afterwards.
    run(f"index delete live --id {ids[0]}", folder)
    line = json.dumps({"id": int(ids[1]), "code": [0, 0, 0, 0], "name": "zero"})
    command = [COMMAND, "index", "add", "live", "--stdin"]
    subprocess.run(command, cwd=folder, input=line.encode(), check=True, capture_output=True)
    check(live)
    later = pydpq.Index.open(folder / "live")
    assert len(later) == len(live) - 1 and len(later.allow(ids)) == len(later)
    assert [later.name_of(ids[1]), later.name_of(ids[2]), live.name_of(ids[1])] == ["zero", None, None]


def test_codebooks_are_trained_as_by_the_command(folder):
    run("codebook train --features train/features.npy --levels 2 --codewords 8 --out cb.safetensors", folder)
    codebooks = pydpq.Codebooks.train(np.load(folder / "train/features.npy"), 2, codewords=8)
    codebooks.save(folder / "copy.safetensors")
    assert (folder / "copy.safetensors").read_bytes() == (folder / "cb.safetensors").read_bytes()


@pytest.mark.parametrize("rule", ["dpq", "standard"])
def test_precision_is_that_of_eval(folder, rule):
    labels = {split: np.load(folder / split / "labels.npy") for split in ["query", "gallery"]}
    rng = np.random.default_rng(2)
    labels["query"] = np.eye(3, dtype=np.uint8)[rng.integers(3, size=len(labels["query"]))]  # wrong ones, so below 1
    np.save(folder / "labels.npy", labels["query"])
    report = run(
        "eval --index g.dpq --queries query/features.npy --query-labels labels.npy --gallery-labels "
        f"gallery/labels.npy --gallery-ids gallery/ids.npy --bits 8,32 --at 5 --rule {rule}",
        folder,
    )
    index, ids = pydpq.Index.open(folder / "g.dpq"), np.load(folder / "gallery/ids.npy")
    row_of = np.full(120, -1)
    row_of[ids] = np.arange(len(ids))
    for bits in (8, 32):
        scores, found = index.search(np.load(folder / "query/features.npy"), len(index), bits)
        for at, expected in [
            (None, report["by_bits"][str(bits)]["map"]),
            (5, report["by_bits"][str(bits)]["map_at"]["5"]),
        ]:
            precision = pydpq.mean_average_precision(
                labels["query"], labels["gallery"], ids=row_of[found], scores=scores, rule=rule, at=at
            )
            assert 0 < expected < 1 and precision == expected


def test_exit_codes_and_errors(tmp_path):
    call = lambda *words: subprocess.run([COMMAND, *words], cwd=tmp_path, capture_output=True, text=True)
    assert call("--version").stdout.split() == ["dpq", pydpq.__version__]
    wrong, failed = call("serch"), call("index", "info", "missing.dpq")
    assert wrong.returncode == 2 and "unrecognized subcommand" in wrong.stderr
    assert failed.returncode == 1 and failed.stderr.startswith("error: cannot open")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_ends_the_command(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((100_000, 64), dtype=np.float32))
    words = ["codebook", "train", "--features", "x.npy", "--iterations", "10000", "--levels", "8", "--out", "c"]
    process = subprocess.Popen([COMMAND, *words], cwd=tmp_path, stderr=subprocess.PIPE)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0 and not (tmp_path / "c").exists()
