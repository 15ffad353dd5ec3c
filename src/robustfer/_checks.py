"""Checks of arguments: shapes always (they cost no synchronisation), values when asked for."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Literal, SupportsIndex

import torch
from torch import Tensor

Variant = Literal["paper", "official"]

_values_checked: ContextVar[bool | None] = ContextVar("robustfer_check_values", default=None)


def check_shapes(**arguments: tuple[Tensor, str]) -> dict[str, int]:
    """Check the shapes of named tensors against axis letters, and that one letter has one size.

    A digit stands for an axis of exactly that size. All tensors must lie on one device and none
    may be empty, but along a letter with a star.

    Args:
        arguments: name of the argument -> (tensor, axes), the axes separated by blanks.

    Returns:
        The size of each axis letter.

    Raises:
        TypeError: an argument is no tensor.
        ValueError: number of axes, a size or the device does not fit, or an axis is empty. The
            message names the argument, what came and what was expected.

    >>> check_shapes(logits=(torch.zeros(4, 7), "B C"), target=(torch.zeros(4), "B"))
    {'B': 4, 'C': 7}
    >>> check_shapes(rows=(torch.zeros(0, 7), "B* 7"))
    {'B': 0}
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
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
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
                f"{name} is on {tensor.device} but {first} is on {device}; "
                "move them to one device first"
            )
    return sizes


def check_floating(**arguments: Tensor) -> None:
    """Refuse tensors that are not of a floating-point dtype, by name.

    >>> check_floating(logits=torch.zeros(2, 3, dtype=torch.int64))
    Traceback (most recent call last):
    ...
    ValueError: logits must have a floating-point dtype, got torch.int64
    """
    for name, tensor in arguments.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must have a floating-point dtype, got {tensor.dtype}")


def check_int64(**arguments: Tensor) -> None:
    """Refuse tensors of another dtype than int64, by name.

    >>> check_int64(index=torch.zeros(2, dtype=torch.int32))
    Traceback (most recent call last):
    ...
    ValueError: index must be int64, got torch.int32
    """
    for name, tensor in arguments.items():
        if tensor.dtype != torch.int64:
            raise ValueError(f"{name} must be int64, got {tensor.dtype}")


def check_target(target: Tensor, logits: Tensor, **others: tuple[Tensor, str]) -> dict[str, int]:
    """Check ``logits`` (B, C) with ``target`` (B,) int64, or (B, C) probabilities.

    Values (class index in range, rows that sum to 1, finite logits) are looked at only under
    :func:`check_values`.

    Args:
        target: classes or probabilities.
        logits: for which they are.
        others: further tensors to check with them, as in :func:`check_shapes`.

    Returns:
        The sizes ``B`` and ``C``, and those of others.

    Raises:
        ValueError: a shape, dtype or device does not fit; the message names the argument.

    >>> check_target(torch.tensor([3, 0]), logits=torch.zeros(2, 7))
    {'B': 2, 'C': 7}
    """
    soft = isinstance(target, Tensor) and target.ndim == 2
    sizes = check_shapes(logits=(logits, "B C"), target=(target, "B C" if soft else "B"), **others)
    check_floating(logits=logits)
    if soft:
        check_floating(target=target)
    elif target.dtype != torch.int64:
        raise ValueError(
            "target must be int64 class indices of shape (B), or probabilities of shape (B, C); "
            f"got {target.dtype} of shape {_shown(target)}"
        )
    if values_are_checked():
        check_finite(logits=logits)
        if soft:
            check_distribution(target=target)
        else:
            check_class_index(sizes["C"], target=target)
    return sizes


@contextmanager
def check_values(enabled: bool = True) -> Iterator[None]:
    """Check values too (finite logits, class indices in range, rows that sum to 1) in every loss.

    Looking at values makes a GPU wait, so losses do it only inside this context or where the
    environment has ``ROBUSTFER_CHECK_VALUES=1``, and never under ``torch.compile``.

    >>> from robustfer.losses import EACLoss
    >>> logits, maps = torch.zeros(1, 3), torch.zeros(1, 3, 2, 2)
    >>> with check_values():
    ...     EACLoss()(logits, torch.tensor([3]), maps, maps)
    Traceback (most recent call last):
    ...
    ValueError: target must hold class indices from 0 to 2, got 3 at position 0
    """
    token = _values_checked.set(enabled)
    try:
        yield
    finally:
        _values_checked.reset(token)


def values_are_checked() -> bool:
    """Whether losses are to look at values now; always false under ``torch.compile``."""
    if torch.compiler.is_compiling():
        return False
    chosen = _values_checked.get()
    if chosen is None:
        return os.environ.get("ROBUSTFER_CHECK_VALUES", "") not in ("", "0")
    return chosen


def check_finite(**arguments: Tensor) -> None:
    """Refuse NaN and infinities. Synchronises: call where data first enters."""
    for name, tensor in arguments.items():
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            raise ValueError(
                f"{name} must be finite, got {int(bad.sum())} NaN or infinite of {bad.numel()}"
            )


def check_class_index(num_classes: int, **arguments: Tensor) -> None:
    """Refuse class indices outside ``0 .. num_classes - 1``. Synchronises."""
    for name, index in arguments.items():
        outside = ((index < 0) | (index >= num_classes)).nonzero()
        if len(outside):
            position = int(outside[0, 0])
            raise ValueError(
                f"{name} must hold class indices from 0 to {num_classes - 1}, "
                f"got {int(index[position])} at position {position}"
            )


def warn_if_normalized(
    landmarks: Tensor, name: str = "landmarks", *, side: int | None = None
) -> None:
    """Warn of landmarks that are shares of the image's size, where pixels are expected.

    Looks at tensors on the CPU, and at others only under :func:`check_values`: it synchronises.

    Args:
        landmarks: points of any shape.
        name: of the argument, or where the points are from.
        side: shorter side of the images in pixels, if known. In tiny images pixels look like
            shares.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_if_normalized(torch.tensor([[0.3, 0.4], [0.7, 0.4]]))
    >>> print(caught[0].message)
    landmarks lie between 0.3 and 0.7, as shares of the image do; robustfer takes pixels: multiply x by the image's width and y by its height
    """  # noqa: E501 - the message is one line
    tiny = side is not None and side <= 8
    if tiny or torch.compiler.is_compiling() or not (landmarks.is_cpu or values_are_checked()):
        return
    known = landmarks.detach()[landmarks.isfinite()]
    if known.numel() < 4 or bool((known.abs() >= 2).any()) or known.min() == known.max():
        return
    # No face is so small; whole numbers may be pixels that stand for points.
    if bool((known != known.round()).any()):
        warnings.warn(
            f"{name} lie between {float(known.min()):.3g} and {float(known.max()):.3g}, as shares "
            "of the image do; robustfer takes pixels: multiply x by the image's width and y by "
            "its height",
            stacklevel=3,
        )


def check_distribution(**arguments: Tensor) -> None:
    """Refuse rows that are no probability distribution. Synchronises.

    The tolerance on the sum follows the dtype: a float16 row rounds to about 1e-3.
    """
    for name, rows in arguments.items():
        sums = rows.sum(dim=1, dtype=torch.promote_types(rows.dtype, torch.float32))
        tolerance = 4 * torch.finfo(rows.dtype).eps * rows.shape[1] ** 0.5 + 1e-6
        bad = (((sums - 1).abs() <= tolerance) & (rows >= 0).all(dim=1)).logical_not().nonzero()
        if len(bad):
            row = int(bad[0, 0])
            raise ValueError(
                f"rows of {name} must be probabilities that sum to 1, "
                f"row {row} sums to {float(sums[row]):.6g}, its least value is "
                f"{float(rows[row].min()):.6g}"
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
    """Return ``value`` if it is a finite number within the bounds, else name it in an error.

    Raises:
        TypeError: ``value`` is no number.
        ValueError: it lies outside the bounds.

    >>> check_range("temperature", 0.0, 0.0, open_low=True)
    Traceback (most recent call last):
    ...
    ValueError: temperature must lie in (0, inf), got 0.0
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (above and below and abs(value) < float("inf")):
        left = "(" if open_low or low == -float("inf") else "["
        right = ")" if open_high or high == float("inf") else "]"
        raise ValueError(f"{name} must lie in {left}{low:g}, {high:g}{right}, got {value}")
    return value


def check_whole_number(
    name: str, value: SupportsIndex, low: int | None, high: int | None = None
) -> int:
    """Return ``value`` as an int if it is a whole number within the bounds, both included.

    >>> check_whole_number("num_classes", 7.0, 2)
    Traceback (most recent call last):
    ...
    ValueError: num_classes must be a whole number from 2 on, got 7.0
    """
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        number = None
    truth = isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool
    least, greatest = -math.inf if low is None else low, math.inf if high is None else high
    if number is None or truth or not least <= number <= greatest:
        bounds = (
            "" if low is None else f" from {low} on" if high is None else f" from {low} to {high}"
        )
        raise ValueError(f"{name} must be a whole number{bounds}, got {value!r}")
    return number


def check_variant(variant: str) -> None:
    """Refuse a variant that is neither the paper's nor the public program's.

    >>> check_variant("other")
    Traceback (most recent call last):
    ...
    ValueError: variant must be 'paper' or 'official', got 'other'
    """
    if variant not in ("paper", "official"):
        raise ValueError(f"variant must be 'paper' or 'official', got {variant!r}")


def _expected(name: str, letters: list[str], tensor: Tensor) -> str:
    # Made only for a failure: sizes may be symbolic while torch compiles.
    return f"{name} must have shape ({', '.join(letters)}), got {_shown(tensor)}"


def _shown(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"
