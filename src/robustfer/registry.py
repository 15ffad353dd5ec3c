"""Losses and augmentations by name: the core's and the plugins', all alike.

A bare name such as ``"eac"`` is enough if only one plugin offers it; ``"robustfer:eac"`` says
whose is meant. One name means one component, whichever kind it is.
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
from robustfer.plugins import Offer, Plugin, PluginError

__all__ = ["available", "create", "describe"]


class UnknownComponentError(LookupError):
    """Nobody offers a component of this name."""


class AmbiguousComponentError(LookupError):
    """More than one plugin offers a component of this name."""


def available(kind: Kind | None = None) -> dict[str, Offer]:
    """Return all components, or those of one kind, under the names that :func:`create` takes.

    Neither torch nor any component is imported. A name that two plugins offer is listed under
    their full names instead.

    Raises:
        ValueError: no such kind.

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
    """Return what a component takes, gives and rests on; imports it, but makes none.

    Raises:
        UnknownComponentError: nobody offers it.
        AmbiguousComponentError: more than one plugin does.
        PluginError: its plugin does not work, or its factory cannot be imported.

    >>> [str(option) for option in describe("eac").options]
    ['consistency_weight=5.0', 'label_smoothing=0.0']
    >>> describe("eac").tensors[0]
    TensorArgument(name='logits', shape='(B, C)', required=True)
    """
    plugin, offer = _find(name)
    factory = _factory(plugin, offer)
    with _named(plugin, offer, "cannot be described"):
        return describe_offer(plugin, offer, factory)


def create(name: str, /, **options: Any) -> Any:
    """Make a component from its name and options.

    Args:
        name: ``"eac"``, or ``"robustfer:eac"`` to say whose.
        options: keyword arguments of its factory.

    Raises:
        UnknownComponentError: nobody offers it.
        AmbiguousComponentError: more than one plugin does.
        PluginError: its plugin does not work, or its factory cannot be imported.
        TypeError: an option that it does not have, one that it needs is missing, or a name that is
            not text.

    >>> create("eac", consistency_weight=2.0)
    EACLoss(consistency_weight=2.0, label_smoothing=0.0)
    >>> create("eac", consistency_wieght=2.0)  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    ...
    TypeError: 'eac' has no option 'consistency_wieght'; did you mean 'consistency_weight'?
    Its options: consistency_weight=5.0, label_smoothing=0.0
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
    except BaseException as error:  # such as SystemExit: it would end the program without a word
        raise PluginError(f"{plugin} fails to make {name!r}: {_shown.error(error)}") from error
    if not callable(component):
        raise PluginError(
            f"{plugin} must make a callable as {name!r}, made {_shown.value(component)}"
        )
    if offer.kind == "losses" and hasattr(component, "parameters"):
        # Late: whoever made a loss has torch already, whoever lists them need not.
        from robustfer.losses import warn_if_not_optimized

        warn_if_not_optimized(component)
    return component


def _find(name: str) -> tuple[Plugin, Offer]:
    """The one component of that name, and its plugin."""
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
    """Say why there is no such component: a misspelt name, or a plugin that is out of order."""
    owner, _, bare = name.rpartition(":")
    installed = plugins.installed()
    unknown_owner = bool(owner) and not candidates
    if unknown_owner:  # packages that cannot be read may hold it
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
        problem = f"no {f'component of {owner}' if owner else 'component'} is called {bare!r}"
    also = f" These may offer it, but cannot: {'; '.join(troubles)}" if troubles else ""
    # Of several failures none is more likely to be the one looked for: the text has them all.
    cause = causes[0] if len(causes) == 1 else None
    raise UnknownComponentError(f"{problem}; {hint}{also}") from cause


@contextmanager
def _named(plugin: Plugin, offer: Offer, problem: str) -> Iterator[None]:
    """Name the plugin in every error of its component; an interrupt passes through."""
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
    """The factory of a component, imported if it is given as text."""
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
    """Refuse options that a factory does not have, and the lack of those it needs."""
    has = options_of(signature)
    its = f"Its options: {', '.join(map(str, has)) or 'none'}"
    named = [option.name for option in has]
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in signature.parameters.values())
    for option in options:
        if option not in named and not takes_any:
            near = get_close_matches(option, named, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise TypeError(f"{name!r} has no option {option!r}; {hint}{its}")
    missing = [option.name for option in has if option.required and option.name not in options]
    if missing:
        raise TypeError(f"{name!r} needs {', '.join(map(repr, missing))}. {its}")
