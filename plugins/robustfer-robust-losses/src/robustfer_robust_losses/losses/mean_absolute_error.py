"""Mean absolute error of the probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustfer.authoring import Reduction, at_label, check_reduction, reduce
from robustfer_robust_losses.losses._log_probabilities import log_probabilities


def mean_absolute_error(logits: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    r"""Return half the absolute difference between the prediction and the label.

    .. math:: \ell_n = 1 - p_{n,y_n} = \tfrac{1}{2} \sum_k |p_{n,k} - [k = y_n]|

    It sums to :math:`C - 1` over all labels for every prediction. Symmetric noise therefore does
    not move its minimum, as long as no wrong class is more likely than the right one. But a label
    of low probability has a small gradient, so it learns slowly. The paper takes the whole
    difference, :math:`2 - 2 p_{n,y_n}`. For probabilities it is the mean over labels drawn from
    them, not the difference from their distribution.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Ghosh, Kumar and Sastry, Robust Loss Functions under Label Noise for Deep Neural Networks,
        AAAI 2017.

    >>> logits = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    >>> mean_absolute_error(logits, torch.tensor([1, 1]), reduction="none")
    tensor([0.5000, 0.9999])
    """
    log_p = log_probabilities(logits, target)
    return reduce(at_label(-torch.expm1(log_p), target), reduction)


class MeanAbsoluteErrorLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.mean_absolute_error`.

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Ghosh, Kumar and Sastry, Robust Loss Functions under Label Noise for Deep Neural Networks,
        AAAI 2017.

    >>> MeanAbsoluteErrorLoss()(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(0.7500)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return mean_absolute_error(logits, target, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
