"""Find and load plugins, each separately and only when it is needed.

A broken plugin never breaks the program. Its error is kept, warned about once, shown by ``robustfer
plugins``, and raised when one of its components is used. Only a ``KeyboardInterrupt`` passes.

The environment variable ``ROBUSTFER_PLUGINS`` chooses plugins. Unset: all installed ones. Empty:
none. Names separated by commas: only these. The core's own components are always available.
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

#: Packages that are slow to import. A plugin can list its components without them.
HEAVY = ("torch", "torchvision", "timm", "kornia", "numpy")

_HOOKS = {f"robustfer_{kind}": kind for kind in KINDS}


class PluginError(RuntimeError):
    """A plugin does not work. Its own exception, if there is one, is the cause."""


class PluginWarning(UserWarning):
    """A plugin does not work, or only in part. Everything else works."""


class _FaultError(Exception):
    """A fault that robustfer found in a plugin. The message continues after the plugin's name."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A component as a plugin offers it.

    Attributes:
        plugin: name of the plugin.
        kind: ``"losses"`` or ``"augmentations"``.
        component: what the plugin's hook returned.
    """

    plugin: str
    kind: Kind
    component: Component

    @property
    def qualified_name(self) -> str:
        """The unique name of this offer, ``plugin:component``."""
        return f"{self.plugin}:{self.component.name}"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin, and the result of loading it.

    Attributes:
        name: name of its entry point.
        distribution: the installed package that it belongs to, if known.
        version: version of that package.
        offers: its components, without those of a hook that failed.
        errors: what is wrong with it.
        blocked: whether ``ROBUSTFER_PLUGINS`` leaves it out, so it was not loaded.
        seconds: time to load it.
        heavy: slow packages that it was the first to import.
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
    """The core and some plugins, each loaded on first use.

    Args:
        found: entry points of the plugins, and packages that cannot be read.
        allowed: names of the plugins to load; ``None`` for all.
    """

    def __init__(
        self, found: Iterable[EntryPoint | Unreadable], *, allowed: Iterable[str] | None = None
    ) -> None:
        # Loading replaces an entry point by its Plugin.
        self._places: list[EntryPoint | Unreadable | Plugin] = [CORE, *found]
        self._names = Counter(one.name for one in self._places if isinstance(one, EntryPoint))
        self._allowed = None if allowed is None else {CORE.name, *allowed}
        self._missing = sorted((self._allowed or set()).difference(self._names))
        self._places += [EntryPoint(name=name, value="", group="") for name in self._missing]
        self._lock = RLock()

    @property
    def names(self) -> list[str]:
        """Names of all installed plugins, the core's first. This loads none."""
        return list(self._names)

    @property
    def only_core(self) -> bool:
        """Whether all plugins are left out."""
        return self._allowed == {CORE.name}

    def __iter__(self) -> Iterator[Plugin]:
        """Yield every plugin, the core first."""
        return (self._load(position) for position in range(len(self._places)))

    def named(self, name: str) -> list[Plugin]:
        """Return the plugins of a name, and load no others."""
        places = [position for position, place in enumerate(self._places) if place.name == name]
        return [self._load(position) for position in places]

    def _load(self, position: int) -> Plugin:
        with self._lock:
            place = self._places[position]
            if isinstance(place, Plugin):
                return place
            known = _known(place)
            # A plugin that uses the registry while it is loaded finds itself empty.
            self._places[position] = known
            try:
                if isinstance(place, Unreadable):
                    plugin = self._unreadable(known, place)
                elif place is CORE:
                    plugin = _loaded(known, place)
                else:
                    plugin = self._refused(known) or _loaded(known, place)
            except BaseException:
                # Ctrl-C is not the plugin's fault, so try again next time.
                self._places[position] = place
                raise
            self._places[position] = plugin
        _warn(plugin)
        return plugin

    def _unreadable(self, known: Plugin, place: Unreadable) -> Plugin:
        """Return a plugin that stands for a package that cannot be read."""
        # The package may hold a plugin that is needed and missing.
        if self._allowed is None or self._missing:
            return replace(known, errors=(PluginError(str(place)),))
        return replace(known, blocked=True)

    def _refused(self, known: Plugin) -> Plugin | None:
        """Return the plugin without loading it, if it must not be loaded, else ``None``."""
        if self._allowed is not None and known.name not in self._allowed:
            return replace(known, blocked=True)
        if known.name in self._missing:
            why = (
                f"is named by {VARIABLE} but not installed; the entry-point group "
                f"{_entry_points.GROUP!r} has {sorted(self._names)}"
            )
        elif not re.fullmatch(r"\w[\w.-]*", known.name):
            why = "must have a name of letters, digits, '-', '_' and '.'"
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
    # If only the core is allowed, no file of another package is read.
    return Plugins(_entry_points.find() if allowed - {CORE.name} else (), allowed=allowed)


@contextmanager
def torch_importable() -> Iterator[None]:
    """Make torch importable when an installed package is damaged.

    On its first import torch looks for backends in all installed packages, and raises if one cannot
    be read. An environment variable of torch switches this off.
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
    """Return what is known of an entry point without loading it."""
    if place is CORE:
        return Plugin(name=CORE.name, distribution="robustfer", version=__version__)
    if isinstance(place, Unreadable):
        return Plugin(name=place.name, distribution=place.name)
    if place.dist is None:
        return Plugin(name=place.name)
    try:
        # Each access reads the file.
        about = place.dist.metadata
        return Plugin(name=place.name, distribution=about["Name"], version=about["Version"])
    except Exception:
        # A half-removed package has no metadata. Loading it reports the error.
        return Plugin(name=place.name)


def _loaded(plugin: Plugin, entry_point: EntryPoint) -> Plugin:
    """Import a plugin, and collect its components and errors."""
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
        # A separate manager, so pluggy checks only this plugin.
        manager = pluggy.PluginManager("robustfer")
        manager.add_hookspecs(hookspecs)
        manager.register(module, name=plugin.name)
        implementations = [
            (hook, one) for hook in _HOOKS for one in getattr(manager.hook, hook).get_hookimpls()
        ]
        errors += [PluginError(f"{plugin} {fault}") for fault in _faults(manager, module)]
    for hook, implementation in implementations:
        with kept(f"failed in {hook}()"):
            # Called directly, because pluggy drops a result of None.
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
    """Require that the plugin's distribution allows this version of robustfer."""
    requirements = entry_point.dist.requires if entry_point.dist is not None else None
    ours = [text for text in requirements or () if text.lower().startswith("robustfer")]
    if not ours:
        return
    # Imported here, because it is slow and needed only with plugins.
    from packaging.requirements import Requirement

    for requirement in map(Requirement, ours):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        fits = requirement.specifier.contains(__version__, prereleases=True)
        if requirement.name.lower() == "robustfer" and wanted and not fits:
            raise _FaultError(
                f"requires robustfer{requirement.specifier}, but this is robustfer {__version__}; "
                "install another version of one of them"
            )


def _faults(manager: pluggy.PluginManager, module: object) -> Iterator[str]:
    """Yield what is wrong with the hooks of a registered plugin."""
    hooks = manager.get_hookcallers(module) or []
    implemented = [hook.name for hook in hooks]
    known = f"the hooks are {', '.join(_HOOKS)}"
    for hook in hooks:
        if not hook.has_spec() and not all(one.optionalhook for one in hook.get_hookimpls()):
            hint = _shown.near(hook.name, _HOOKS) or f"; {known}"
            yield f"implements {hook.name}, which is not a hook{hint}"
    unmarked = [hook for hook in _HOOKS if hasattr(module, hook) and hook not in implemented]
    for name in unmarked:
        yield f"defines {name} without @robustfer.hookimpl, so it is not called"
    if not implemented and not unmarked:
        yield f"implements no hook; {known}"


def _checked(hook: str, components: Any) -> list[Component]:
    """Return new copies of the components that a hook returned, or raise for anything else."""
    if not isinstance(components, list):
        raise _FaultError(f"must return a list from {hook}(), got {_shown.value(components)}")
    for position, component in enumerate(components):
        if not isinstance(component, Component):
            raise _FaultError(
                f"must return a list of robustfer.Component from {hook}(), "
                f"got {_shown.value(component)} at position {position}"
            )
    # New, because a subclass may skip the checks, and the list may change later.
    return [
        Component(name=c.name, factory=c.factory, summary=c.summary, reference=c.reference)
        for c in components
    ]


def _warn(plugin: Plugin) -> None:
    """Warn once about a plugin that has just been loaded, if anything is wrong with it."""
    if plugin.errors:
        more = f" (and {len(plugin.errors) - 1} more)" if len(plugin.errors) > 1 else ""
        warnings.warn(
            f"{plugin.errors[0]}{more}. Everything else works; `robustfer plugins` shows details.",
            PluginWarning,
            stacklevel=3,
        )
