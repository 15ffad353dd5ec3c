"""Checks of arguments. Shapes are always checked, which costs no synchronisation."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Literal, SupportsIndex, TypeVar

import torch
from torch import Tensor

from robustfer import _shown

Variant = Literal["paper", "official"]
_Choice = TypeVar("_Choice", bound=str)

# Meaning of a word in an environment variable or an option of a command line.
SWITCHES = dict.fromkeys(("true", "yes", "on", "1"), True)
SWITCHES |= dict.fromkeys(("false", "no", "off", "0"), False)

_values_checked: ContextVar[bool | None] = ContextVar("robustfer_check_values", default=None)


def check_shapes(**arguments: tuple[Tensor, str]) -> dict[str, int]:
    """Check that tensors have shapes given by axis letters, and return the size of each letter.

    A letter has the same size in all tensors. A number stands for an axis of that size. Empty axes
    stand for a scalar. All tensors must be on one device. Only an axis whose letter has a star may
    be empty.

    Args:
        arguments: name of the argument -> (tensor, axes), the axes separated by blanks.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: an axis, a size or the device does not fit.

    >>> check_shapes(logits=(torch.zeros(0, 7), "B* C"), target=(torch.zeros(0), "B*"))
    {'B': 0, 'C': 7}
    >>> check_shapes(logits=(torch.zeros(4, 7), "B C"), target=(torch.zeros(5), "B"))
    Traceback (most recent call last):
    ...
    ValueError: target has B=5 but logits has B=4; target must have shape (B), got (5)
    """
    sizes: dict[str, int] = {}
    owners: dict[str, str] = {}
    device: torch.device | None = None
    for name, (tensor, axes) in arguments.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {kind_of(tensor)}")
        letters, shape = axes.replace("*", "").split(), tensor.shape
        if len(shape) != len(letters):
            raise ValueError(_expected(name, letters, tensor))
        for letter, size in zip(letters, shape, strict=True):
            if letter in sizes:
                if size != sizes[letter]:
                    raise ValueError(
                        f"{name} has {letter}={size} but {owners[letter]} has "
                        f"{letter}={sizes[letter]}; {_expected(name, letters, tensor)}"
                    )
            elif letter.isdigit():
                if size != int(letter):
                    raise ValueError(_expected(name, letters, tensor))
            elif size == 0 and f"{letter}*" not in axes:
                raise ValueError(
                    f"{name} is empty along {letter}; {_expected(name, letters, tensor)}"
                )
            else:
                sizes[letter], owners[letter] = size, name
        if device is None:
            device, first = tensor.device, name
        elif tensor.device != device:
            raise ValueError(
                f"{name} is on {tensor.device} but {first} is on {device}; move them to one device"
            )
    return sizes


def kind_of(value: object) -> str:
    """Return the type of what should be a tensor, and the tensors that it has.

    >>> from robustfer.models import CAMOutput
    >>> kind_of(CAMOutput(*torch.zeros(4, 1)))
    'CAMOutput; pass its .logits, .attention, .features or .embeddings'
    """
    names = getattr(value, "_fields", None) or tuple(getattr(value, "__dict__", ()))
    tensors = [f".{name}" for name in names if isinstance(getattr(value, name, None), Tensor)]
    *others, last = tensors or [""]
    listed = f"{', '.join(others)} or {last}" if others else last
    return type(value).__name__ + (f"; pass its {listed}" if tensors else "")


def check_floating(**arguments: Tensor) -> None:
    """Require floating-point tensors; under :func:`check_values` they must also be finite.

    >>> check_floating(logits=torch.zeros(2, 3, dtype=torch.int64))
    Traceback (most recent call last):
    ...
    ValueError: logits must have a floating-point dtype, got torch.int64
    """
    check_floating_dtype(**arguments)
    if values_are_checked():
        check_finite(**arguments)


def check_floating_dtype(**arguments: Tensor) -> None:
    """Require floating-point tensors, without a check of values: landmarks may be NaN."""
    for name, tensor in arguments.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must have a floating-point dtype, got {tensor.dtype}")


def check_probabilities(**arguments: Tensor) -> None:
    """Require floating-point tensors; under :func:`check_values` rows must be distributions.

    >>> with check_values():
    ...     check_probabilities(target=torch.tensor([[0.5, 0.6]]))
    Traceback (most recent call last):
    ...
    ValueError: rows of target must be probabilities that sum to 1, but row 0 sums to 1.1 and its \
least value is 0.5; pass logits through a softmax, or divide counts by their sum
    """
    check_floating_dtype(**arguments)
    if values_are_checked():
        check_distribution(**arguments)


def check_mask(**arguments: Tensor) -> None:
    """Require bool tensors."""
    for name, tensor in arguments.items():
        if tensor.dtype != torch.bool:
            raise ValueError(f"{name} must be bool, got {tensor.dtype}")


def check_int64(**arguments: Tensor) -> None:
    """Require int64 tensors.

    >>> check_int64(index=torch.zeros(2, dtype=torch.int32))
    Traceback (most recent call last):
    ...
    ValueError: index must be int64, got torch.int32
    """
    for name, tensor in arguments.items():
        if tensor.dtype != torch.int64:
            raise ValueError(f"{name} must be int64, got {tensor.dtype}")


def check_target(logits: Tensor, target: Tensor, **others: tuple[Tensor, str]) -> dict[str, int]:
    """Check ``logits`` (B, C) with ``target`` (B) int64, or (B, C) probabilities.

    Values (class index in range, rows that sum to 1, finite logits) are checked only under
    :func:`check_values`. ``others`` and the result are those of :func:`check_shapes`.

    Raises:
        ValueError: a shape, dtype or device does not fit.

    >>> check_target(torch.zeros(2, 7), torch.tensor([3, 0]))
    {'B': 2, 'C': 7}
    """
    soft = isinstance(target, Tensor) and target.ndim == 2
    if soft and target.shape[1] == 1:
        raise ValueError(f"target must have shape (B), got {_shape(target)}; use target.squeeze(1)")
    sizes = check_shapes(logits=(logits, "B C"), target=(target, "B C" if soft else "B"), **others)
    check_floating(logits=logits)
    if not (target.is_floating_point() if soft else target.dtype == torch.int64):
        cure = "for one-hot rows use target.float()" if soft else "for classes use target.long()"
        raise ValueError(
            "target must be int64 class indices of shape (B), or probabilities of shape (B, C), "
            f"got {target.dtype} of shape {_shape(target)}; {cure}"
        )
    if soft:
        check_probabilities(target=target)
    elif values_are_checked():
        check_class_index(sizes["C"], target=target)
    return sizes


@contextmanager
def check_values(enabled: bool = True) -> Iterator[None]:
    """Check the values of all tensors that losses, state modules and relabelers take.

    Floating-point tensors must be finite, class indices in range, and distributions must sum to 1.
    A check of values synchronises with the GPU. So values are checked only inside this context or
    with ``ROBUSTFER_CHECK_VALUES=1`` in the environment, and never under ``torch.compile``.

    Args:
        enabled: False switches the checks off inside, even with the environment variable.

    Raises:
        TypeError: ``enabled`` is not a bool.

    >>> from robustfer.losses import EACLoss
    >>> logits, maps = torch.zeros(1, 3), torch.zeros(1, 3, 2, 2)
    >>> with check_values():
    ...     EACLoss()(logits, torch.tensor([3]), maps, maps)
    Traceback (most recent call last):
    ...
    ValueError: target must hold class indices from 0 to 2, got 3 at position 0
    """
    token = _values_checked.set(check_bool("enabled", enabled))
    try:
        yield
    finally:
        _values_checked.reset(token)


def values_are_checked() -> bool:
    """Return whether values are checked now; always False under ``torch.compile``."""
    if torch.compiler.is_compiling():
        return False
    chosen = _values_checked.get()
    if chosen is None:
        text = os.environ.get("ROBUSTFER_CHECK_VALUES", "")
        return text != "" and read_switch("the variable ROBUSTFER_CHECK_VALUES", text)
    return chosen


def read_switch(name: str, text: str) -> bool:
    """Return the meaning of a word of :data:`SWITCHES`, upper or lower case; empty means off."""
    word = text.strip().lower()
    if word and word not in SWITCHES:
        raise ValueError(f"{name} must be one of {', '.join(SWITCHES)}, got {_shown.value(text)}")
    return SWITCHES.get(word, False)


def check_finite(**arguments: Tensor) -> None:
    """Require finite values. Synchronises."""
    for name, tensor in arguments.items():
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            raise ValueError(
                f"{name} must be finite, got {int(bad.sum())} NaN or infinite of {bad.numel()}"
            )


def check_class_index(num_classes: int, **arguments: Tensor) -> None:
    """Require class indices from 0 to ``num_classes - 1``. Synchronises."""
    for name, index in arguments.items():
        found = _first_outside(index, 0, num_classes - 1)
        if found:
            raise ValueError(
                f"{name} must hold class indices from 0 to {num_classes - 1}, got {found}"
            )


def warn_if_normalized(
    landmarks: Tensor, name: str = "landmarks", *, side: int | None = None
) -> None:
    """Warn if landmarks look like shares of the image's size instead of pixels.

    It synchronises. So tensors on a GPU are checked only under :func:`check_values`.

    Args:
        landmarks: points of any shape.
        name: name of the argument, or the source of the points.
        side: shorter side of the images in pixels, if known. In tiny images pixels look like
            shares, so it does not warn.
    """
    tiny = side is not None and side <= 8
    if tiny or torch.compiler.is_compiling() or not (landmarks.is_cpu or values_are_checked()):
        return
    known = landmarks.detach()[landmarks.isfinite()]
    if known.numel() < 4 or bool((known.abs() >= 2).any()) or known.min() == known.max():
        return
    # No face is so small in pixels. Whole numbers may be pixels of placeholder points.
    if bool((known != known.round()).any()):
        warnings.warn(
            f"{name} must be in pixels, got values from {float(known.min()):.3g} to "
            f"{float(known.max()):.3g}, which look like shares of the image; multiply x by the "
            "image's width and y by its height",
            stacklevel=3,
        )


def check_within(low: float, high: float, **arguments: Tensor) -> None:
    """Require values in ``[low, high]``, or NaN. Synchronises."""
    for name, values in arguments.items():
        found = _first_outside(values, low, high)
        if found:
            raise ValueError(f"{name} must lie in {_interval(low, high)}, got {found}")


def check_distribution(tolerance: float | None = None, /, **arguments: Tensor) -> None:
    """Require rows that are distributions. Synchronises.

    Args:
        tolerance: how far the sum of a row may be from 1. Default: the rounding of the dtype.
        arguments: name of the argument -> rows (N, C), floating point.
    """
    for name, rows in arguments.items():
        # float() of a tensor with a gradient warns.
        rows = rows.detach()
        sums = rows.sum(dim=1, dtype=torch.promote_types(rows.dtype, torch.float32))
        rounding = 4 * torch.finfo(rows.dtype).eps * rows.shape[1] ** 0.5 + 1e-6
        near = (sums - 1).abs() <= (rounding if tolerance is None else tolerance)
        bad = (near & (rows >= 0).all(dim=1)).logical_not().nonzero()
        if len(bad):
            row = int(bad[0, 0])
            raise ValueError(
                f"rows of {name} must be probabilities that sum to 1, but row {row} sums to "
                f"{float(sums[row]):.6g} and its least value is {float(rows[row].min()):.6g}; pass "
                "logits through a softmax, or divide counts by their sum"
            )


def check_range(
    name: str,
    value: float,
    low: float = -float("inf"),
    high: float = float("inf"),
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value``, or raise if it is not a finite number within the bounds.

    Args:
        name: name of the argument, for the error.
        value: the number.
        low: least value; infinite for no bound.
        high: greatest value; infinite for no bound.
        open_low: whether ``low`` itself is out of range.
        open_high: whether ``high`` itself is out of range.

    >>> check_range("temperature", 0.0, 0.0, open_low=True)
    Traceback (most recent call last):
    ...
    ValueError: temperature must lie in (0, inf), got 0.0
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {_shown.value(value)}")
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    # An int beyond the largest float is finite, but no tensor can be multiplied by it.
    finite = value.bit_length() < 1024 if isinstance(value, int) else abs(value) < float("inf")
    if not (above and below and finite):
        bounds = _interval(low, high, open_low=open_low, open_high=open_high)
        raise ValueError(f"{name} must lie in {bounds}, got {_shown.value(value)}")
    return value if isinstance(value, (int, float)) else float(value)


def check_whole_number(
    name: str, value: SupportsIndex, low: int | None, high: int | None = None
) -> int:
    """Return ``value`` as an int, or raise if it is not a whole number from ``low`` to ``high``.

    Without ``high`` it must fit into int64.

    >>> check_whole_number("num_classes", 7.0, 2)
    Traceback (most recent call last):
    ...
    ValueError: num_classes must be a whole number from 2 on, got 7.0
    """
    # An array's dtype equals the name "bool", and a tensor's does not.
    truth = isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, "bool")
    try:
        number = None if truth else value.__index__()
    except (AttributeError, TypeError):
        number = None
    least = -math.inf if low is None else low
    # A size must fit into torch's int64. A number without a lower bound is not a size.
    greatest = high if high is not None else math.inf if low is None else 2**63 - 1
    if number is None or not least <= number <= greatest:
        beyond = high is not None or (number is not None and number > greatest)
        bounds = f" from {low} to {greatest}" if beyond else f" from {low} on"
        bounds = "" if low is None else bounds
        raise ValueError(f"{name} must be a whole number{bounds}, got {_shown.value(value)}")
    return number


def check_bool(name: str, value: bool) -> bool:
    """Return ``value``, or raise if it is not a bool. Python takes every text for true.

    >>> check_bool("gather", "false")
    Traceback (most recent call last):
    ...
    TypeError: gather must be True or False, got 'false'
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_shown.value(value)}")
    return value


def check_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return ``dtype``, or raise if it is not a floating-point dtype."""
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating-point dtype, got {_shown.value(dtype)}")
    return dtype


def check_size(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (height, width). One whole number stands for both.

    >>> check_size("image_size", 224)
    (224, 224)
    """
    try:
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        return check_whole_number(name, height, 1), check_whole_number(name, width, 1)
    except ValueError:
        raise ValueError(
            f"{name} must be a positive whole number or (height, width), got {_shown.value(size)}"
        ) from None


def check_seed(seed: SupportsIndex) -> int:
    """Return a seed as an int, or raise if torch's generators do not take it."""
    return check_whole_number("seed", seed, 0, 2**64 - 1)


def check_choice(name: str, value: _Choice, choices: Sequence[str]) -> _Choice:
    """Return ``value``, or raise if it is not one of the texts.

    >>> check_choice("scope", "some", ("low_importance", "all"))
    Traceback (most recent call last):
    ...
    ValueError: scope must be 'low_importance' or 'all', got 'some'
    """
    if not (isinstance(value, str) and value in choices):
        *others, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {_shown.value(value)}")
    return value


def check_variant(variant: Variant) -> Variant:
    """Return the variant, or raise if it is not ``"paper"`` or ``"official"``."""
    return check_choice("variant", variant, ("paper", "official"))


def _first_outside(values: Tensor, low: float, high: float) -> str:
    """Return a description of the first value outside the bounds, or "". Synchronises."""
    # Compare narrow integers in int64, because a bound may not fit into their dtype.
    wide = values if values.is_floating_point() else values.to(torch.int64)
    places = ((wide < low) | (wide > high)).nonzero()
    if not len(places):
        return ""
    place = places[0].tolist()
    value = wide[tuple(place)].item()
    shown = f"{value:.6g}" if wide.is_floating_point() else str(value)
    return f"{shown} at position {', '.join(map(str, place))}" if place else shown


def _interval(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> str:
    left = "(" if open_low or low == -float("inf") else "["
    right = ")" if open_high or high == float("inf") else "]"
    return f"{left}{low:g}, {high:g}{right}"


def _expected(name: str, letters: list[str], tensor: Tensor) -> str:
    # Called only for a failure, because sizes may be symbolic while torch compiles.
    return f"{name} must have shape ({', '.join(letters)}), got {_shape(tensor)}"


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
