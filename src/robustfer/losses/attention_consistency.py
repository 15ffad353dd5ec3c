"""Attention consistency as a module, to combine with any classification loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer.functional import attention_consistency
from robustfer.functional._precision import Reduction, check_reduction


class AttentionConsistencyLoss(nn.Module):
    """Module form of :func:`robustfer.functional.attention_consistency`.

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        attention, attention_flipped ``(B, C, H, W)`` -> scalar, or ``(B)`` for ``"none"``.

    Raises:
        ValueError: the reduction is unknown.

    Reference:
        Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial
        Expression Recognition, ECCV 2022.

    >>> import torch
    >>> maps = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 3)
    >>> AttentionConsistencyLoss()(maps, maps.flip(-1))
    tensor(0.)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, attention: Tensor, attention_flipped: Tensor) -> Tensor:
        return attention_consistency(attention, attention_flipped, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
