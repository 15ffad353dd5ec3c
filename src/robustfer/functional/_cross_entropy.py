"""Cross entropy for classes or probabilities, and the value of each row at its label."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import (
    check_class_index,
    check_finite,
    check_floating,
    check_shapes,
    check_within,
)
from robustfer.functional._precision import Reduction, full_precision

# torch ignores samples of class -100 by default. With this value -100 is an error too. It is the
# least number that every kernel of torch can tell from a class.
_IGNORED_BY_NONE = -(2**31)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the cross entropy, in float32 for half inputs.

    .. math:: \ell_n = -\log \operatorname{softmax}(z_n)_{y_n}

    Unlike torch's, it does not ignore the class -100: a target that is not a class is an error.
    Call ``check_target`` first.

    Args:
        logits: scores of the classes, before softmax.
        target: classes, or probabilities.
        class_weights: weight of each class, like torch's ``weight``; default: all 1.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, class_weights
        ``(C)`` -> scalar, or ``(B)``.

    Raises:
        IndexError: a target is not a class (on CUDA a device-side assertion).

    >>> import torch
    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(1.3863)
    """
    logits = full_precision(logits)
    if target.ndim == 2:
        target = target.to(logits.dtype)
    try:
        return F.cross_entropy(
            logits,
            target,
            weight=_like(class_weights, logits),
            reduction=reduction,
            label_smoothing=label_smoothing,
            ignore_index=_IGNORED_BY_NONE,
        )
    except IndexError as error:
        name_label(target, logits.shape[1], error)
        raise


def at_label(values: Tensor, target: Tensor) -> Tensor:
    """Return the value of each row at its label, or the mean over a label's probabilities.

    Args:
        values: one value for each class, such as ``-log_softmax``.
        target: classes, or probabilities.

    Shape:
        values ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> ``(B)``.

    Raises:
        IndexError: a target is not a class (on CUDA a device-side assertion).

    >>> import torch
    >>> values = torch.tensor([[1.0, 3.0]])
    >>> at_label(values, torch.tensor([1])), at_label(values, torch.tensor([[0.5, 0.5]]))
    (tensor([3.]), tensor([2.]))
    """
    if target.ndim == 2:
        return (target.to(values.dtype) * values).sum(dim=1)
    try:
        return values.gather(1, target[:, None]).squeeze(1)
    except RuntimeError as error:
        name_label(target, values.shape[1], error)
        raise


def name_label(target: Tensor, num_classes: int, error: Exception) -> None:
    """Raise an IndexError that names the first label outside the classes, if there is one.

    Call it where torch refused a target. Labels are not checked before that, because a check of
    values costs time and synchronises. On CUDA nothing can be read after torch's assertion.

    >>> import torch
    >>> name_label(torch.tensor([0, 3]), 3, RuntimeError())
    Traceback (most recent call last):
    ...
    IndexError: target must hold class indices from 0 to 2, got 3 at position 1. If your labels \
count from 1, subtract 1. If some mean nothing, leave those samples out
    """
    if not target.is_cpu:
        return
    try:
        check_class_index(num_classes, target=target)
    except ValueError as outside:
        raise IndexError(
            f"{outside}. If your labels count from 1, subtract 1. If some mean nothing, leave "
            "those samples out"
        ) from error


def negative_log_likelihood(
    log_p: Tensor, target: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean :func:`cross_entropy` from log-probabilities."""
    weight = _like(class_weights, log_p)
    if target.ndim == 2:
        return -at_label(log_p if weight is None else weight * log_p, target).mean()
    try:
        return F.nll_loss(log_p, target, weight=weight, ignore_index=_IGNORED_BY_NONE)
    except IndexError as error:
        name_label(target, log_p.shape[1], error)
        raise


def register_class_weights(loss: nn.Module, class_weights: Tensor | None) -> None:
    """Register the buffer ``class_weights``, which moves with the loss but is not saved.

    Raises:
        TypeError: ``class_weights`` is not a tensor.
        ValueError: its shape or dtype is wrong, or a weight is negative or not finite.
    """
    if class_weights is not None:
        check_shapes(class_weights=(class_weights, "C"))
        check_floating(class_weights=class_weights)
        check_finite(class_weights=class_weights)
        check_within(0, float("inf"), class_weights=class_weights)
        class_weights = class_weights.detach().clone()
    loss.register_buffer("class_weights", class_weights, persistent=False)


def check_class_weights(class_weights: Tensor | None, logits: Tensor) -> None:
    """Require one weight for each class of the logits, or ``None``."""
    if class_weights is not None:
        check_shapes(logits=(logits, "B C"), class_weights=(class_weights, "C"))


def _like(class_weights: Tensor | None, logits: Tensor) -> Tensor | None:
    return None if class_weights is None else class_weights.to(logits.dtype)
