"""What documents say is what happens: the example runs, the search of docs/formats.md finds what the index finds."""

import importlib.metadata
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import pydpq

CRATE = Path(__file__).parents[1]
ROOT = CRATE.parents[1]


def test_the_example_runs(capsys):
    runpy.run_path(str(CRATE / "examples/quickstart.py"))
    found = re.findall(r"bits: mAP@all (0\.\d+), distortion (0\.\d+)", capsys.readouterr().out)
    precisions, distortions = np.array(found, float).T
    # A random order gives 0.1.
    assert len(found) == 4 and np.all((precisions > 0.4) & (precisions < 0.6))
    assert np.all(np.diff(distortions) < 0)


def test_the_notebook_runs_and_keeps_no_output():
    notebook = nbformat.read(CRATE / "examples/embeddings.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    printed = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", []))
    recalls = [float(value) for value in re.findall(r"recall@10 (\d\.\d+)", printed)]
    assert len(recalls) == 5 and recalls == sorted(recalls) and "['a.jpg', 'c.jpg']" in printed
    assert "2 {'classification'" in printed


def python_blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("document", ["README.md", "crates/dpq-python/README.md"])
def test_the_readmes_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in python_blocks(document):
        names = {}
        exec(block, names)
        assert names["ids"].shape == (5, 10)


@pytest.mark.parametrize("duplicates", [False, True])
def test_numpy_finds_what_the_index_finds(index, data, duplicates, tmp_path):
    [block] = python_blocks("docs/formats.md")
    assert len(block.splitlines()) <= 25
    names = {}
    exec(block, names)
    if duplicates:  # Then the file has the section `starts`.
        codes = np.concatenate([data.codes[:50]] * 40)
        index = pydpq.Index.from_codes(codes, data.codebooks, np.arange(2000)[::-1].copy(), index.metric)
    path = tmp_path / "gallery.dpq"
    index.save(path)
    for bits in (8, 16, 24):
        scores, ids = index.search(data.queries, 100, bits)
        found_scores, found_ids = names["search"](path, data.queries, 100, bits)
        np.testing.assert_allclose(found_scores, scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found_ids, ids)


def test_an_index_of_one_level_too(data, tmp_path):
    codebooks = pydpq.Codebooks.train(data.x, 1, codewords=32, iterations=5)
    index = pydpq.Index.from_codes(codebooks.encode(data.x), codebooks)
    index.save(tmp_path / "gallery.dpq")
    names = {}
    exec(python_blocks("docs/formats.md")[0], names)
    _, found = names["search"](tmp_path / "gallery.dpq", data.queries, 100, 8)
    np.testing.assert_array_equal(found, index.search(data.queries, 100, 8)[1])


@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_an_index_of_product_codes_too(data, metric, tmp_path):
    codebooks = pydpq.Codebooks.train(data.x, 4, codewords=32, iterations=5, form="product")
    index = pydpq.Index.from_codes(codebooks.encode(data.x), codebooks, metric=metric)
    index.save(tmp_path / "gallery.dpq")
    names = {}
    exec(python_blocks("docs/formats.md")[0], names)
    scores, found = names["search"](tmp_path / "gallery.dpq", data.queries, 100, 32)
    np.testing.assert_allclose(scores, index.search(data.queries, 100)[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found, index.search(data.queries, 100)[1])


def module(name, *arguments):
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, cwd=CRATE, capture_output=True, text=True)


def test_the_stubs_are_those_of_the_module():
    # Without `pydpq.sklearn`, whose base classes have no types.
    checked = module("mypy.stubtest", "pydpq._pydpq", "pydpq._train", "--ignore-disjoint-bases")
    assert checked.returncode == 0, checked.stdout


TYPED = ["examples/quickstart.py", "python/pydpq"]


def test_sources_pass_strict_mypy():
    checked = module("mypy", "--strict", "--ignore-missing-imports", "--cache-dir", os.devnull, *TYPED)
    assert checked.returncode == 0, checked.stdout


def test_sources_pass_pyright():
    checked = module("pyright", "--pythonpath", sys.executable, *TYPED)
    assert checked.returncode == 0, checked.stdout


def test_names_belong_to_the_package_and_have_help():
    assert pydpq.__version__ == importlib.metadata.version("pydpq")
    for public in (vars(pydpq)[name] for name in pydpq.__all__):
        assert public.__module__.startswith("pydpq")
        names = [name for name in vars(public) if not name.startswith("_")] if isinstance(public, type) else []
        for documented in [public, *(getattr(public, name) for name in names)]:
            assert documented.__doc__, documented
