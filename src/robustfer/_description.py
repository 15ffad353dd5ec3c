"""What a component takes and gives, read from its factory's signature and docstring."""

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
    """A keyword that makes a component, with what the docstring says of it."""

    name: str
    annotation: str
    default: Any  # without meaning where required
    required: bool
    meaning: str

    def __str__(self) -> str:
        return self.name if self.required else f"{self.name}={_shown.value(self.default)}"


@dataclass(frozen=True, kw_only=True)
class TensorArgument:
    """A tensor that ``forward`` takes, with what the docstring's ``Shape:`` says of it."""

    name: str
    shape: str
    required: bool


@dataclass(frozen=True, kw_only=True)
class StateMethod:
    """How and when a loop calls ``propose`` or ``update`` of a loss that remembers its samples."""

    signature: str
    when: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of a component before one is made: from its plugin, signature and docstring.

    The tensors of a factory that is a function are known only if its return type is annotated.
    """

    name: str  # plugin:component
    kind: Kind
    summary: str
    reference: str
    signature: str
    options: tuple[Option, ...]
    tensors: tuple[TensorArgument, ...]
    result: str
    state: tuple[StateMethod, ...]
    source: str  # package.module:attribute
    plugin: str
    distribution: str | None
    version: str | None


def describe_offer(plugin: Plugin, offer: Offer, factory: Callable[..., Any]) -> Description:
    """Put together what plugin, component, signature and docstrings tell."""
    signature = signature_of(factory)
    made = _made_by(factory)
    tensors = _tensor_parameters(made)
    shapes, result = _docstrings.shapes(
        inspect.getdoc(made) or "", [tensor.name for tensor in tensors]
    )
    name = getattr(factory, "__qualname__", type(factory).__name__)
    source = offer.component.factory
    return Description(
        name=offer.qualified_name,
        kind=offer.kind,
        summary=offer.component.summary,
        reference=offer.component.reference,
        signature=name + _signature_text(signature),
        options=options_of(signature, inspect.getdoc(factory) or ""),
        tensors=tuple(
            TensorArgument(name=one.name, shape=shapes[one.name], required=one.default is one.empty)
            for one in tensors
        ),
        result=result.removesuffix("."),
        state=_state_methods(made),
        source=source if isinstance(source, str) else f"{factory.__module__}:{name}",
        plugin=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
    )


def signature_of(factory: Any) -> inspect.Signature | None:
    """Return the signature of a callable, or None for one that has none (some written in C)."""
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):
        return None


def options_of(signature: inspect.Signature | None, docstring: str = "") -> tuple[Option, ...]:
    """Return the keywords that a factory names."""
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
    # Postponed annotations are text, which would be shown in quotes.
    return re.sub(r""": (['"])(.*?)\1(?= = |, |\))""", r": \2", text)


class _Shown(NamedTuple):
    """Has the text of a value as its repr, in place of the value's own."""

    value: object

    def __repr__(self) -> str:
        return _shown.value(self.value)


def _made_by(factory: Callable[..., Any]) -> type | None:
    """The class of what a factory makes, where it says."""
    made: object = factory
    if not inspect.isclass(factory):
        try:
            made = get_type_hints(factory).get("return")
        except Exception:  # names imported only for type checkers; partial objects; any code
            return None
    return made if inspect.isclass(made) else None


def _tensor_parameters(made: type | None) -> list[inspect.Parameter]:
    """The parameters of ``forward`` that are tensors, or may be for all that it says."""
    signature = signature_of(getattr(made, "forward", None))
    if signature is None:
        return []
    return [
        parameter
        for parameter in list(signature.parameters.values())[1:]  # without self
        if parameter.kind not in _VARIADIC
        and (not (annotation := _annotation(parameter)) or "Tensor" in annotation)
    ]


def _state_methods(made: type | None) -> tuple[StateMethod, ...]:
    """The methods through which a loss remembers, and when a loop calls them."""
    forward = signature_of(getattr(made, "forward", None))
    update = signature_of(getattr(made, "update", None))
    if forward is None or update is None:
        return ()
    # update(index, ROWS) and forward(..., ROWS) have one name for what propose returns.
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
    """The signature of a method without ``self`` and annotations."""
    bare = [one.replace(annotation=one.empty) for one in list(signature.parameters.values())[1:]]
    return _signature_text(inspect.Signature(bare))
