"""Find and create losses and augmentations by name, from the core and from plugins.

A bare name such as ``"eac"`` is enough if only one plugin offers it. ``"robustfer:eac"`` also names
the plugin. Losses and augmentations share one space of names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, Signature
from typing import Any, NoReturn

from robustfer import _shown, plugins
from robustfer._description import Description as Description
from robustfer._description import describe_offer, options_of, signature_of
from robustfer.hookspecs import KINDS, Kind
from robustfer.plugins import Offer as Offer
from robustfer.plugins import Plugin, PluginError

__all__ = ["available", "create", "describe"]


class UnknownComponentError(LookupError):
    """No plugin offers a component of this name."""


class AmbiguousComponentError(LookupError):
    """More than one plugin offers a component of this name."""


def available(kind: Kind | None = None) -> dict[str, Offer]:
    """Return all components, or those of one kind, by the names that :func:`create` takes.

    It imports neither torch nor components. If several plugins offer a name, it lists their full
    names instead.

    Raises:
        ValueError: ``kind`` is unknown.

    >>> "eac" in available("losses")
    True
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)} or None, got {kind!r}")
    offers = [offer for plugin in plugins.installed() for offer in plugin.offers]
    count = Counter(offer.component.name for offer in offers)
    named = {
        offer.component.name if count[offer.component.name] == 1 else offer.qualified_name: offer
        for offer in offers
    }
    return {name: named[name] for name in sorted(named) if kind in (None, named[name].kind)}


def describe(name: str) -> Description:
    """Return options, tensors and reference of a component. It imports but does not create it.

    Raises:
        UnknownComponentError: no plugin offers it.
        AmbiguousComponentError: more than one plugin offers it.
        PluginError: its plugin does not work, or its factory cannot be imported.

    >>> [str(option) for option in describe("eac").options]
    ['consistency_weight=5.0', 'label_smoothing=0.0', 'class_weights=None']
    >>> describe("eac").tensors[0]
    TensorArgument(name='logits', shape='(B, C)', required=True)
    """
    plugin, offer = _find(name)
    factory = _factory(plugin, offer)
    with _named(plugin, offer, "cannot be described"):
        return describe_offer(plugin, offer, factory)


def create(name: str, /, **options: Any) -> Any:
    """Create a component from its name and options.

    Args:
        name: ``"eac"``, or ``"robustfer:eac"`` to name the plugin too.
        options: keyword arguments of its factory.

    Raises:
        UnknownComponentError: no plugin offers it.
        AmbiguousComponentError: more than one plugin offers it.
        PluginError: its plugin does not work, or its factory cannot be imported.
        TypeError: an option is unknown or missing, or ``name`` is not text.

    >>> create("eac", consistency_weight=2.0)
    EACLoss(consistency_weight=2.0, label_smoothing=0.0)
    >>> create("eac", consistency_wieght=2.0)  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    ...
    TypeError: 'eac' has no option 'consistency_wieght'; did you mean 'consistency_weight'?
    Its options: consistency_weight=5.0, label_smoothing=0.0, class_weights=None
    """
    plugin, offer = _find(name)
    factory = _factory(plugin, offer)
    with _named(plugin, offer, "has no signature that can be read"):
        signature = signature_of(factory)
    if signature is not None:
        _check_options(name, signature, options)
    try:
        component = factory(**options)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        # SystemExit would end the program without a message.
        raise PluginError(f"{plugin} fails to make {name!r}: {_shown.error(error)}") from error
    if not callable(component):
        raise PluginError(
            f"{plugin} must make a callable as {name!r}, got {_shown.value(component)}"
        )
    if offer.kind == "losses" and hasattr(component, "parameters"):
        # Imported here, because listing components must not import torch.
        from robustfer.losses.parameters import warn_if_not_optimized

        warn_if_not_optimized(component)
    return component


def _find(name: str) -> tuple[Plugin, Offer]:
    """Return the component of a name, and its plugin."""
    if not isinstance(name, str):
        raise TypeError(f"name must be text such as 'eac', got {name!r}")
    owner, _, bare = name.rpartition(":")
    installed = plugins.installed()
    candidates = installed.named(owner) if owner else list(installed)
    offers = ((plugin, offer) for plugin in candidates for offer in plugin.offers)
    found = [(plugin, offer) for plugin, offer in offers if offer.component.name == bare]
    if not found:
        _raise_unknown(name, candidates)
    if len(found) > 1:
        names = sorted(repr(offer.qualified_name) for _, offer in found)
        raise AmbiguousComponentError(
            f"{name!r} is offered by {sorted(plugin.name for plugin, _ in found)}; "
            f"use one of them: {', '.join(names)}"
        )
    return found[0]


def _raise_unknown(name: str, candidates: list[Plugin]) -> NoReturn:
    """Raise an error that says why: the name is misspelt, or a plugin does not work."""
    owner, _, bare = name.rpartition(":")
    installed = plugins.installed()
    unknown_owner = bool(owner) and not candidates
    if unknown_owner:
        # It may be in a package that cannot be read.
        candidates = [plugin for plugin in installed if plugin.name not in installed.names]
    troubles = [str(error) for plugin in candidates for error in plugin.errors]
    troubles += [
        f"{plugin} is left out by {plugins.VARIABLE}" for plugin in candidates if plugin.blocked
    ]
    causes = [error.__cause__ or error for plugin in candidates for error in plugin.errors]
    if installed.only_core and owner != plugins.CORE.name:
        troubles.append(f"{plugins.VARIABLE} leaves out all plugins")
    if owner and troubles and not unknown_owner:
        first = causes[0] if causes else None
        raise PluginError(f"{name!r} is not available: {'; '.join(troubles)}") from first

    offers = available()
    pool = {key: offer for key, offer in offers.items() if offer.plugin == owner} or offers
    close = get_close_matches(bare.lower(), {one.component.name for one in pool.values()})
    near = [repr(key) for key, offer in pool.items() if offer.component.name in close]
    hint = f"did you mean {' or '.join(near)}?" if near else "`robustfer list` shows all"
    if unknown_owner:
        problem = f"no plugin {owner!r} is installed, so {name!r} is unknown"
    else:
        problem = f"no {f'component of {owner}' if owner else 'component'} is named {bare!r}"
    also = f" A plugin that does not work may offer it: {'; '.join(troubles)}" if troubles else ""
    # With several failures no cause is more likely than another. The message has them all.
    cause = causes[0] if len(causes) == 1 else None
    raise UnknownComponentError(f"{problem}; {hint}{also}") from cause


@contextmanager
def _named(plugin: Plugin, offer: Offer, problem: str) -> Iterator[None]:
    """Name the plugin in every error of its component. A KeyboardInterrupt passes through."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = offer.component.factory
        where = f" as {text!r}" if isinstance(text, str) else ""
        raise PluginError(
            f"{plugin} offers {offer.component.name!r}{where}, which {problem}: "
            f"{_shown.error(error)}"
        ) from error


def _factory(plugin: Plugin, offer: Offer) -> Callable[..., Any]:
    """Return the factory of a component, imported if it is given as text."""
    factory = offer.component.factory
    if callable(factory):
        return factory
    module, _, attribute = factory.partition(":")
    with _named(plugin, offer, "cannot be imported"), plugins.torch_importable():
        found = getattr(import_module(module), attribute)
    if not callable(found):
        raise PluginError(
            f"{plugin} offers {offer.component.name!r} as {factory!r}, which is not a class or "
            f"function but {_shown.value(found)}"
        )
    return found  # type: ignore[no-any-return]


def _check_options(name: str, signature: Signature, options: Mapping[str, object]) -> None:
    """Require that a factory has all given options, and that all required ones are given."""
    has = options_of(signature)
    its = f"Its options: {', '.join(map(str, has)) or 'none'}"
    named = [option.name for option in has]
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in signature.parameters.values())
    for option in options:
        if option not in named and not takes_any:
            hint = _shown.near(option, named) or "."
            raise TypeError(f"{name!r} has no option {option!r}{hint} {its}")
    missing = [option.name for option in has if option.required and option.name not in options]
    if missing:
        raise TypeError(f"{name!r} needs {', '.join(map(repr, missing))}. {its}")
