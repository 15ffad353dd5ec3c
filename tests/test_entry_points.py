"""Finding plugins: a damaged package is named, and all others are found."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint

import pytest

from robustfer import _entry_points, plugins, registry
from robustfer._entry_points import Unreadable
from robustfer.plugins import Plugins, PluginWarning
from tests.plugins_support import losses, run_python, write_plugin

pytest_plugins = ["tests.plugins_support.fixtures"]


def found(site):
    """What is found in this folder: entry points and packages that cannot be read."""

    def folder(one):
        return one.folder if isinstance(one, Unreadable) else str(one.dist.locate_file(""))

    return [one for one in _entry_points.find() if folder(one) == str(site)]


def write_package(site, name, entry_points, *, folder=None):
    """Write the metadata of a package; its entry points are bytes."""
    folder = site / (folder or f"{name}-1.0.dist-info")
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_bytes(entry_points)


DAMAGED = {
    "no value": b"[console_scripts]\nother is broken\n",
    "own section": b"[robustfer]\nother\n",
    "latin-1": "[robustfer]\ncafé = cafe\n".encode("latin-1"),
    "byte order mark": "\ufeff[robustfer]\nother = other\n".encode(),
    "utf-16": "[robustfer]\nother = other\n".encode("utf-16"),
    "utf-16 without mark": "[robustfer]\nother = other\n".encode("utf-16-le"),
    "binary": bytes(range(256)),
    "zeros": bytes(4096),  # what a file system may leave after a power cut
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_of_anyone_is_named_and_the_rest_is_found(site, content):
    write_package(site, "other", content)
    good = write_plugin(site, "good", losses("margin"))
    damaged, entry_point = sorted(found(site), key=lambda one: isinstance(one, EntryPoint))
    assert (entry_point.name, entry_point.value) == ("good", good.value)
    assert str(damaged).startswith(f"package 'other' in {site} has a file entry_points.txt that ")
    assert str(damaged).endswith("reinstall or remove the package")

    with pytest.warns(PluginWarning) as caught:
        loaded = {plugin.name: plugin for plugin in Plugins([damaged, entry_point])}
    assert [str(warning.message).split(" has a file")[0] for warning in caught] == [
        f"package 'other' in {site}"
    ]
    assert [str(error) for error in loaded["other"].errors] == [str(damaged)]
    assert [offer.component.name for offer in loaded["good"].offers] == ["margin"]


def test_several_damaged_packages_are_each_named(site):
    for name in ("one", "two"):
        write_package(site, name, DAMAGED["no value"])
    write_package(site, "nameless", DAMAGED["latin-1"])
    (site / "nameless-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    assert sorted(one.name for one in found(site)) == ["?", "one", "two"]


def test_files_that_are_fine(site):
    write_package(site, "no_plugin", b"[console_scripts]\nother = other:main\n")
    write_package(site, "empty", b"")
    write_package(site, "mentions", b"# not [robustfer]\n[x]\na = b\n")
    write_package(site, "windows", b"[robustfer]\r\nwindows = a.module\r\n")
    [one] = found(site)
    assert (one.name, one.value) == ("windows", "a.module")


def test_a_package_that_another_of_its_name_hides_is_not_found(site, tmp_path, monkeypatch):
    earlier = tmp_path / "earlier"
    write_package(site, "acme_x", b"[robustfer]\nold = old\n")
    write_package(site, "hidden", DAMAGED["no value"])
    write_package(earlier, "Acme.X", b"[robustfer]\nnew = new\n", folder="acme_x-2.0.dist-info")
    write_package(earlier, "hidden", b"")
    monkeypatch.syspath_prepend(earlier)
    assert [one.name for one in found(earlier)] == ["new"]
    assert found(site) == []


def test_one_package_twice_on_the_path_is_found_once(site, monkeypatch):
    write_package(site, "acme", b"[robustfer]\nacme = acme\n")
    monkeypatch.syspath_prepend(site)
    assert [one.name for one in found(site)] == ["acme"]


def test_a_damaged_package_may_hold_the_plugin_that_is_missing(site, install):
    damaged = Unreadable(name="robustfer-acme", folder=str(site), error=OSError("no disk"))
    good = write_plugin(site, "good", losses("margin"))

    install(damaged, good, allowed=["good"])
    assert [plugin.blocked for plugin in plugins.installed()] == [False, True, False]

    install(damaged, good, allowed=["good", "acme"])
    with pytest.warns(PluginWarning, match="robustfer-acme.*cannot be read|'acme' is named by"):
        names = [plugin.name for plugin in plugins.installed() if plugin.errors]
    assert names == ["robustfer-acme", "acme"]


def test_an_unknown_plugin_is_told_with_what_cannot_be_read(install):
    install(Unreadable(name="robustfer-acme", folder="here", error=OSError("no disk")))
    with (
        pytest.warns(PluginWarning),
        pytest.raises(LookupError, match="no plugin 'acme' .*: package 'robustfer-acme' in here"),
    ):
        registry.create("acme:margin")


def run_beside_damage(site, *arguments, **environment):
    """Run Python with a damaged package in its path."""
    write_package(site, "other", DAMAGED["no value"])
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return run_python(*arguments, PYTHONPATH=paths, **environment)


NONE = {"ROBUSTFER_PLUGINS": ""}


@pytest.mark.parametrize(
    ("environment", "command", "expected"),
    [
        ({}, "list", "eac"),
        ({}, "show eac", "robustfer.losses:EACLoss"),
        ({}, "plugins", "robustfer"),
        ({}, "noise make demo --rate 0.1 --output list.txt", "fingerprint"),
        (NONE, "list", "eac"),
        (NONE, "show eac", "robustfer.losses:EACLoss"),
        (NONE, "plugins", "robustfer"),
    ],
)
def test_every_command_works_beside_a_damaged_package(
    site, monkeypatch, environment, command, expected
):
    monkeypatch.chdir(site)
    done = run_beside_damage(site, "-m", "robustfer", *command.split(), **environment)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    # torch reads the files of all packages, whatever ROBUSTFER_PLUGINS says.
    reads = not environment or command.startswith(("show", "noise"))
    assert ("package 'other'" in done.stderr + done.stdout) == reads


def test_torchs_own_switch_is_left_as_it_was(site):
    code = (
        "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from robustfer import registry\n"
        "print(registry.create('eac'), os.environ.get('TORCH_DEVICE_BACKEND_AUTOLOAD'))"
    )
    done = run_beside_damage(site, "-c", code)
    assert done.stdout.endswith("label_smoothing=0.0) None\n"), done.stderr
