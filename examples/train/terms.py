"""Make the terms of a loss from the text of the command line."""

from __future__ import annotations

from ast import literal_eval
from inspect import signature
from typing import Any

import yaml
from torch import Tensor, nn

from examples.train.methods.base import WeightedCrossEntropy
from examples.train.options import Refused
from robustfer import registry
from robustfer.losses import Term


def make_term(text: str, sizes: dict[str, int], class_weights: Tensor | None) -> Term:
    """Make a term of ``NAME[=WEIGHT][,OPTION=VALUE...]``.

    Args:
        text: the loss, its weight and its options.
        sizes: values for options that the loss requires.
        class_weights: weights for a loss that takes them.

    Raises:
        Refused: the text does not have this form.
    """
    start, _, rest = text.partition(",")
    name, _, weight = start.partition("=")
    options = read_options(rest, text)
    loss: nn.Module
    if name == "cross_entropy":
        loss = WeightedCrossEntropy(class_weights, **options)
    else:
        known = registry.describe(name).options
        needed = {option.name for option in known if option.required}
        filled: dict[str, Any] = {key: size for key, size in sizes.items() if key in needed}
        if any(option.name == "class_weights" for option in known):
            filled["class_weights"] = class_weights
        loss = registry.create(name, **{**filled, **options})
    try:
        factor = float(weight or 1)
    except ValueError:
        raise Refused(f"--loss {text}: the weight must be a number, got {weight}") from None
    own = name.rpartition(":")[2]
    return Term(own, loss, weight=factor, inputs=renamed_state(own, loss))


def renamed_state(name: str, loss: nn.Module) -> dict[str, str]:
    """Return another name for what a loss proposes, because two losses may use the same one."""
    if not (hasattr(loss, "propose") and hasattr(loss, "update")):
        return {}
    _, written, *_ = signature(loss.update).parameters
    return {written: f"{written}_of_{name}"}


def weighs_classes(loss: nn.Module) -> bool:
    """Return whether a loss of :func:`make_term` takes class weights."""
    return isinstance(loss, WeightedCrossEntropy) or hasattr(loss, "class_weights")


def read_options(text: str, whole: str) -> dict[str, Any]:
    """Return ``OPTION=VALUE,...`` as a dictionary. A value is Python, YAML, or text."""
    options: dict[str, Any] = {}
    for part in split_at_commas(text, whole) if text else ():
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise Refused(f"--loss {whole}: options must be OPTION=VALUE, got {part!r}")
        try:
            options[name] = literal_eval(value)
        except (ValueError, SyntaxError, TypeError):
            options[name] = read_yaml(name, value, whole)  # true, no, words and mappings
    return options


def split_at_commas(text: str, whole: str) -> list[str]:
    """Split the text at commas outside brackets and quotes."""
    parts, quote, depth = [""], "", 0
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if quote or depth:
        raise Refused(
            f"--loss {whole}: brackets and quotes must be closed, got {text}; add the missing one"
        )
    return parts


def read_yaml(name: str, value: str, whole: str) -> Any:
    """Return a value of YAML."""
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise Refused(
            f"--loss {whole}: {name} must be a value of Python or YAML, got {value}; write text "
            "with special characters in quotes"
        ) from error
