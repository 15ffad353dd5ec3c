"""Read from signature and docstring of a component's factory what it takes and returns."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

from robustfer import _docstrings, _shown
from robustfer.hookspecs import Kind
from robustfer.plugins import Offer, Plugin

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, kw_only=True)
class Option:
    """A keyword of a component's factory, with its meaning from the docstring.

    ``default`` has no meaning for a required option.
    """

    name: str
    annotation: str
    default: Any
    required: bool
    meaning: str

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={_shown.value(self.default)}"


@dataclass(frozen=True, kw_only=True)
class TensorArgument:
    """A tensor that ``forward`` takes, with its shape from the docstring."""

    name: str
    shape: str
    required: bool


@dataclass(frozen=True, kw_only=True)
class StateMethod:
    """How and when a loop calls ``propose`` or ``update`` of a loss with state."""

    signature: str
    when: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """Description of a component, from its plugin, signature and docstring.

    If the factory is a function, they come from the class of its return type. Without such a class,
    the tensors and the result come from ``Shape:`` of the function's docstring.

    Attributes:
        name: full name, ``plugin:component``.
        kind: ``"losses"`` or ``"augmentations"``.
        summary: one line of text.
        reference: paper, venue, year.
        signature: signature of the factory.
        options: keywords of the factory.
        tensors: tensors that ``forward`` takes.
        result: what ``forward`` returns.
        state: methods of a loss with state.
        source: place of the factory, ``package.module:attribute``.
        plugin: name of the plugin.
        distribution: package of the plugin, if known.
        version: version of that package.
    """

    name: str
    kind: Kind
    summary: str
    reference: str
    signature: str
    options: tuple[Option, ...]
    tensors: tuple[TensorArgument, ...]
    result: str
    state: tuple[StateMethod, ...]
    source: str
    plugin: str
    distribution: str | None
    version: str | None


def describe_offer(plugin: Plugin, offer: Offer, factory: Callable[..., Any]) -> Description:
    """Return the description of an offer."""
    signature = signature_of(factory)
    made = _made_by(factory)
    tensors, result = _tensors_and_result(made, factory)
    name = getattr(factory, "__qualname__", type(factory).__name__)
    source = offer.component.factory
    return Description(
        name=offer.qualified_name,
        kind=offer.kind,
        summary=offer.component.summary,
        reference=offer.component.reference,
        signature=name + _signature_text(signature),
        options=options_of(signature, inspect.getdoc(factory) or ""),
        tensors=tensors,
        result=result.removesuffix("."),
        state=_state_methods(made),
        source=source if isinstance(source, str) else f"{factory.__module__}:{name}",
        plugin=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
    )


def signature_of(factory: Any) -> inspect.Signature | None:
    """Return the signature of a callable, or ``None`` (some callables in C have none)."""
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def options_of(signature: inspect.Signature | None, docstring: str = "") -> tuple[Option, ...]:
    """Return the keywords of a factory."""
    if signature is None:
        return ()
    meanings = _docstrings.arguments(docstring)
    return tuple(
        Option(
            name=parameter.name,
            annotation=_annotation(parameter),
            default=parameter.default,
            required=parameter.default is parameter.empty,
            meaning=meanings.get(parameter.name, ""),
        )
        for parameter in signature.parameters.values()
        if parameter.kind not in _VARIADIC
    )


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _signature_text(signature: inspect.Signature | None) -> str:
    if signature is None:
        return "(...)"
    parameters = [
        one if one.default is one.empty else one.replace(default=_Shown(one.default))
        for one in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=signature.empty))
    # Postponed annotations are texts. Remove their quotes.
    return re.sub(r""": (['"])(.*?)\1(?= = |, |\))""", r": \2", text)


class _Shown(NamedTuple):
    """A value whose repr is a safe text of it."""

    value: object

    def __repr__(self) -> str:
        return _shown.value(self.value)


def _made_by(factory: Callable[..., Any]) -> type | None:
    """Return the class that a factory makes, or ``None`` if it is not known."""
    made: object = factory
    if not inspect.isclass(factory):
        try:
            made = get_type_hints(factory).get("return")
        except Exception:
            # Names may be imported only for type checkers, and the factory may be any object.
            return None
    return made if inspect.isclass(made) else None


def _tensors_and_result(
    made: type | None, factory: Callable[..., Any]
) -> tuple[tuple[TensorArgument, ...], str]:
    """Return what ``forward`` takes and returns, from the class or the function's docstring."""
    texts = [inspect.getdoc(one) or "" for one in (made, factory) if one is not None]
    text = next((text for text in texts if _docstrings.section(text, "Shape")), "")
    parameters = _tensor_parameters(made)
    required = {one.name: one.default is one.empty for one in parameters}
    if not parameters:
        required = dict.fromkeys(_docstrings.names_with_shape(text), True)
    shapes, result = _docstrings.shapes(text, list(required))
    return tuple(
        TensorArgument(name=name, shape=shapes[name], required=needed)
        for name, needed in required.items()
    ), result


def _tensor_parameters(made: type | None) -> list[inspect.Parameter]:
    """Return the parameters of ``forward`` that are tensors or have no annotation."""
    signature = signature_of(getattr(made, "forward", None))
    if signature is None:
        return []
    return [
        parameter
        for parameter in list(signature.parameters.values())[1:]
        if parameter.kind not in _VARIADIC
        and (not (annotation := _annotation(parameter)) or "Tensor" in annotation)
    ]


def _state_methods(made: type | None) -> tuple[StateMethod, ...]:
    """Return the state methods of a loss, and when a loop calls them."""
    forward = signature_of(getattr(made, "forward", None))
    update = signature_of(getattr(made, "update", None))
    if forward is None or update is None:
        return ()
    # update(index, ROWS) and forward(..., ROWS) share the name of what propose returns.
    rows = [name for name in list(update.parameters)[2:] if name in forward.parameters]
    times = {
        "propose": "before forward" + (f", which takes the result as {rows[0]}" if rows else ""),
        "update": "after the optimizer's step",
    }
    return tuple(
        StateMethod(
            signature=name + _names_text(signature),
            when=when,
            meaning=_docstrings.first_paragraph(inspect.getdoc(getattr(made, name)) or ""),
        )
        for name, when in times.items()
        if (signature := signature_of(getattr(made, name, None))) is not None
    )


def _names_text(signature: inspect.Signature) -> str:
    """Return the signature of a method without ``self`` and annotations."""
    bare = [one.replace(annotation=one.empty) for one in list(signature.parameters.values())[1:]]
    return _signature_text(inspect.Signature(bare))
