"""Find and load plugins, each separately and only when it is needed: none breaks the host.

What goes wrong with a plugin is kept, warned about once, shown by ``robustfer plugins`` and raised
where one of its components is used; only a ``KeyboardInterrupt``, the user's, passes through.
The environment variable ``ROBUSTFER_PLUGINS`` chooses: unset, all installed plugins; empty, none;
names with commas between, only these. The core's own components are always there.
"""

from __future__ import annotations

import os
import re
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

from robustfer import __version__, _entry_points, _shown, hookspecs
from robustfer._entry_points import Unreadable
from robustfer.hookspecs import KINDS, Component, Kind

VARIABLE = "ROBUSTFER_PLUGINS"
CORE = EntryPoint(name="robustfer", value="robustfer._builtin", group=_entry_points.GROUP)

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
    """What is known of one entry point, and what became of it."""

    name: str
    distribution: str | None = None  # the installed package that has it, where known
    version: str | None = None
    offers: tuple[Offer, ...] = ()  # less what a hook that failed would have
    errors: tuple[PluginError, ...] = ()
    blocked: bool = False  # left out by ROBUSTFER_PLUGINS, hence not loaded
    seconds: float = 0.0  # that it took to load
    heavy: tuple[str, ...] = ()  # slow packages that this plugin was the first to import

    def __str__(self) -> str:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"plugin {self.name!r}{origin}"


class Plugins:
    """The core, and the plugins of some entry points, each loaded when it is first looked at.

    Args:
        found: entry points of the plugins, and packages that cannot be read.
        allowed: names of the plugins to load; None for all.
    """

    def __init__(
        self, found: Iterable[EntryPoint | Unreadable], *, allowed: Iterable[str] | None = None
    ) -> None:
        # An entry point gives way to its Plugin once that is loaded.
        self._places: list[EntryPoint | Unreadable | Plugin] = [CORE, *found]
        self._names = Counter(one.name for one in self._places if isinstance(one, EntryPoint))
        self._allowed = None if allowed is None else {CORE.name, *allowed}
        self._missing = sorted((self._allowed or set()).difference(self._names))
        self._places += [EntryPoint(name=name, value="", group="") for name in self._missing]
        self._lock = RLock()

    @property
    def names(self) -> list[str]:
        """Names of all that are installed, the core's first; none is loaded."""
        return list(self._names)

    @property
    def only_core(self) -> bool:
        """Whether all plugins are left out, so that none was looked for."""
        return self._allowed == {CORE.name}

    def __iter__(self) -> Iterator[Plugin]:
        """Give every plugin, the core first."""
        return (self._load(position) for position in range(len(self._places)))

    def named(self, name: str) -> list[Plugin]:
        """Return the plugins that claim a name, and load no other."""
        places = [position for position, place in enumerate(self._places) if place.name == name]
        return [self._load(position) for position in places]

    def _load(self, position: int) -> Plugin:
        with self._lock:
            place = self._places[position]
            if isinstance(place, Plugin):
                return place
            known = _known(place)
            # A plugin that asks the registry while it is loaded finds itself still empty.
            self._places[position] = known
            try:
                if isinstance(place, Unreadable):
                    plugin = self._unreadable(known, place)
                elif place is CORE:
                    plugin = _loaded(known, place)
                else:
                    plugin = self._refused(known) or _loaded(known, place)
            except BaseException:  # Ctrl-C: not the plugin's fault, so try again next time
                self._places[position] = place
                raise
            self._places[position] = plugin
        _warn(plugin)
        return plugin

    def _unreadable(self, known: Plugin, place: Unreadable) -> Plugin:
        """The plugin that stands for a package which cannot be read."""
        # It may hold a plugin that is needed and not found.
        if self._allowed is None or self._missing:
            return replace(known, errors=(PluginError(str(place)),))
        return replace(known, blocked=True)

    def _refused(self, known: Plugin) -> Plugin | None:
        """The plugin as it stays if it must not be loaded."""
        if self._allowed is not None and known.name not in self._allowed:
            return replace(known, blocked=True)
        if known.name in self._missing:
            why = f"is named by {VARIABLE} but not installed; installed: {sorted(self._names)}"
        elif not re.fullmatch(r"\w[\w.-]*", known.name):
            why = "has a name that must be letters, digits, '-', '_' and '.'"
        elif self._names[known.name] > 1:
            why = "has a name that is installed more than once; uninstall one of the packages"
        else:
            return None
        return replace(known, errors=(PluginError(f"{known} {why}"),))


def installed() -> Plugins:
    """Return the installed plugins that ``ROBUSTFER_PLUGINS`` allows, found once per process."""
    return _installed(os.environ.get(VARIABLE))


@lru_cache
def _installed(chosen: str | None) -> Plugins:
    if chosen is None:
        return Plugins(_entry_points.find())
    allowed = {name.strip() for name in chosen.split(",")} - {""}
    # With none allowed no file of another package is read.
    return Plugins(_entry_points.find() if allowed - {CORE.name} else (), allowed=allowed)


@contextmanager
def torch_importable() -> Iterator[None]:
    """Let torch be imported where a damaged package would stop it.

    When torch is first imported it looks for backends in all installed packages, and raises if one
    cannot be read. Its own switch leaves them out.
    """
    switch = "TORCH_DEVICE_BACKEND_AUTOLOAD"
    damaged: list[str] = []
    if "torch" not in sys.modules and switch not in os.environ:
        try:
            entry_points(group="torch.backends")
        except Exception:
            damaged = [str(one) for one in _entry_points.find() if isinstance(one, Unreadable)]
    if not damaged:
        yield
        return
    text = f"torch is imported without the backends of other packages: {'; '.join(damaged)}"
    warnings.warn(text, PluginWarning, stacklevel=4)
    os.environ[switch] = "0"
    try:
        yield
    finally:
        del os.environ[switch]


def _known(place: EntryPoint | Unreadable) -> Plugin:
    """What an entry point tells without being loaded."""
    if place is CORE:
        return Plugin(name=CORE.name, distribution="robustfer", version=__version__)
    if isinstance(place, Unreadable):
        return Plugin(name=place.name, distribution=place.name)
    if place.dist is None:
        return Plugin(name=place.name)
    try:
        about = place.dist.metadata  # read from its file each time
        return Plugin(name=place.name, distribution=about["Name"], version=about["Version"])
    except Exception:  # half-removed packages have no metadata left; loading it will tell
        return Plugin(name=place.name)


def _loaded(plugin: Plugin, entry_point: EntryPoint) -> Plugin:
    """Import a plugin and collect what it offers and what is wrong with it."""
    offers: list[Offer] = []
    errors: list[PluginError] = []

    @contextmanager
    def kept(what: str) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            raise
        except _FaultError as fault:
            errors.append(PluginError(f"{plugin} {fault}"))
        except BaseException as cause:
            errors.append(PluginError(f"{plugin} {what}: {_shown.error(cause)}"))
            errors[-1].__cause__ = cause

    absent = [package for package in HEAVY if package not in sys.modules]
    started = time.perf_counter()
    implementations: list[tuple[str, pluggy.HookImpl]] = []
    with kept("failed to load"):
        _check_requirement(entry_point)
        module = entry_point.load()
        # A manager of its own: pluggy then checks only this plugin.
        manager = pluggy.PluginManager("robustfer")
        manager.add_hookspecs(hookspecs)
        manager.register(module, name=plugin.name)
        implementations = [
            (hook, one) for hook in _HOOKS for one in getattr(manager.hook, hook).get_hookimpls()
        ]
        errors += [PluginError(f"{plugin} {fault}") for fault in _faults(manager, module)]
    for hook, implementation in implementations:
        with kept(f"failed in {hook}()"):
            # Called directly: through pluggy a hook that returns None would go unnoticed.
            offers += [
                Offer(plugin=plugin.name, kind=_HOOKS[hook], component=component)
                for component in _checked(hook, implementation.function())
            ]
    count = Counter(offer.component.name for offer in offers)
    twice = sorted(name for name, times in count.items() if times > 1)
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
    """Refuse a plugin whose distribution requires another version of robustfer."""
    requirements = entry_point.dist.requires if entry_point.dist is not None else None
    ours = [text for text in requirements or () if text.lower().startswith("robustfer")]
    if not ours:
        return
    # Imported late: it takes as long as all else here, and without plugins nobody needs it.
    from packaging.requirements import Requirement

    for requirement in map(Requirement, ours):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        fits = requirement.specifier.contains(__version__, prereleases=True)
        if requirement.name.lower() == "robustfer" and wanted and not fits:
            raise _FaultError(
                f"requires robustfer{requirement.specifier}, but this is robustfer {__version__}; "
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
            yield f"implements {hook.name}, which is not a hook; " + (
                f"did you mean {near[0]}?" if near else known
            )
    unmarked = [hook for hook in _HOOKS if hasattr(module, hook) and hook not in implemented]
    for name in unmarked:
        yield f"defines {name} without @robustfer.hookimpl, so it is not called"
    if not implemented and not unmarked:
        yield f"implements no hook; {known}"


def _checked(hook: str, components: Any) -> list[Component]:
    """Return what a hook returned, made anew, if it is a list of components."""
    if not isinstance(components, list):
        raise _FaultError(f"must return a list from {hook}(), got {_shown.value(components)}")
    for position, component in enumerate(components):
        if not isinstance(component, Component):
            raise _FaultError(
                f"must return a list of robustfer.Component from {hook}(), "
                f"got {_shown.value(component)} at position {position}"
            )
    # A subclass may have left out the checks, and the list may change later.
    return [
        Component(name=c.name, factory=c.factory, summary=c.summary, reference=c.reference)
        for c in components
    ]


def _warn(plugin: Plugin) -> None:
    """Warn once about a plugin that has just been loaded, if anything is wrong with it."""
    if plugin.errors:
        more = f" (and {len(plugin.errors) - 1} more)" if len(plugin.errors) > 1 else ""
        warnings.warn(
            f"{plugin.errors[0]}{more}. All else works; `robustfer plugins` tells more.",
            PluginWarning,
            stacklevel=3,
        )
