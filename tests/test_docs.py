"""Docs that cannot lie: their code runs, and their tables come from the rows beside them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import accuracy, accuracy_pictures, accuracy_tables

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page):
    """The page's python blocks, in order: they run one after the other, as a reader would."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_of_the_docs_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs"}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


def test_the_pages_with_code_are_found():
    assert {"README", "eac", "index"} <= {page.stem for page in WITH_CODE}


@pytest.mark.parametrize("page", accuracy.PAGES, ids=lambda page: page.stem)
def test_accuracy_tables_are_those_of_the_rows(page):
    """Run ``python -m benchmarks.accuracy table --write`` after adding rows."""
    assert accuracy.rows(), "no results"
    assert accuracy_tables.with_tables(page.read_text(), accuracy.rows()) == page.read_text()


def test_no_run_stands_in_the_results_twice():
    identities = [accuracy.identity(row) for row in accuracy.rows()]
    assert len(identities) == len({str(identity) for identity in identities})


def test_rows_hold_no_path_and_name_their_commit():
    for row in accuracy.rows():
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", row["commit"])
        assert not re.search(r"/\w+/", str(row))


def test_pictures_of_the_results_are_drawn_from_the_rows(tmp_path):
    accuracy_pictures.draw(accuracy.rows(), tmp_path)
    for name in ("accuracy", "balance", "memorising", "relabelling"):
        drawn = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert drawn.std() > 10, name  # no empty sheet
