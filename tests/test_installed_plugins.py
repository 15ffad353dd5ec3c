"""Plugins that pip has really installed, in an environment layered on the one of the tests."""

from __future__ import annotations

import json

import pytest

from tests.plugins_support import LayeredEnvironment, losses, write_wheel

ACME = """
    from robustfer import hookimpl

    @hookimpl
    def robustfer_losses():
        return [
            component("eac", "torch.nn:MSELoss"),
            component("squared", "torch.nn:MSELoss"),
        ]
"""
BROKEN = "import a_package_that_is_not_installed"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("installed")
    wheels = [
        write_wheel(folder, "acme", ACME, version="1.2", requires=["robustfer>=0.1"]),
        write_wheel(folder, "broken", BROKEN, version="0.3"),
        write_wheel(folder, "future", losses("later"), requires=["robustfer>=99"]),
    ]
    return LayeredEnvironment(folder / "environment", wheels)


def test_the_listing_survives(environment):
    finished = environment.run("-m", "robustfer", "list", "losses", "--json")
    names = {row["name"] for row in json.loads(finished.stdout)}
    assert {"acme:eac", "robustfer:eac", "squared", "attention_consistency"} <= names
    assert not {"eac", "later"} & names
    assert finished.returncode == 0
    [broken, future] = sorted(finished.stderr.splitlines())
    assert broken.startswith(
        "robustfer: plugin 'broken' (robustfer-broken 0.3) failed to load: ModuleNotFoundError: "
        "No module named 'a_package_that_is_not_installed'"
    )
    assert future.startswith(
        "robustfer: plugin 'future' (robustfer-future 1.0) requires robustfer>=99, but this is"
    )


def test_the_state_of_all_plugins(environment):
    finished = environment.run("-m", "robustfer", "plugins", "--json", "--check")
    assert (finished.returncode, finished.stderr) == (1, "")
    rows = {row["name"]: row for row in json.loads(finished.stdout)}
    assert rows["acme"]["losses"] == ["eac", "squared"]
    assert rows["acme"]["version"] == "1.2"
    assert rows["acme"]["errors"] == []
    assert len(rows["broken"]["errors"]) == len(rows["future"]["errors"]) == 1
    assert rows["robustfer"]["errors"] == []


def test_errors_name_the_plugin_and_chain_its_own(environment):
    code = """
import warnings
from robustfer import plugins, registry
warnings.simplefilter("ignore", plugins.PluginWarning)
for name in ("broken:thing", "future:later", "eac", "acme:sqared", "later"):
    try:
        registry.create(name)
    except (LookupError, plugins.PluginError) as error:
        print(type(error).__name__, "|", error, "|", type(error.__cause__).__name__)
"""
    finished = environment.run("-c", code)
    assert finished.stderr == ""
    broken, future, conflict, misspelt, unknown = finished.stdout.splitlines()
    assert broken.startswith("PluginError | 'broken:thing' is not available: plugin 'broken' (rob")
    assert broken.endswith("| ModuleNotFoundError")
    assert "requires robustfer>=99" in future
    assert conflict == (
        "AmbiguousComponentError | 'eac' is offered by ['acme', 'robustfer']; use one of "
        "them: 'acme:eac', 'robustfer:eac' | NoneType"
    )
    assert "did you mean 'squared'?" in misspelt
    assert "may offer it: " in unknown
    assert "plugin 'broken'" in unknown
    assert "plugin 'future'" in unknown


def test_what_works_can_be_made(environment):
    code = """
import warnings
from robustfer import plugins, registry
warnings.simplefilter("ignore", plugins.PluginWarning)
print(registry.create("robustfer:eac"), registry.create("squared"), registry.create("acme:eac"))
"""
    finished = environment.run("-c", code, OMP_NUM_THREADS="1")
    assert finished.stderr == ""
    assert finished.stdout == (
        "EACLoss(consistency_weight=5.0, label_smoothing=0.0) MSELoss() MSELoss()\n"
    )


@pytest.mark.parametrize(
    ("chosen", "names", "blocked"),
    [("", set(), set()), ("acme", {"acme"}, {"broken", "future"})],
)
def test_the_variable_chooses(environment, chosen, names, blocked):
    finished = environment.run("-m", "robustfer", "plugins", "--json", ROBUSTFER_PLUGINS=chosen)
    assert (finished.returncode, finished.stderr) == (0, "")
    rows = json.loads(finished.stdout)
    assert blocked <= {row["name"] for row in rows if row["blocked"]}
    assert {row["name"] for row in rows if not row["blocked"]} == {"robustfer"} | names
    assert all(not row["losses"] for row in rows if row["blocked"])


def test_the_layer_brings_no_second_torch(environment):
    code = "import importlib.util, sys; print(importlib.util.find_spec('torch').origin, sys.prefix)"
    origin, prefix = environment.run("-c", code).stdout.split()
    assert not origin.startswith(prefix)
