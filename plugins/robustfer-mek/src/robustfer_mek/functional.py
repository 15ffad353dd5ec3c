"""Cross entropy and attention consistency, rebalanced by how rare the classes are."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer.authoring import (
    Reduction,
    at_label,
    check_floating,
    check_range,
    check_shapes,
    check_target,
    cross_entropy,
    full_precision,
    values_are_checked,
    without_autocast,
)
from robustfer.functional import attention_consistency


def rebalanced_cross_entropy(
    logits: Tensor,
    target: Tensor,
    class_counts: Tensor,
    *,
    smoothing: float = 0.3,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the cross entropy with a smooth label, in which rare classes get larger shares.

    .. math::
        \ell_n = -\sum_k y'_{n,k} \log \operatorname{softmax}(z_n)_k, \qquad
        y'_{n,k} = (1 - \epsilon)\, [k = y_n] + \epsilon\, \frac{[k \ne y_n]\, b_k}
            {\sum_{c \ne y_n} b_c}, \qquad b_c = \frac{\sum_k n_k}{10\, n_c}

    The loss of probabilities is the mean over labels drawn from them. A class without samples gets
    no share. If all other classes are empty, the label is not smoothed.

    Args:
        logits: scores of the classes, before softmax.
        target: classes, or probabilities.
        class_counts: :math:`n`, the samples of each class, or their shares. Only ratios count.
        smoothing: :math:`\epsilon` in [0, 1), the share of the other classes.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, class_counts ``(C)`` of
        any dtype -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        IndexError: a target is not a class (on CUDA a device-side assertion).
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Zhang et al., Leave No Stone Unturned: Mine Extra Knowledge for Imbalanced Facial
        Expression Recognition, NeurIPS 2023.

    >>> logits, counts = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([60, 30, 10])
    >>> rebalanced_cross_entropy(logits, torch.tensor([0]), counts, smoothing=0.4)
    tensor(0.9076)
    >>> -(torch.tensor([0.6, 0.1, 0.3]) * logits.log_softmax(dim=1)).sum()
    tensor(0.9076)
    """
    check_range("smoothing", smoothing, 0.0, 1.0, open_high=True)
    check_target(logits, target, class_counts=(class_counts, "C"))
    logits = full_precision(logits)
    rows = _labels(class_counts, smoothing, logits.dtype)
    if target.ndim == 1:
        try:
            label = rows.index_select(0, target)
        except (IndexError, RuntimeError):
            # It raises an error that names the label.
            at_label(logits, target)
            raise
        return cross_entropy(logits, label, reduction=reduction)
    with without_autocast(rows):
        label = target.to(rows.dtype) @ rows
    return cross_entropy(logits, label, reduction=reduction)


def rebalanced_attention_consistency(
    attention: Tensor, attention_flipped: Tensor, class_counts: Tensor
) -> Tensor:
    r"""Return the attention consistency, with larger weights for the maps of rare classes.

    .. math::
        R = \frac{1}{B} \sum_n \sum_c b_c\, \frac{1}{HW} \sum_{h,w}
            (M_{n,c,h,w} - M'_{n,c,h,W-1-w})^2, \qquad b_c = \frac{\sum_k n_k}{10\, n_c}

    It is a sum over the classes, where :func:`robustfer.functional.attention_consistency` is a
    mean. With equal counts it is :math:`C^2 / 10` times that.

    Args:
        attention: class maps of the images.
        attention_flipped: class maps of the mirrored images, not mirrored back.
        class_counts: :math:`n`, the samples of each class, or their shares. Only ratios count. A
            class without samples has weight 0.

    Shape:
        attention and attention_flipped ``(B, C, H, W)``, class_counts ``(C)`` of any dtype ->
        scalar; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.

    Reference:
        Zhang et al., Leave No Stone Unturned: Mine Extra Knowledge for Imbalanced Facial
        Expression Recognition, NeurIPS 2023.

    >>> maps = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 3).expand(1, 2, 1, 3)
    >>> rebalanced_attention_consistency(maps, maps, torch.tensor([9, 1]))  # 6 each, times b
    tensor(6.6667)
    """
    sizes = check_shapes(
        attention=(attention, "B C H W"),
        attention_flipped=(attention_flipped, "B C H W"),
        class_counts=(class_counts, "C"),
    )
    check_floating(attention=attention, attention_flipped=attention_flipped)
    maps, mirrored = full_precision(attention), full_precision(attention_flipped)
    # The mean of squares over the classes becomes the weighted sum.
    scale = (sizes["C"] * _rarity(class_counts, maps.dtype)).sqrt()[:, None, None]
    return attention_consistency(scale * maps, scale * mirrored)


def _labels(class_counts: Tensor, smoothing: float, dtype: torch.dtype) -> Tensor:
    """Return the smooth label of each class, ``(C, C)``."""
    rarity = _rarity(class_counts, dtype)
    own = torch.eye(len(rarity), dtype=dtype, device=rarity.device)
    others = rarity * (1 - own)
    total = others.sum(dim=1, keepdim=True)
    spread = smoothing * others / total.clamp(min=torch.finfo(dtype).tiny)
    return (1 - smoothing * (total > 0).to(dtype)) * own + spread


def _rarity(class_counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weight of each class: 1 over ten times its share, or 0 without a sample."""
    if values_are_checked():
        counted = class_counts.isfinite() & (class_counts >= 0)
        if not bool(counted.all()) or not bool(class_counts.any()):
            raise ValueError(
                "class_counts must be finite counts of at least 0, and not all 0, got "
                f"{class_counts}"
            )
    counts = class_counts.detach().to(dtype)
    rarity: Tensor = counts.sum() / (10 * counts)
    return rarity.masked_fill(counts == 0, 0.0)
