"""The command line: what it prints, where, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import robustfer
from robustfer import cli
from tests.plugins_support import losses, run_python, write_plugin

pytest_plugins = ["tests.plugins_support.fixtures"]

BROKEN = "import no_such_module"


@pytest.fixture(autouse=True)
def _core_alone(install):
    """Whatever plugins the environment of the tests has."""
    install()


@pytest.fixture
def run(capsys):
    """Run a command line; status, standard output and errors."""

    def run(*arguments):
        status = cli.main(arguments)
        return status, *capsys.readouterr()

    return run


def test_list(run):
    status, out, err = run("list")
    assert (status, err) == (0, "")
    rows = [line.split()[:3] for line in out.splitlines()]
    assert ["eac", "losses", "robustfer"] in rows
    assert ["mirrored_pair", "augmentations", "robustfer"] in rows
    starts = {line.index("robustfer") for line in out.splitlines()}
    assert len(starts) == 1


@pytest.mark.parametrize(
    "command", ["list", "list --json", "noise make demo --rate 0.1 --output list.txt"]
)
def test_a_reader_that_has_seen_enough(command, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "robustfer", *command.split()]
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_list_one_kind_as_json(run):
    status, out, err = run("list", "augmentations", "--json")
    assert (status, err) == (0, "")
    rows = json.loads(out)
    assert {row["kind"] for row in rows} == {"augmentations"}
    [pair] = [row for row in rows if row["name"] == "mirrored_pair"]
    assert pair["plugin"] == "robustfer"
    assert "Consistency" in pair["reference"]
    assert "mirror image" in pair["summary"]


def test_a_broken_plugin_is_a_line_on_standard_error(run, site, install):
    noisy = """
        print("hello from noisy")
        raise OSError("no disk")
    """
    install(write_plugin(site, "noisy", noisy), write_plugin(site, "acme", losses("margin")))
    status, out, err = run("list", "--json")
    assert status == 0
    assert "margin" in {row["name"] for row in json.loads(out)}
    assert err == (
        "hello from noisy\n"
        "robustfer: plugin 'noisy' (robustfer-noisy 1.0) failed to load: OSError: no disk. "
        "Everything else works; `robustfer plugins` shows details.\n"
    )


def test_names_in_conflict_are_listed_in_full(run, site, install):
    install(write_plugin(site, "acme", losses("eac")))
    _, out, _ = run("list", "losses")
    names = [line.split()[0] for line in out.splitlines()]
    assert names == sorted(names)
    assert [name for name in names if "eac" in name] == ["acme:eac", "robustfer:eac"]
    _, out, _ = run("plugins")
    assert "names offered more than once\n  eac: write robustfer:eac or acme:eac\n" in out


def test_show(run):
    status, out, err = run("show", "eac")
    assert (status, err) == (0, "")
    assert out.startswith("robustfer:eac  (losses)\n")
    for expected in (
        "EACLoss(*, consistency_weight: float = 5.0, label_smoothing: float = 0.0, class_weights:",
        "options\n  consistency_weight=5.0  ",
        "tensors\n  logits  (B, C)\n  target  (B) int64 or (B, C) probabilities\n",
        "gives\n  scalar",
        "reference\n  Zhang et al.",
        f"from\n  robustfer.losses:EACLoss, plugin robustfer of robustfer {robustfer.__version__}",
    ):
        assert expected in out


def test_show_says_what_must_be_given(run, site, install):
    source = """
        from robustfer import hookimpl

        class Margin:
            def __init__(self, margin): ...
            def forward(self, logits, weights=None): ...

        @hookimpl
        def robustfer_losses():
            return [component("margin", Margin)]
    """
    install(write_plugin(site, "acme", source))
    _, out, _ = run("show", "margin")
    assert "options\n  margin (required)\n" in out
    assert "tensors\n  logits\n  weights (optional)\n" in out
    assert "gives" not in out


def test_show_says_what_a_loss_with_state_needs(run, site, install):
    source = """
        from robustfer import hookimpl

        class Average:
            def forward(self, logits, average): ...
            def propose(self, logits, index):
                "Return the averages."
            def update(self, index, average, *, gather=True):
                "Keep them."

        @hookimpl
        def robustfer_losses():
            return [component("average", Average)]
    """
    install(write_plugin(site, "acme", source))
    _, out, _ = run("show", "average")
    state = out.split("state\n")[1].split("\nreference\n")[0]
    assert " ".join(state.split()) == (
        "propose(logits, index) before forward, which takes the result as average: "
        "Return the averages "
        "update(index, average, *, gather=True) after the optimizer's step: Keep them"
    )
    _, out, _ = run("show", "eac")
    assert "\nstate\n" not in out


def test_an_interrupt_ends_the_command(run, site, install):
    install(write_plugin(site, "acme", "raise KeyboardInterrupt"))
    assert run("list") == (130, "", "robustfer: interrupted\n")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (
            "eeac",
            "robustfer: no component is named 'eeac'; did you mean 'acme:eac' or 'robustfer:",
        ),
        ("eac", "robustfer: 'eac' is offered by ['acme', 'robustfer']; use one of them: "),
        ("acme:eac", "robustfer: plugin 'acme' (robustfer-acme 1.0) offers 'eac' as "),
    ],
)
def test_show_what_cannot_be_shown(run, site, install, name, error):
    install(write_plugin(site, "acme", losses("eac")))
    status, out, err = run("show", name)
    assert (status, out) == (1, "")
    assert err.startswith(error)
    assert "Traceback" not in err


@pytest.fixture
def four(site, install):
    """Plugins: one that works, one that fails, one that is left out, and one slow as time goes."""
    return install(
        write_plugin(site, "acme", losses("margin"), version="1.2"),
        write_plugin(site, "bad", BROKEN),
        write_plugin(site, "left", losses("other")),
        allowed=["acme", "bad"],
    )


def test_plugins(run, four):
    status, out, err = run("plugins")
    assert (status, err) == (0, "")
    table, failures = out.split("\n\n")[:2]
    rows = [line.split(maxsplit=3) for line in table.splitlines()]
    assert rows[0][:3] == ["robustfer", robustfer.__version__, "robustfer"]
    assert rows[0][3].startswith("losses: ")
    assert ", eac, " in rows[0][3]
    assert "; augmentations: " in rows[0][3]
    assert rows[1:] == [
        ["acme", "1.2", "robustfer-acme", "losses: margin"],
        ["bad", "1.0", "robustfer-bad", "FAILED"],
        ["left", "1.0", "robustfer-left", "left out by ROBUSTFER_PLUGINS"],
    ]
    assert failures.startswith("failures\n  plugin 'bad' (robustfer-bad 1.0) failed to load: Modu")


def test_plugins_as_json(run, four):
    status, out, err = run("plugins", "--json")
    assert (status, err) == (0, "")
    core, acme, bad, left = json.loads(out)
    assert core["augmentations"] == ["mirrored_pair", "single_view"]
    seconds = acme.pop("seconds")
    assert seconds >= 0
    assert acme == {
        "name": "acme",
        "distribution": "robustfer-acme",
        "version": "1.2",
        "blocked": False,
        "losses": ["margin"],
        "augmentations": [],
        "errors": [],
        "slow": seconds > cli.SLOW,
        "imports": [],
    }
    assert [plugin["blocked"] for plugin in (core, acme, bad, left)] == [False] * 3 + [True]
    assert "no_such_module" in bad["errors"][0]


def test_check(run, four, install):
    assert run("plugins", "--check")[0] == 1
    install()
    assert run("plugins", "--check")[0] == 0


def test_a_slow_plugin_is_named(run, site, install, monkeypatch):
    (site / "another_slow_package.py").touch()
    monkeypatch.setattr(cli.plugins, "HEAVY", ("another_slow_package",))
    monkeypatch.setattr(cli, "SLOW", 0.0)
    install(write_plugin(site, "acme", "import another_slow_package", losses("margin")))
    _, out, _ = run("plugins")
    slow = out.split("slow to load\n")[1].splitlines()
    assert slow[0].startswith("  robustfer: ")
    assert slow[1].startswith("  acme: ")
    assert slow[1].endswith(" s, imports another_slow_package")


def test_a_plugin_with_an_empty_list(run, site, install):
    install(write_plugin(site, "acme", losses()))
    _, out, _ = run("plugins")
    assert out.splitlines()[1].split(maxsplit=3)[3] == "offers nothing"


@pytest.mark.parametrize("arguments", [[], ["lst"], ["list", "loss"], ["show"]])
def test_wrong_use(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("usage: robustfer")


def test_version(capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"robustfer {robustfer.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "losses", "--json"], ["plugins", "--check"]]
)
def test_listing_imports_nothing_slow(arguments):
    code = (
        f"import sys; from robustfer import cli; status = cli.main({arguments});"
        "slow = {'torch', 'torchvision', 'kornia', 'timm', 'numpy', 'packaging'};"
        "print(status, sorted(slow & set(sys.modules)), file=sys.stderr)"
    )
    finished = run_python("-c", code, ROBUSTFER_PLUGINS="")
    assert finished.stderr == "0 []\n"
    assert "eac" in finished.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["noise", "--help"], ["noise", "make", "-h"]])
def test_help_imports_nothing_slow(arguments):
    code = (
        "import sys\nfrom robustfer import cli\n"
        f"try:\n    cli.main({arguments})\nexcept SystemExit as stopped:\n"
        "    slow = {'torch', 'torchvision', 'kornia', 'timm', 'numpy', 'packaging'}\n"
        "    print(stopped.code, sorted(slow & set(sys.modules)), file=sys.stderr)"
    )
    finished = run_python("-c", code, ROBUSTFER_PLUGINS="")
    assert finished.stderr == "0 []\n"
    assert finished.stdout.startswith("usage: robustfer")


def test_it_runs_as_a_module():
    finished = run_python("-m", "robustfer", "show", "eeac", ROBUSTFER_PLUGINS="")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith(
        "robustfer: no component is named 'eeac'; did you mean 'eac'?"
    )  # and that other plugins are left out
