"""A new plugin: what is written, what is refused, and that the package works once installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import robustfer
from robustfer import cli
from robustfer.new_plugin import new_plugin
from tests.plugins_support import LayeredEnvironment, write_plugin

pytest_plugins = ["tests.plugins_support.fixtures"]


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_written(tmp_path):
    written = new_plugin("my-loss", tmp_path / "made" / "on the way")
    folder = tmp_path / "made" / "on the way" / "robustfer-my-loss"
    assert sorted(str(path.relative_to(folder)) for path in written) == files_of(folder)
    assert files_of(folder) == [
        "README.md",
        "pyproject.toml",
        "src/robustfer_my_loss/__init__.py",
        "src/robustfer_my_loss/losses.py",
        "src/robustfer_my_loss/py.typed",
        "tests/test_my_loss.py",
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in written)
    assert "$" not in text
    assert f'dependencies = ["robustfer>={robustfer.__version__}", "torch"]' in text
    assert 'my_loss = "robustfer_my_loss"' in text
    assert "class MyLoss(nn.Module):" in text  # not MyLossLoss
    assert "def my_loss(" in text


def test_the_name_of_the_package_is_taken_as_well(tmp_path):
    written = new_plugin("robustfer-acme", tmp_path)
    assert written[0] == tmp_path / "robustfer-acme" / "pyproject.toml"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Acme",
            "NAME must be lower-case letters and digits with single hyphens or underscores between "
            "them, starting with a letter, such as 'acme' or 'my-loss', got 'Acme'",
        ),
        *((name, f", got {name!r}") for name in ("", "2d", "my.loss", "my loss", "../a", "é")),
        *((name, f", got {name!r}") for name in ("-a", "_a", "a_", "a--b", "robustfer-")),
        ("a" * 101, "NAME must have at most 100 characters, got 101: 'aaa"),
        ("class", "NAME must not be a keyword of Python, got 'class'"),
        ("robustfer-for", "NAME must not be a keyword of Python, got 'robustfer-for'"),
        ("robustfer", "NAME must be new, but a plugin 'robustfer' is installed"),
        ("eac", "NAME must be new, but plugin 'robustfer' already offers 'eac'"),
        ("mirrored-pair", "must be new, but plugin 'robustfer' already offers 'mirrored_pair'"),
    ],
)  # fmt: skip
def test_names_that_are_refused(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        new_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_is_that_of_a_component(tmp_path):
    for name in ("robustfer-" + "a" * 100, "-".join(["ab"] * 33)):
        assert len(new_plugin(name, tmp_path)) == 6


def test_names_of_installed_plugins_are_refused(site, install, tmp_path):
    install(write_plugin(site, "my-idea", "raise OSError('not to be loaded')"))
    for name in ("my-idea", "my_idea"):
        with pytest.raises(ValueError, match="must be new, but a plugin 'my-idea' is installed"):
            new_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path):
    first, *_ = new_plugin("acme", tmp_path)
    first.write_text("changed", encoding="utf-8")
    with pytest.raises(FileExistsError, match="robustfer-acme exists; choose another name or dir"):
        new_plugin("acme", tmp_path)
    assert first.read_text(encoding="utf-8") == "changed"


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path, capsys):
    folder = tmp_path / ("a folder with-a-name-so-long-that-it-would-be-" + "broken-" * 9)
    assert cli.main(["new-plugin", "acme", "--directory", str(folder)]) == 0
    out, err = capsys.readouterr()
    wrote, following = out.split("next\n")
    assert wrote.splitlines()[:2] == ["wrote", f"  {folder}/robustfer-acme/pyproject.toml"]
    assert following == (f"  cd '{folder}/robustfer-acme'\n  pip install -e '.[test]'\n  pytest\n")
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["class"], "robustfer: NAME must not be a keyword of Python, got 'class'\n"),
        (["acme", "--directory", "a_file"], "robustfer: .*Not a directory.*a_file"),
    ],
)
def test_the_command_fails_without_a_traceback(arguments, error, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a_file").touch()
    assert cli.main(["new-plugin", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(error + ".*\n?", err)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A new plugin and an environment that it is installed in."""
    folder = tmp_path_factory.mktemp("new")
    package = new_plugin("acme", folder)[0].parent
    return package, LayeredEnvironment(folder / "environment", [package])


def test_it_passes_its_own_tests(installed):
    package, environment = installed
    finished = environment.run("-m", "pytest", "-p", "no:cacheprovider", str(package))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert re.search(r"^=+ \d+ passed in ", finished.stdout, re.MULTILINE), finished.stdout


def test_it_is_listed(installed):
    _, environment = installed
    listing = environment.run("-m", "robustfer", "list", "losses", "--json")
    assert (listing.returncode, listing.stderr) == (0, "")
    [row] = [row for row in json.loads(listing.stdout) if row["name"] == "acme"]
    assert row["plugin"] == "acme"
    assert row["reference"] == "Leng et al., PolyLoss, ICLR 2022"


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_it_is_tidy(installed, command):
    package, _ = installed
    ruff = [sys.executable, "-m", "ruff", *command.split(), "--isolated", "--no-cache"]
    finished = subprocess.run(ruff, cwd=package, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout
