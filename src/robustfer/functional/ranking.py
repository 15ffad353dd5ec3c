"""Importance of samples: weight the logits, rank, and detect a collapse (SCN)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustfer._checks import (
    Variant,
    check_floating,
    check_range,
    check_shapes,
    check_target,
    check_variant,
    check_within,
    values_are_checked,
)
from robustfer.functional._cross_entropy import check_class_weights, cross_entropy
from robustfer.functional._precision import Reduction, check_reduction, full_precision


def importance_weighted_cross_entropy(
    logits: Tensor,
    target: Tensor,
    importance: Tensor,
    *,
    bias: Tensor | None = None,
    class_weights: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the cross entropy of logits that are weighted by the importance of their sample.

    .. math:: \ell_n = -\log \operatorname{softmax}(\alpha_n (z_n - b) + b)_{y_n}

    The importance multiplies the logits, not the loss. Where the network is sure of a class other
    than the label, a smaller importance lowers the loss.

    Args:
        logits: :math:`z`, outputs of the classifier, its bias included.
        target: :math:`y`, classes or probabilities.
        importance: :math:`\alpha` in [0, 1].
        bias: :math:`b`, the classifier's bias parameter, which is not weighted; ``None`` weights
            the whole logits, as the authors' code does.
        class_weights: weight of each class, like torch's ``weight``; default: all 1.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, importance ``(B)``,
        bias ``(C)``, class_weights ``(C)`` -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or the reduction is unknown.

    Reference:
        Wang et al., Suppressing Uncertainties for Large-Scale Facial Expression Recognition,
        CVPR 2020.

    >>> logits, target = torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([1, 1])
    >>> importance_weighted_cross_entropy(
    ...     logits, target, torch.tensor([1.0, 0.0]), reduction="none"
    ... )
    tensor([4.0181, 0.6931])
    """
    check_target(logits, target, importance=(importance, "B"))
    _check_values(importance)
    check_bias(bias, logits)
    check_class_weights(class_weights, logits)
    check_reduction(reduction)
    return cross_entropy(
        weighted_logits(logits, importance, bias),
        target,
        class_weights=class_weights,
        reduction=reduction,
    )


def rank_regularization(
    importance: Tensor,
    *,
    margin: float | Tensor = 0.15,
    high_ratio: float = 0.7,
    variant: Variant = "paper",
) -> Tensor:
    r"""Return by how much the mean gap between high and low importances misses a margin.

    .. math::
        L = \max\Bigl(0,\; \delta - \frac{1}{M} \sum_{i \le M} \alpha_{(i)}
            + \frac{1}{B - M} \sum_{i > M} \alpha_{(i)}\Bigr),
        \qquad M = \lfloor \beta B \rfloor

    with :math:`\alpha_{(1)} \ge \alpha_{(2)} \ge \dots` the sorted importances. Each sample is in
    one of the two groups. Of two equal importances, the earlier in the batch ranks higher. If a
    group is empty (a batch of one), the loss is a zero that is still attached to the graph.

    ``variant="official"`` follows the authors' code in two details. It rounds :math:`\beta B` down
    as a float product, which is one less for some batches (0.7 of 90, 170 or 180). A batch of one
    costs the whole margin, without a gradient for its importance.

    Args:
        importance: :math:`\alpha` in [0, 1].
        margin: :math:`\delta` in [0, 1], or a scalar tensor to learn.
        high_ratio: :math:`\beta`, the share of the batch in the high group.
        variant: ``"paper"`` or ``"official"``, see above.

    Shape:
        importance ``(B)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: shape, dtype or an option does not fit.

    Reference:
        Wang et al., Suppressing Uncertainties for Large-Scale Facial Expression Recognition,
        CVPR 2020.

    >>> rank_regularization(torch.tensor([0.9, 0.1, 0.8]), margin=0.15)
    tensor(0.)
    >>> rank_regularization(torch.tensor([0.9, 0.8, 0.8]), margin=0.15)
    tensor(0.1000)
    """
    check_shapes(importance=(importance, "B"))
    _check_values(importance)
    check_margin(margin)
    check_high_ratio(high_ratio)
    check_variant(variant)
    return ranked(importance, margin, high_ratio, variant)


def ranked(
    importance: Tensor,
    margin: float | Tensor,
    high_ratio: float,
    variant: Variant,
    weight: float = 1.0,
) -> Tensor:
    """Return :func:`rank_regularization` of checked arguments, times a weight."""
    importance = full_precision(importance)
    batch = len(importance)
    high = _high_group_size(batch, high_ratio, variant)
    if 0 < high < batch:
        # The order is a constant, so both means are one dot product with constant shares. That is
        # cheaper than the gradient of a sort, two slices and two means.
        low_rows = _order(importance)[high:]
        shares = torch.full_like(importance, -weight / high, requires_grad=False)
        shares.index_fill_(0, low_rows, weight / (batch - high))
        return (torch.dot(shares, importance) + weight * margin).relu()
    nothing = 0.0 * importance.sum()
    if variant == "official" and batch == 1:
        return (nothing + weight * margin).relu()
    return nothing + 0.0 * margin


class ImportanceHealth(NamedTuple):
    """How importances are spread, as scalars without gradient.

    Attributes:
        mean_high: mean of the high group; NaN where it is empty.
        mean_low: mean of the low group; NaN where it is empty.
        spread: standard deviation of all importances.
        saturated: share within ``tolerance`` of 0 or 1, where a sigmoid has almost no gradient.
    """

    mean_high: Tensor
    mean_low: Tensor
    spread: Tensor
    saturated: Tensor


@torch.no_grad()
def importance_health(
    importance: Tensor, *, high_ratio: float = 0.7, tolerance: float = 1e-3
) -> ImportanceHealth:
    r"""Measure whether the importances have collapsed.

    Importances can collapse to 1: larger logits lower the cross entropy, and a sigmoid near 1 has
    almost no gradient. Look at this each epoch. The signs are ``saturated`` near 1, or ``mean_high
    - mean_low`` far below the margin. Then try a smaller learning rate for the head, or a larger
    weight of the rank regularization.

    Args:
        importance: :math:`\alpha` in [0, 1] of a batch, or better of an epoch.
        high_ratio: share of the samples in the high group.
        tolerance: how near to 0 or 1 counts as saturated, in [0, 0.5).

    Shape:
        importance ``(B)`` -> :class:`ImportanceHealth` of scalars; float32 for half inputs.

    Raises:
        ValueError: shape, dtype or an option does not fit.

    >>> health = importance_health(torch.tensor([1.0, 1.0, 0.9999, 0.5]), high_ratio=0.5)
    >>> {name: round(float(value), 2) for name, value in health._asdict().items()}
    {'mean_high': 1.0, 'mean_low': 0.75, 'spread': 0.22, 'saturated': 0.75}
    """
    check_shapes(importance=(importance, "B"))
    _check_values(importance)
    check_high_ratio(high_ratio)
    check_range("tolerance", tolerance, 0.0, 0.5, open_high=True)
    importance = full_precision(importance)
    low = low_importance(importance, high_ratio=high_ratio)
    saturated = (importance <= tolerance) | (importance >= 1 - tolerance)
    return ImportanceHealth(
        mean_high=(importance * ~low).sum() / (~low).sum(),
        mean_low=(importance * low).sum() / low.sum(),
        spread=importance.std(correction=0),
        saturated=saturated.to(importance.dtype).mean(),
    )


def low_importance(importance: Tensor, *, high_ratio: float, variant: Variant = "paper") -> Tensor:
    """Return which samples are in the low group, ``(B)`` bool; ties by position."""
    batch = len(importance)
    low_rows = _order(importance)[_high_group_size(batch, high_ratio, variant) :]
    low = torch.zeros(batch, dtype=torch.bool, device=importance.device)
    return low.index_fill(0, low_rows, True)


def check_importance(importance: Tensor) -> None:
    """Require a floating-point tensor of shape (B), where B may be 0."""
    check_shapes(importance=(importance, "B*"))
    _check_values(importance)


def _check_values(importance: Tensor) -> None:
    check_floating(importance=importance)
    if values_are_checked():
        check_within(0, 1, **{"importance (after the sigmoid)": importance})


def check_margin(margin: float | Tensor) -> None:
    """Require a number in [0, 1], or a scalar tensor."""
    if isinstance(margin, Tensor):
        check_shapes(margin=(margin, ""))
        check_floating(margin=margin)
    else:
        check_range("margin", margin, 0.0, 1.0)


def check_high_ratio(high_ratio: float) -> float:
    """Return the share, or raise if it leaves a group empty in every batch."""
    return check_range("high_ratio", high_ratio, 0.0, 1.0, open_low=True, open_high=True)


def check_bias(bias: Tensor | None, logits: Tensor) -> None:
    """Require a bias of shape (C), or ``None``."""
    if bias is not None:
        check_shapes(logits=(logits, "B* C"), bias=(bias, "C"))
        check_floating(bias=bias)


def weighted_logits(logits: Tensor, importance: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Multiply the logits of each sample by its importance, but not the classifier's bias.

    .. math:: z'_{n,c} = \alpha_n (z_{n,c} - b_c) + b_c

    A small importance draws the prediction towards that of the bias. Arguments are not checked.

    Shape:
        logits ``(B, C)``, importance ``(B)``, bias ``(C)`` -> ``(B, C)``; float32 for half inputs.

    >>> logits, importance = torch.tensor([[3.0, 1.0]]), torch.tensor([0.5])
    >>> weighted_logits(logits, importance, bias=torch.tensor([1.0, 0.0]))
    tensor([[2.0000, 0.5000]])
    """
    factor, logits = full_precision(importance)[:, None], full_precision(logits)
    if bias is None:
        return factor * logits
    bias = full_precision(bias)
    return factor * (logits - bias) + bias


def _high_group_size(batch: int, high_ratio: float, variant: Variant) -> int:
    # 0.7 * 90 is 62.99999999999999 in floating point; the small addend gives 63.
    return int(batch * high_ratio + (0.0 if variant == "official" else 1e-9))


def _order(importance: Tensor) -> Tensor:
    return importance.detach().argsort(descending=True, stable=True)
