"""Checks of labels, rows and saved states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robustfer._checks import (
    check_class_index,
    check_distribution,
    check_finite,
    check_floating,
    check_whole_number,
    check_within,
)

# Epochs are kept as int16.
LAST_EPOCH = 2**15 - 1


def when_and_why(step: int, epoch: int, reason: int) -> tuple[int, int, int]:
    """Return step, epoch and reason as ints, or raise if the journal cannot hold one."""
    return (
        check_whole_number("step", step, 0, 2**63 - 1),
        check_whole_number("epoch", epoch, 0, LAST_EPOCH),
        check_whole_number("reason", reason, 0, 255),
    )


def given_labels(
    given: Tensor, num_classes: int, soft_targets: bool | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return given labels, and given distributions or ``None``, as new tensors.

    ``soft_targets`` is the caller's option, ``None`` if it has none. Labels are uint8, or int16
    with more than 256 classes. Distributions are float16.
    """
    if not isinstance(given, Tensor):
        raise TypeError(f"given must be a torch.Tensor, got {type(given).__name__}")
    if given.ndim == 2 and soft_targets:
        if given.shape[1] != num_classes or not len(given):
            raise ValueError(f"given must have shape (N, {num_classes}), got {_shown(given)}")
        check_floating(given=given)
        check_distribution(given=given)
        return _narrow(given.argmax(dim=1), num_classes), given.to(torch.float16, copy=True)
    integer = not given.is_floating_point() and given.dtype != torch.bool
    if given.ndim != 1 or not len(given) or not integer:
        offered = given.ndim == 2 and soft_targets is not None
        hint = "; soft_targets=True keeps distributions" if offered else ""
        raise ValueError(f"given must be integers of shape (N), got {_shown(given)}{hint}")
    check_class_index(num_classes, given=given)
    return _narrow(given, num_classes), None


def check_index(index: Tensor) -> None:
    """Require ``(B,)`` int64. Values are not checked."""
    if not isinstance(index, Tensor):
        raise TypeError(f"index must be a torch.Tensor, got {type(index).__name__}")
    if index.ndim != 1 or index.dtype != torch.int64:
        raise ValueError(f"index must be int64 of shape (B), got {_shown(index)}")


def check_labels(target: Tensor, batch: int, num_classes: int, soft_targets: bool) -> None:
    """Require ``(B,)`` int64, or with soft targets ``(B, C)`` floating point."""
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a torch.Tensor, got {type(target).__name__}")
    shape = tuple(target.shape)
    if target.dtype == torch.int64 and shape == (batch,):
        return
    if soft_targets and target.is_floating_point() and shape == (batch, num_classes):
        return
    rows = f", or probabilities of shape ({batch}, {num_classes})" if soft_targets else ""
    hint = "" if soft_targets or len(shape) != 2 else "; soft_targets=True keeps distributions"
    raise ValueError(f"target must be int64 of shape ({batch}){rows}, got {_shown(target)}{hint}")


def check_confidence(confidence: Tensor, batch: int) -> None:
    """Require ``(B,)`` floating point. Values are not checked."""
    if not isinstance(confidence, Tensor):
        raise TypeError(f"confidence must be a torch.Tensor, got {type(confidence).__name__}")
    if tuple(confidence.shape) != (batch,) or not confidence.is_floating_point():
        raise ValueError(
            f"confidence must be floating point of shape ({batch}), got {_shown(confidence)}"
        )


def check_rows(index: Tensor, num_samples: int) -> None:
    """Require rows of the data set. Synchronises."""
    bad = ((index < 0) | (index >= num_samples)).nonzero()
    if len(bad):
        position = int(bad[0])
        raise IndexError(
            f"index must hold rows from 0 to {num_samples - 1}, "
            f"got {int(index[position])} at position {position}"
        )


def check_change(
    index: Tensor, labels: Tensor, confidence: Tensor, num_samples: int, num_classes: int
) -> None:
    """Require rows, labels and confidences in range. Synchronises."""
    check_rows(index, num_samples)
    check_class_index(num_classes, target=labels)
    check_within(0, 1, confidence=confidence)


def check_names(name: str, names: Sequence[str] | None, size: int) -> None:
    """Require ``size`` names, or ``None``."""
    if names is not None and len(names) != size:
        raise ValueError(f"{name} must hold {size} names, got {len(names)}")


def check_saved(saved: Mapping[str, Tensor], num_samples: int, num_classes: int) -> None:
    """Require valid values in the saved state of a LabelStore of this size."""
    journal = {
        name.removeprefix("history."): values
        for name, values in saved.items()
        if name.startswith("history.")
    }
    check_class_index(num_classes, label_current=saved["label_current"])
    check_class_index(num_classes, **{name: journal[name] for name in ("label_from", "label_to")})
    check_within(-1, LAST_EPOCH, label_epoch=saved["label_epoch"])
    check_within(-1, LAST_EPOCH, epoch_before=journal["epoch_before"])
    check_within(0, LAST_EPOCH, epoch=journal["epoch"])
    check_within(0, 2**63 - 1, written=journal["written"], step=journal["step"])
    check_within(0, num_samples - 1, index=journal["index"])
    check_within(0, 1, confidence=journal["confidence"])
    if "soft_current" in saved:
        # Rows may have been given in bfloat16, so their sums are only that precise.
        check_distribution(soft_current=saved["soft_current"].to(torch.bfloat16))
        check_finite(soft_before=journal["soft_before"])


def check_same_given(name: str, saved: Mapping[str, Tensor], own: Tensor) -> None:
    """Require saved given labels that equal the module's own."""
    differ = saved[name].to(own.device) != own
    rows = (differ if differ.ndim == 1 else differ.any(dim=1)).nonzero()
    if len(rows):
        raise ValueError(
            f"{name} must equal the given labels, but {len(rows)} of {len(differ)} differ, the "
            f"first at index {int(rows[0])}; use the same data set, order of samples and label "
            "noise as in the saved run"
        )


def _narrow(labels: Tensor, num_classes: int) -> Tensor:
    return labels.to(torch.uint8 if num_classes <= 256 else torch.int16, copy=True)


def _shown(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape ({', '.join(map(str, tensor.shape))})"
