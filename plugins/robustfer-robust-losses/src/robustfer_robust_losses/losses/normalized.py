"""Cross entropy and generalized cross entropy as shares of their sum over all labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer.authoring import Reduction, at_label, check_range, check_reduction, reduce
from robustfer_robust_losses.losses._log_probabilities import box_cox, log_probabilities


def normalized_cross_entropy(
    logits: Tensor, target: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the cross entropy as a share of its sum over all labels.

    .. math:: \ell_n = \frac{-\log p_{n,y_n}}{-\sum_k \log p_{n,k}}

    It is in [0, 1] and sums to 1 over all labels for every prediction. Symmetric noise therefore
    does not move its minimum. It learns little by itself, because making a wrong class even less
    likely also lowers it: see :class:`ActivePassiveLoss`. With probabilities it is the mean over
    labels drawn from them, as in cross entropy.

    Args:
        logits: scores of the classes, before softmax; two classes or more.
        target: the given label, possibly wrong.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, ICML 2020.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    >>> normalized_cross_entropy(logits, torch.tensor([1, 1]), reduction="none")
    tensor([0.5000, 1.0000])
    """
    return reduce(_share(-log_probabilities(logits, target), target), reduction)


def normalized_generalized_cross_entropy(
    logits: Tensor, target: Tensor, *, q: float = 0.7, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the generalized cross entropy as a share of its sum over all labels.

    .. math:: \ell_n = \frac{1 - p_{n,y_n}^q}{C - \sum_k p_{n,k}^q}

    It is as robust as :func:`normalized_cross_entropy`, and near ``q = 0`` equals it. At ``q = 1``
    it is the mean absolute error divided by :math:`C - 1`. The paper normalizes any loss in this
    way. Its public program chooses this one. For probabilities it is the mean over labels drawn
    from them, as in cross entropy.

    Args:
        logits: scores of the classes, before softmax; two classes or more.
        target: the given label, possibly wrong.
        q: from normalized cross entropy (near 0) to absolute error (1), in (0, 1].
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, ICML 2020.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 0.0], [9.0, 0.0]])
    >>> normalized_generalized_cross_entropy(logits, torch.tensor([1, 1]), reduction="none")
    tensor([0.5000, 0.9999])
    """
    check_range("q", q, 0.0, 1.0, open_low=True)
    return reduce(_share(box_cox(log_probabilities(logits, target), q), target), reduction)


def _share(losses: Tensor, target: Tensor) -> Tensor:
    """Return the loss of the label divided by the sum of the losses (B, C) of all."""
    if losses.shape[1] == 1:
        raise ValueError("logits must have two classes or more, got 1, whose share would be 0 of 0")
    return at_label(losses, target) / losses.sum(dim=1)


class NormalizedCrossEntropyLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.normalized_cross_entropy`.

    Args:
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, ICML 2020.

    >>> import torch
    >>> NormalizedCrossEntropyLoss()(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(0.2500)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return normalized_cross_entropy(logits, target, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class NormalizedGeneralizedCrossEntropyLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.normalized_generalized_cross_entropy`.

    Args:
        q: from normalized cross entropy (near 0) to absolute error (1), in (0, 1].
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, ICML 2020.

    >>> import torch
    >>> NormalizedGeneralizedCrossEntropyLoss(q=0.5)(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(0.2500)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, q: float = 0.7, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.q = check_range("q", q, 0.0, 1.0, open_low=True)
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return normalized_generalized_cross_entropy(
            logits, target, q=self.q, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"q={self.q}, reduction={self.reduction!r}"
