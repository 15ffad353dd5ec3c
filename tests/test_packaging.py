"""What the wheel and the sdist hold, and what they must not."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import robustfer
from robustfer import registry

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Both distributions, built from the working tree without the network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def wheel_names(folder):
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return wheel.namelist()


def sdist_names(folder):
    with tarfile.open(next(folder.glob("*.tar.gz"))) as sdist:
        return [name.split("/", 1)[1] for name in sdist.getnames()]


def test_wheel_is_the_package_and_nothing_else(built):
    names = wheel_names(built)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"robustfer", f"robustfer-{robustfer.__version__}.dist-info"}
    assert {"robustfer/py.typed", "robustfer/noise/fer2013.json"} <= set(names)
    sources = {f"robustfer/{p.relative_to(ROOT / 'src/robustfer').as_posix()}"
               for p in (ROOT / "src/robustfer").rglob("*.py")}  # fmt: skip
    assert sources <= set(names)
    templates = (ROOT / "src/robustfer/templates/new_plugin").iterdir()
    assert {f"robustfer/templates/new_plugin/{p.name}" for p in templates} <= set(names)


@pytest.mark.parametrize("names", [wheel_names, sdist_names])
def test_no_tests_faces_or_golden_files(built, names):
    for name in names(built):
        assert not name.startswith(("tests/", "benchmarks/", "docs/", "runs/"))
        assert Path(name).suffix not in {".npz", ".npy", ".png", ".jpg", ".safetensors", ".pt"}


def test_sdist_can_build_the_wheel(built):
    names = sdist_names(built)
    for needed in ("pyproject.toml", "README.md", "LICENSE", "src/robustfer/__init__.py"):
        assert needed in names


def test_there_is_one_version():
    assert (ROOT / "CITATION.cff").read_text().count(f"version: {robustfer.__version__}\n") == 1
    assert f"## {robustfer.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    from importlib.metadata import version

    assert version("robustfer") == robustfer.__version__


def test_the_papers_of_all_components_are_cited():
    """Each reference reads "AUTHORS, TITLE, VENUE"; two of them have a semicolon between."""
    cited = re.findall(r'^    title: "(.*)"$', (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert len(cited) == len(set(cited))
    offers = registry.available().values()
    papers = {paper for offer in offers for paper in offer.component.reference.split("; ")}
    missing = [paper for paper in papers if not any(f", {t}, " in paper for t in cited)]
    assert papers
    assert missing == []


def test_requirements_have_lower_bounds_only():
    from importlib.metadata import requires

    for requirement in requires("robustfer"):
        assert "<" not in requirement.split(";")[0], requirement
        assert "==" not in requirement.split(";")[0], requirement


def test_constraints_are_names_and_versions_only():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert (
            line.startswith("#")
            or line.replace("==", "", 1)
            .replace(".", "")
            .replace("-", "")
            .replace("_", "")
            .replace("+", "")
            .isalnum()
        ), line
