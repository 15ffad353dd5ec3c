"""Loading: whatever a plugin does, the host, the other plugins and the texts stay right."""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from importlib.metadata import EntryPoint

import pytest

from robustfer import hookspecs, plugins, registry
from robustfer.hookspecs import KINDS
from robustfer.plugins import Plugin, PluginError, Plugins, PluginWarning
from tests.plugins_support import losses, write_plugin

pytest_plugins = ["tests.plugins_support.fixtures"]


def broken(found: Plugins, name: str) -> Plugin:
    """Load everything; the plugin of that name is warned about once, all others work."""
    with pytest.warns(PluginWarning) as caught:
        loaded = list(found)
    [warning] = caught
    assert f"plugin {name!r}" in str(warning.message)
    assert list(found) == loaded  # the second look neither loads nor warns
    [plugin] = [plugin for plugin in loaded if plugin.errors]
    assert plugin.name == name
    return plugin


GOOD = losses("good")

# What is wrong, source, what the error says, type of the plugin's own error.
BROKEN = {
    "import": (
        "import no_such_module",
        "failed to load: ModuleNotFoundError: No module named 'no_such_module'",
        ModuleNotFoundError,
    ),
    "syntax": ("def f(:", "failed to load: SyntaxError", SyntaxError),
    "exits": ("raise SystemExit(3)", "failed to load: SystemExit: 3", SystemExit),
    "raises in the hook": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses():
            return [1 / 0]
        """,
        r"failed in robustfer_losses\(\): ZeroDivisionError: division by zero",
        ZeroDivisionError,
    ),
    "component refused": (
        losses("CamelCase"),
        r"failed in robustfer_losses\(\): ValueError: name .* snake_case, got 'CamelCase'",
        ValueError,
    ),
    "returns nothing": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses():
            [component("good")]
        """,
        r"must return a list from robustfer_losses\(\), got None",
        None,
    ),
    "returns names": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses():
            return [component("good"), "margin"]
        """,
        r"list of robustfer.Component from robustfer_losses\(\), got 'margin' at position 1",
        None,
    ),
    "yields": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses():
            yield component("good")
        """,
        r"must return a list from robustfer_losses\(\), got <generator",
        None,
    ),
    "misspelt hook": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_loses():
            return []
        """,
        "implements robustfer_loses, which is not a hook; did you mean 'robustfer_losses'?",
        None,
    ),
    "foreign hook": (
        """
        from robustfer import hookimpl
        @hookimpl
        def pytest_configure():
            return []
        """,
        "implements pytest_configure, which is not a hook; the hooks are robustfer_losses, ",
        None,
    ),
    "unmarked hook": (
        "def robustfer_losses(): return []",
        "defines robustfer_losses without @robustfer.hookimpl",
        None,
    ),
    "a mapping": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses():
            return {"good": component("good")}
        """,
        r"must return a list from robustfer_losses\(\), got {'good': Component",
        None,
    ),
    "a wrapper of hooks": (
        """
        from robustfer import hookimpl
        @hookimpl(wrapper=True)
        def robustfer_losses():
            return (yield) + [component("good")]
        """,
        r"must return a list from robustfer_losses\(\), got <generator",
        None,
    ),
    "no repr": (
        """
        from robustfer import hookimpl
        class Silent:
            def __repr__(self):
                raise OSError("no repr")
        @hookimpl
        def robustfer_losses():
            return [Silent()]
        """,
        "got <Silent whose repr cannot be made: OSError> at position 0",
        None,
    ),
    "a repr without end": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses():
            return "x" * 1_000_000
        """,
        r"must return a list from robustfer_losses\(\), got 'x{59}\.\.\. \(1000002 characters\)",
        None,
    ),
    "BaseException": (
        """
        class PanicException(BaseException):  # as pyo3's, of extensions written in Rust
            pass
        raise PanicException("rust")
        """,
        "failed to load: PanicException: rust",
        None,
    ),
    "cancelled": (
        """
        import asyncio
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses():
            raise asyncio.CancelledError
        """,
        r"failed in robustfer_losses\(\): CancelledError: $",
        asyncio.CancelledError,
    ),
    "skips": (
        """
        import pytest
        pytest.skip("not here", allow_module_level=True)
        """,
        "failed to load: Skipped: not here",
        pytest.skip.Exception,
    ),
    "no text": (
        """
        class Silent(Exception):
            def __str__(self):
                raise SystemExit("no text")
        raise Silent
        """,
        "failed to load: Silent: <its text cannot be made: SystemExit>",
        None,
    ),
    "attributes that raise": (
        """
        from robustfer import hookimpl
        def __getattr__(name):
            raise OSError(name)
        def __dir__():
            return ["robustfer_losses", "more"]
        """,
        "failed to load: OSError: ",
        OSError,
    ),
    "a warning made an error": (
        """
        import warnings
        warnings.simplefilter("error", DeprecationWarning)
        warnings.warn("old", DeprecationWarning)
        """,
        "failed to load: DeprecationWarning: old",
        DeprecationWarning,
    ),
    "a name that is not text": (
        """
        from robustfer import Component, hookimpl
        class Unchecked(Component):
            def __post_init__(self):
                pass
        @hookimpl
        def robustfer_losses():
            return [Unchecked(name=3, factory="a:b", summary="s", reference="r")]
        """,
        r"failed in robustfer_losses\(\): TypeError: name .* text, got 3",
        TypeError,
    ),
    "no hook": ("", "implements no hook; the hooks are robustfer_losses, ", None),
    "unknown argument": (
        """
        from robustfer import hookimpl
        @hookimpl
        def robustfer_losses(config):
            return []
        """,
        "failed to load: PluginValidationError: .*config",
        hookspecs.pluggy.PluginValidationError,
    ),
}


@pytest.mark.parametrize(("source", "text", "own_error"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_kept_apart(site, install, source, text, own_error):
    bad = write_plugin(site, "bad", source, version="2.1")
    good = write_plugin(site, "good", GOOD)
    found = install(bad, good)

    plugin = broken(found, "bad")

    [error] = plugin.errors
    assert str(error).startswith("plugin 'bad' (robustfer-bad 2.1) ")
    assert plugin.offers == ()
    assert {"good", "eac"} <= registry.available("losses").keys()
    with pytest.raises(PluginError, match=f"(?s)'bad:margin' is not available: .*{text}") as raised:
        registry.create("bad:margin")
    if own_error is None:
        assert raised.value.__cause__ in (error, error.__cause__)
    else:
        assert type(raised.value.__cause__) is own_error


def test_two_broken_plugins_are_both_named(site, install):
    bad = [
        write_plugin(site, name, source)
        for name, source in (("bad", "raise SystemExit"), ("worse", "raise GeneratorExit"))
    ]
    install(bad[0], write_plugin(site, "good", GOOD), bad[1])
    with pytest.warns(PluginWarning) as caught:
        assert {"eac", "good"} <= registry.available().keys()
    first, second = (str(warning.message) for warning in caught)
    assert first.startswith("plugin 'bad' (robustfer-bad 1.0) failed to load: SystemExit")
    assert second.startswith("plugin 'worse' (robustfer-worse 1.0) failed to load: GeneratorExit")
    with pytest.raises(registry.UnknownComponentError, match="'bad'.*; plugin 'worse'"):
        registry.create("margin")


def test_pluggy_put_out_of_order_is_the_plugins_that_come_after(site, install, monkeypatch):
    monkeypatch.setattr(plugins.pluggy, "PluginManager", plugins.pluggy.PluginManager)
    vandal = "import pluggy; pluggy.PluginManager = None"
    install(write_plugin(site, "vandal", vandal), write_plugin(site, "good", GOOD))
    with pytest.warns(PluginWarning, match="failed to load: TypeError"):
        assert "eac" in registry.available()


def test_a_list_that_changes_later_changes_nothing(site, install):
    source = """
        from robustfer import hookimpl
        offered = [component("margin")]
        @hookimpl
        def robustfer_losses():
            return offered
    """
    acme = write_plugin(site, "acme", source)
    install(acme)
    assert "margin" in registry.available()
    sys.modules[acme.module].offered.clear()
    assert "margin" in registry.available()


@pytest.mark.parametrize("name", ["a:b", "a b", "a\x1b[2J", "-a", "é\u200b"])
def test_a_plugin_name_that_cannot_be_asked_for(site, install, name):
    module = write_plugin(site, "acme", GOOD).module
    plugin = broken(install(EntryPoint(name, module, "robustfer")), name)
    assert "must have a name of letters, digits" in str(plugin.errors[0])
    assert module not in sys.modules


def test_a_namespace_package_has_no_hook(site, install):
    (site / "only_a_folder").mkdir()
    plugin = broken(install(EntryPoint("acme", "only_a_folder", "robustfer")), "acme")
    assert "implements no hook" in str(plugin.errors[0])


@pytest.mark.parametrize("value", ["", "a module", "a:", "1"])
def test_an_entry_point_that_names_no_module(install, value):
    plugin = broken(install(EntryPoint("acme", value, "robustfer")), "acme")
    assert "failed to load: " in str(plugin.errors[0])


def test_metadata_in_another_encoding_are_named(site, install):
    entry_point = write_plugin(site, "acme", GOOD)
    metadata = next(site.glob("*.dist-info/METADATA"))
    metadata.write_bytes(metadata.read_bytes() + b"Author: Fran\xe7ois\n")
    plugin = broken(install(entry_point), "acme")
    assert "failed to load: UnicodeDecodeError" in str(plugin.errors[0])


def test_what_works_of_a_plugin_stays(site, install):
    more = """
        @hookimpl
        def robustfer_augmentations():
            raise OSError("no disk")

        @hookimpl
        def robustfer_lossses():
            return []
    """
    plugin = broken(install(write_plugin(site, "half", losses("margin"), more)), "half")
    assert [offer.component.name for offer in plugin.offers] == ["margin"]
    assert "margin" in registry.available("losses")
    assert len(plugin.errors) == 2
    with pytest.raises(PluginError, match="(?s)robustfer_lossses.*OSError: no disk"):
        registry.describe("half:crop")


def test_the_warning_counts_further_errors(site, install):
    source = """
        from robustfer import hookimpl

        @hookimpl
        def robustfer_losses(): pass

        @hookimpl
        def robustfer_augmentations(): pass
    """
    found = install(write_plugin(site, "bad", source))
    with pytest.warns(PluginWarning, match=r"got None \(and 1 more\)\. Everything else works"):
        list(found)


def test_an_unknown_name_tells_which_plugins_failed(site, install):
    found = install(write_plugin(site, "bad", "import no_such_module"))
    broken(found, "bad")
    with pytest.raises(
        registry.UnknownComponentError,
        match="no component is named 'margin'.*may offer it: plugin 'bad'.*no_such",
    ) as raised:
        registry.create("margin")
    assert type(raised.value.__cause__) is ModuleNotFoundError


def test_a_name_twice_in_one_plugin_is_its_error(site, install):
    more = """
        @hookimpl
        def robustfer_augmentations():
            return [component("twice")]
    """
    plugin = broken(install(write_plugin(site, "bad", losses("margin", "twice"), more)), "bad")
    assert "offers more than one component named ['twice']" in str(plugin.errors[0])
    assert [offer.component.name for offer in plugin.offers] == ["margin"]


def test_nothing_is_loaded_before_it_is_asked_for(site, install):
    one, two = (write_plugin(site, name, losses(f"{name}_loss")) for name in ("one", "two"))
    found = install(one, two)
    assert one.module not in sys.modules
    [plugin] = found.named("one")
    assert [offer.qualified_name for offer in plugin.offers] == ["one:one_loss"]
    assert one.module in sys.modules
    assert two.module not in sys.modules
    assert "two_loss" in registry.available("losses")
    assert two.module in sys.modules


def test_each_of_fifty_plugins_is_imported_and_asked_once(site, install):
    source = """
        from robustfer import hookimpl
        calls = []

        @hookimpl
        def robustfer_losses():
            calls.append("losses")
            return [component(__name__)]
    """
    entry_points = [write_plugin(site, f"p{number}", source) for number in range(50)]
    install(*entry_points)
    for _ in range(3):
        assert len(registry.available("losses")) >= 50
    first = registry.available("losses")[entry_points[0].module]
    assert first.plugin == "p0"
    assert all(sys.modules[one.module].calls == ["losses"] for one in entry_points)


def test_threads_load_a_plugin_once(site, install):
    more = """
        import time
        time.sleep(0.02)
    """
    found = install(write_plugin(site, "slow", losses("margin"), more))
    seen: list[Plugin] = []
    threads = [threading.Thread(target=lambda: seen.extend(found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(plugin) for plugin in seen if plugin.name == "slow"}) == 1


def test_a_plugin_may_look_around_while_it_is_loaded(site, install):
    more = """
        from robustfer import registry
        seen = registry.available()
    """
    curious = write_plugin(site, "curious", losses("late"), more)
    install(curious, write_plugin(site, "other", losses("early")))
    assert {"late", "early"} <= registry.available("losses").keys()
    seen = sys.modules[curious.module].seen
    assert "early" in seen
    assert "late" not in seen


def test_an_interrupt_passes_and_is_not_held_against_the_plugin(site, install):
    source = """
        import builtins
        builtins.interrupts = getattr(builtins, "interrupts", 0) + 1
        if builtins.interrupts == 1:
            raise KeyboardInterrupt
    """
    found = install(write_plugin(site, "good", source, GOOD))
    with pytest.raises(KeyboardInterrupt):
        list(found)
    assert "good" in registry.available("losses")


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("robustfer>=99", "requires robustfer>=99, but this is robustfer 0"),
        ("RobustFER[testing] <0.0.1", "requires robustfer<0.0.1, but this is robustfer 0"),
        ("robustfer ?", "failed to load: InvalidRequirement"),
    ],
)
def test_a_plugin_for_another_robustfer_is_not_imported(site, install, requirement, problem):
    entry_point = write_plugin(site, "future", GOOD, requires=["numpy", requirement])
    plugin = broken(install(entry_point), "future")
    assert problem in str(plugin.errors[0])
    assert entry_point.module not in sys.modules


@pytest.mark.parametrize(
    "requirement",
    [
        "robustfer",
        "robustfer>=0.1,<99",
        "robustfer-acme>=99",
        'robustfer>=99; extra == "later"',
        'robustfer>=99; python_version < "3"',
    ],
)
def test_a_requirement_that_is_met_or_does_not_count(site, install, requirement):
    install(write_plugin(site, "good", GOOD, requires=[requirement]))
    assert "good" in registry.available("losses")


def test_a_development_version_of_robustfer_is_new_enough(site, install, monkeypatch):
    monkeypatch.setattr(plugins, "__version__", "0.2.0.dev1")
    install(write_plugin(site, "good", GOOD, requires=["robustfer>=0.1"]))
    assert "good" in registry.available("losses")


def test_left_out_by_the_environment(site, install):
    one, two = (write_plugin(site, name, losses(f"{name}_loss")) for name in ("one", "two"))
    found = install(one, two, allowed=["one"])
    assert {"one_loss", "eac"} <= registry.available("losses").keys()
    assert [plugin.blocked for plugin in found] == [False, False, True]
    assert two.module not in sys.modules
    with pytest.raises(PluginError, match=r"'two' \(robustfer-two 1.0\) is left out by ROBUSTFER_"):
        registry.create("two:two_loss")
    with pytest.raises(registry.UnknownComponentError, match="may offer it: .*'two'"):
        registry.create("two_loss")


def test_the_environment_names_what_is_not_installed(site, install):
    found = install(write_plugin(site, "acme", GOOD), allowed=["acme", "acne"])
    plugin = broken(found, "acne")
    assert "is named by ROBUSTFER_PLUGINS but not installed" in str(plugin.errors[0])
    assert "group 'robustfer' has ['acme', 'robustfer']" in str(plugin.errors[0])
    assert "good" in registry.available("losses")


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, ["robustfer", "acme", "other"]),
        ("acme", ["robustfer", "acme"]),
        (" acme, other ,", ["robustfer", "acme", "other"]),
    ],
)
def test_the_variable_is_read_when_plugins_are_first_needed(site, monkeypatch, chosen, names):
    found = [write_plugin(site, "acme", losses("margin")), write_plugin(site, "other", GOOD)]
    monkeypatch.setattr(plugins._entry_points, "find", lambda: found)
    loaded = list(plugins._installed.__wrapped__(chosen))
    assert [plugin.name for plugin in loaded if not plugin.blocked] == names


@pytest.mark.parametrize("chosen", ["", " , ", "robustfer"])
def test_an_empty_variable_reads_nothing_of_others(monkeypatch, chosen):
    monkeypatch.setattr(plugins._entry_points, "find", lambda: pytest.fail("looked"))
    found = plugins._installed.__wrapped__(chosen)
    assert [plugin.name for plugin in found] == ["robustfer"]
    monkeypatch.setattr(plugins, "installed", lambda: found)
    for name in ("margin", "acme:margin"):
        with pytest.raises(registry.UnknownComponentError, match="ROBUSTFER_PLUGINS leaves out"):
            registry.create(name)


def test_a_change_of_the_variable_takes_effect(monkeypatch):
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "")
    none = plugins.installed()
    assert plugins.installed() is none
    assert [plugin.name for plugin in none if not plugin.blocked] == ["robustfer"]
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "robustfer")
    assert plugins.installed() is not none


def test_two_packages_with_one_plugin_name_are_both_refused(site, install):
    one = write_plugin(site, "acme", losses("one_loss"))
    two = write_plugin(site, "acme", losses("two_loss"), distribution="acme-fork")
    install(one, two)
    with pytest.warns(PluginWarning) as caught:
        loaded = registry.available("losses")
    assert "eac" in loaded
    assert not loaded.keys() & {"one_loss", "two_loss"}
    assert [str(warning.message).split(";")[0] for warning in caught] == [
        f"plugin 'acme' ({package} 1.0) has a name that is installed more than once"
        for package in ("robustfer-acme", "acme-fork")
    ]
    with pytest.raises(PluginError, match=r"robustfer-acme 1.0.*acme-fork 1.0"):
        registry.create("acme:one_loss")


def test_nobody_takes_the_name_of_the_core(site, install):
    found = install(write_plugin(site, "robustfer", losses("eac"), distribution="evil"))
    plugin = broken(found, "robustfer")
    assert plugin.distribution == "evil"
    assert registry.describe("robustfer:eac").source == "robustfer.losses:EACLoss"


def test_a_plugin_may_be_an_object_with_methods(site, install):
    source = """
        from robustfer import hookimpl
        class Plugin:
            @hookimpl
            def robustfer_losses(self):
                return [component("margin")]
        plugin = Plugin()
        nothing = None
    """
    module = write_plugin(site, "acme", source).module
    install(EntryPoint("acme", f"{module}:plugin", "robustfer"))
    assert registry.available("losses")["margin"].plugin == "acme"
    plugin = broken(install(EntryPoint("none", f"{module}:nothing", "robustfer")), "none")
    assert "implements no hook" in str(plugin.errors[0])


def test_an_optional_hook_of_a_later_robustfer_is_no_error(site, install):
    more = """
        @hookimpl(optionalhook=True)
        def robustfer_landmark_readers():
            return []
    """
    install(write_plugin(site, "acme", losses("margin"), more))
    assert "margin" in registry.available("losses")


def test_a_package_without_metadata_does_not_break_the_host(site, install):
    entry_point = write_plugin(site, "half_removed", GOOD)
    next(site.glob("*.dist-info/METADATA")).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions of Python differ in how loud they are
        found = list(install(entry_point))
    assert [plugin.name for plugin in found] == ["robustfer", "half_removed"]


def test_slow_packages_that_a_plugin_imports_are_named(site, monkeypatch):
    (site / "a_slow_package.py").touch()
    monkeypatch.setattr(plugins, "HEAVY", ("a_slow_package", "sys"))
    heavy = write_plugin(site, "heavy", "import a_slow_package", GOOD)
    after = write_plugin(site, "after", "import a_slow_package", losses("after"))
    found = {plugin.name: plugin for plugin in Plugins([heavy, after])}
    assert found["heavy"].heavy == ("a_slow_package",)
    assert found["after"].heavy == ()
    assert found["heavy"].seconds > 0


def test_every_kind_has_its_hook():
    specs = {name for name in vars(hookspecs) if name.startswith("robustfer_")}
    assert specs == {f"robustfer_{kind}" for kind in KINDS}
