"""Consoles that lack signs: every command prints a substitute, one for one."""

from __future__ import annotations

import io
import sys

import pytest
import torch
from PIL import Image

from robustfer import cli
from robustfer.data import ImageFolder
from tests.plugins_support import run_python, write_plugin

pytest_plugins = ["tests.plugins_support.fixtures"]

GREEK = r"""
    from robustfer import Component, hookimpl

    class Loss:
        '''λ-loss.

        Args:
            weight: the λ of \x1b[31mthe paper.

        Shape:
            logits ``(B, C)`` -> a λ.
        '''
        def __init__(self, *, weight="λ"): ...
        def forward(self, logits): ...

    @hookimpl
    def robustfer_losses():
        return [
            Component(name="greek", factory=Loss, summary="λ — λ", reference="Λ, λ, 2031"),
            Component(name="latin", factory=Loss, summary="l", reference="l"),
        ]

    @hookimpl
    def robustfer_augmentations():
        raise OSError("λ \x1b[2J")
"""


class Console(io.TextIOWrapper):
    """A console of an encoding, and what was printed on it."""

    def __init__(self, encoding, errors):
        super().__init__(io.BytesIO(), encoding=encoding, errors=errors, newline="\n")

    def isatty(self):
        return True

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def run(monkeypatch):
    """Run a command on consoles of an encoding; its status and what it printed."""

    def run(arguments, encoding, errors):
        out, err = Console(encoding, errors), Console(encoding, errors)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = cli.main(arguments)
        assert (out.errors, err.errors) == (errors, errors)  # as they were
        return status, out.text(), err.text()

    return run


COMMANDS = {
    "list": ["list", "losses"],
    "show": ["show", "greek"],
    "plugins": ["plugins"],
    "noise make": ["noise", "make", "demo", "--rate", "0.1", "--output", "λ.txt"],
    "noise show": ["noise", "show", "folder:λ", "--list", "λ.txt"],
    "new-plugin": ["new-plugin", "acme", "--directory", "λ"],
    "unknown": ["show", "λ"],
}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_every_command_prints_a_substitute(
    run, site, install, monkeypatch, tmp_path_factory, arguments, encoding, errors
):
    entry_point = write_plugin(site, "greeks", GREEK)

    def printed(encoding):
        install(entry_point)
        monkeypatch.chdir(tmp_path_factory.mktemp("here"))
        return run(arguments, encoding, errors)

    status, *texts = printed("utf-8")
    assert any("λ" in text for text in texts)
    assert not any("\x1b" in text for text in texts)
    expected = (text.encode(encoding, "replace").decode(encoding) for text in texts)
    assert printed(encoding) == (status, *expected)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["Windows", "C"],
)
def test_a_real_console_that_lacks_greek(environment):
    done = run_python("-m", "robustfer", "show", "gsmc", ROBUSTFER_PLUGINS="", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "GSMCLoss(" in done.stdout


def test_names_that_are_not_utf8_are_printed(run, install):
    install()
    status, _, err = run(["show", "\udcff"], "utf-8", "strict")
    assert (status, err.startswith("robustfer: no component is named '\\udcff'")) == (1, True)


def test_bars_show_on_a_console_that_lacks_signs(tmp_path, monkeypatch):
    folder = tmp_path / "λ" / "happiness"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "1.png")
    console = Console("ascii", "backslashreplace")  # as Python's own standard error
    monkeypatch.setattr(sys, "stderr", console)
    faces = ImageFolder(tmp_path / "λ", in_memory=True)
    assert faces[0]["image"].dtype == torch.uint8
    assert "reading \\u03bb: 100%|#" in console.text()
