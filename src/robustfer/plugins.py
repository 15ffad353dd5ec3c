"""Finding and loading plugins, each alone and only when asked for, so that none breaks the host.

What goes wrong with a plugin is kept, warned about once, shown by ``robustfer plugins`` and raised
where one of its components is asked for.

The environment variable ``ROBUSTFER_PLUGINS`` chooses: unset, all installed plugins; empty, none;
names with commas between, only these. The core's own components are always there.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Any

import pluggy

from robustfer import __version__, hookspecs
from robustfer.hookspecs import KINDS, Component, Kind

VARIABLE = "ROBUSTFER_PLUGINS"
CORE = EntryPoint(name="robustfer", value="robustfer._builtin", group="robustfer")

#: Packages that are slow to import. A plugin needs none of them to say what it offers.
HEAVY = ("torch", "torchvision", "timm", "kornia", "numpy")

_HOOKS = {f"robustfer_{kind}": kind for kind in KINDS}


class PluginError(RuntimeError):
    """What is wrong with a plugin. The plugin's own error, where there is one, is the cause."""


class PluginWarning(UserWarning):
    """A plugin does not work, or not wholly; everything else does."""


class _FaultError(Exception):
    """Something wrong with a plugin that robustfer found, in words that follow its name."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A component as a plugin offers it."""

    plugin: str
    kind: Kind
    component: Component

    @property
    def qualified_name(self) -> str:
        """The name that means this offer and no other, ``plugin:component``."""
        return f"{self.plugin}:{self.component.name}"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """What is known of one entry point, and what became of it.

    Attributes:
        name: name of the entry point.
        distribution: the installed package that has it, where known.
        version: version of that package.
        offers: what the plugin offers, less what a hook that failed would have.
        errors: what went wrong.
        blocked: left out by ``ROBUSTFER_PLUGINS``, hence not loaded.
        seconds: how long it took to load.
        heavy: slow packages that this plugin was the first to import.
    """

    name: str
    distribution: str | None = None
    version: str | None = None
    offers: tuple[Offer, ...] = ()
    errors: tuple[PluginError, ...] = ()
    blocked: bool = False
    seconds: float = 0.0
    heavy: tuple[str, ...] = ()

    def __str__(self) -> str:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"plugin {self.name!r}{origin}"


class Plugins:
    """The core, and the plugins of some entry points, each loaded when it is first looked at.

    Args:
        found: entry points of the plugins.
        allowed: names of the plugins to load; None for all.

    >>> [plugin.name for plugin in Plugins([])]
    ['robustfer']
    """

    def __init__(
        self, found: Iterable[EntryPoint], *, allowed: Iterable[str] | None = None
    ) -> None:
        # An entry point gives way to its Plugin once that is loaded.
        self._places: list[EntryPoint | Plugin] = [CORE, *found]
        self._names = Counter(place.name for place in self._places)
        self._allowed = None if allowed is None else {CORE.name, *allowed}
        missing = sorted((self._allowed or set()).difference(self._names))
        self._places += [EntryPoint(name=name, value="", group=CORE.group) for name in missing]
        self._lock = RLock()

    def __iter__(self) -> Iterator[Plugin]:
        """Give every plugin, the core first."""
        return (self._load(position) for position in range(len(self._places)))

    def named(self, name: str) -> list[Plugin]:
        """Return the plugins that claim a name, and load no other."""
        places = list(enumerate(self._places))
        return [self._load(position) for position, place in places if place.name == name]

    def _load(self, position: int) -> Plugin:
        with self._lock:
            place = self._places[position]
            if isinstance(place, Plugin):
                return place
            known = _known(place)
            # A plugin that asks the registry while it is loaded finds itself still empty.
            self._places[position] = known
            try:
                plugin = self._refused(known, place) or _loaded(known, place)
            except BaseException:  # Ctrl-C: not the plugin's fault, so try again next time
                self._places[position] = place
                raise
            self._places[position] = plugin
        _warn(plugin)
        return plugin

    def _refused(self, known: Plugin, place: EntryPoint) -> Plugin | None:
        """The plugin as it stays if it must not be loaded at all."""
        if self._allowed is not None and known.name not in self._allowed:
            return replace(known, blocked=True)
        if known.name not in self._names:
            why = f"is named by {VARIABLE} but not installed; installed: {sorted(self._names)}"
        elif self._names[known.name] > 1 and place is not CORE:
            why = "has a name that another installed package uses too; uninstall one of them"
        else:
            return None
        return replace(known, errors=(PluginError(f"{known} {why}"),))


def installed() -> Plugins:
    """Return the installed plugins that ``ROBUSTFER_PLUGINS`` now allows, found once a process."""
    return _installed(os.environ.get(VARIABLE))


@lru_cache
def _installed(chosen: str | None) -> Plugins:
    allowed = None if chosen is None else {name.strip() for name in chosen.split(",")} - {""}
    return Plugins(entry_points(group=CORE.group), allowed=allowed)


def _known(entry_point: EntryPoint) -> Plugin:
    """What an entry point tells without being loaded."""
    if entry_point is CORE:
        return Plugin(name=CORE.name, distribution="robustfer", version=__version__)
    if entry_point.dist is None:
        return Plugin(name=entry_point.name)
    try:
        about = entry_point.dist.metadata  # read from its file each time
        return Plugin(name=entry_point.name, distribution=about["Name"], version=about["Version"])
    except Exception:  # half-removed packages have no metadata left; loading it will tell
        return Plugin(name=entry_point.name)


def _loaded(plugin: Plugin, entry_point: EntryPoint) -> Plugin:
    """Import a plugin and collect what it offers and what is wrong with it."""
    offers: list[Offer] = []
    errors: list[PluginError] = []

    @contextmanager
    def kept(what: str) -> Iterator[None]:
        try:
            yield
        except _FaultError as fault:
            errors.append(PluginError(f"{plugin} {fault}"))
        except (Exception, SystemExit) as cause:
            errors.append(PluginError(f"{plugin} {what}: {type(cause).__name__}: {cause}"))
            errors[-1].__cause__ = cause

    absent = [package for package in HEAVY if package not in sys.modules]
    started = time.perf_counter()
    # A manager of its own: pluggy then checks this plugin alone.
    manager = pluggy.PluginManager("robustfer")
    manager.add_hookspecs(hookspecs)
    hooks: dict[str, Kind] = {}
    with kept("failed to load"):
        _check_requirement(entry_point)
        module = entry_point.load()
        manager.register(module, name=plugin.name)
        hooks = _HOOKS
        errors += [PluginError(f"{plugin} {fault}") for fault in _faults(manager, module)]
    for hook, kind in hooks.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            with kept(f"failed in {hook}()"):
                # Called directly: through pluggy a hook that returns None would go unnoticed.
                components = _checked(hook, implementation.function())
                offers += [Offer(plugin=plugin.name, kind=kind, component=c) for c in components]
    names = [offer.component.name for offer in offers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        errors.append(PluginError(f"{plugin} offers more than one component named {twice}"))
    return replace(
        plugin,
        offers=tuple(offer for offer in offers if offer.component.name not in twice),
        errors=tuple(errors),
        seconds=time.perf_counter() - started,
        heavy=tuple(package for package in absent if package in sys.modules),
    )


def _check_requirement(entry_point: EntryPoint) -> None:
    """Refuse a plugin whose distribution asks for another version of robustfer."""
    requirements = entry_point.dist.requires if entry_point.dist is not None else None
    ours = [text for text in requirements or () if text.lower().startswith("robustfer")]
    if not ours:
        return
    # Imported late: it takes as long as all else here, and without plugins nobody needs it.
    from packaging.requirements import Requirement

    for requirement in map(Requirement, ours):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name.lower() != "robustfer" or not wanted:
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            raise _FaultError(
                f"asks for robustfer{requirement.specifier}, but this is robustfer {__version__}; "
                "install another version of either"
            )


def _faults(manager: pluggy.PluginManager, module: object) -> Iterator[str]:
    """What is wrong with the hooks of a registered plugin, as far as can be seen from outside."""
    hooks = manager.get_hookcallers(module) or []
    implemented = [hook.name for hook in hooks]
    known = f"the hooks are {', '.join(_HOOKS)}"
    for hook in hooks:
        if not hook.has_spec() and not all(one.optionalhook for one in hook.get_hookimpls()):
            near = get_close_matches(hook.name, _HOOKS, 1)
            yield f"implements {hook.name}, which is no hook; " + (
                f"did you mean {near[0]}?" if near else known
            )
    unmarked = [hook for hook in _HOOKS if hasattr(module, hook) and hook not in implemented]
    for name in unmarked:
        yield f"defines {name} without @robustfer.hookimpl, so it is not called"
    if not implemented and not unmarked:
        yield f"implements no hook; {known}"


def _checked(hook: str, components: Any) -> list[Component]:
    """Return what a hook returned if it is a list of components."""
    if not isinstance(components, list):
        raise _FaultError(f"must return a list from {hook}(), got {components!r}")
    for position, component in enumerate(components):
        if not isinstance(component, Component):
            raise _FaultError(
                f"must return a list of robustfer.Component from {hook}(), "
                f"got {component!r} at position {position}"
            )
    return components


def _warn(plugin: Plugin) -> None:
    """Warn once about a plugin that has just been loaded, if anything is wrong with it."""
    if plugin.errors:
        more = f" (and {len(plugin.errors) - 1} more)" if len(plugin.errors) > 1 else ""
        warnings.warn(
            f"{plugin.errors[0]}{more}. All else works; `robustfer plugins` tells more.",
            PluginWarning,
            stacklevel=3,
        )
