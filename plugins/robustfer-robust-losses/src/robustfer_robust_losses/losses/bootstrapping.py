"""Bootstrapping: the network's own prediction as a part of the label."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer.authoring import Reduction, at_label, check_range, check_reduction, reduce
from robustfer_robust_losses.losses._log_probabilities import log_probabilities


def soft_bootstrapping(
    logits: Tensor, target: Tensor, *, label_weight: float = 0.95, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the cross entropy with a mixture of the label and the prediction.

    .. math:: \ell_n = -\sum_k \bigl(\beta\, t_{n,k} + (1 - \beta)\, p_{n,k}\bigr) \log p_{n,k}

    The prediction has a gradient both as label and inside the logarithm. So the loss is cross
    entropy plus the entropy of the prediction. With a constant prediction as label, the second part
    would have no gradient. With ``label_weight=1`` it is cross entropy. We could not obtain the
    paper, so this is the formula that others state.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong.
        label_weight: :math:`\beta`, the weight of the label, in [0, 1].
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR 2015
        workshop.

    >>> import torch
    >>> soft_bootstrapping(torch.zeros(1, 2), torch.tensor([1]))  # both parts are log 2
    tensor(0.6931)
    """
    check_range("label_weight", label_weight, 0.0, 1.0)
    log_p = log_probabilities(logits, target)
    entropy = -(log_p.exp() * log_p).sum(dim=1)
    per_sample = label_weight * at_label(-log_p, target) + (1 - label_weight) * entropy
    return reduce(per_sample, reduction)


def hard_bootstrapping(
    logits: Tensor, target: Tensor, *, label_weight: float = 0.8, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the cross entropy with a mixture of the label and the most probable class.

    .. math:: \ell_n = -\beta \sum_k t_{n,k} \log p_{n,k} - (1 - \beta) \log \max_k p_{n,k}

    With ``label_weight=1`` it is cross entropy. We could not obtain the paper, so this is the
    formula that others state.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong.
        label_weight: :math:`\beta`, the weight of the label, in [0, 1].
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR 2015
        workshop.

    >>> import torch
    >>> hard_bootstrapping(torch.tensor([[9.0, 0.0]]), torch.tensor([1]), label_weight=0.5)
    tensor(4.5001)
    """
    check_range("label_weight", label_weight, 0.0, 1.0)
    log_p = log_probabilities(logits, target)
    per_sample = -label_weight * at_label(log_p, target) - (1 - label_weight) * log_p.amax(dim=1)
    return reduce(per_sample, reduction)


class SoftBootstrappingLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.soft_bootstrapping`.

    Args:
        label_weight: weight of the label, in [0, 1]. The prediction has the rest.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR 2015
        workshop.

    >>> import torch
    >>> SoftBootstrappingLoss()(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(1.3863)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, label_weight: float = 0.95, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.label_weight = check_range("label_weight", label_weight, 0.0, 1.0)
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return soft_bootstrapping(
            logits, target, label_weight=self.label_weight, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"label_weight={self.label_weight}, reduction={self.reduction!r}"


class HardBootstrappingLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.hard_bootstrapping`.

    Args:
        label_weight: weight of the label, in [0, 1]. The most probable class has the rest.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, ICLR 2015
        workshop.

    >>> import torch
    >>> HardBootstrappingLoss()(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(1.3863)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, label_weight: float = 0.8, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.label_weight = check_range("label_weight", label_weight, 0.0, 1.0)
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return hard_bootstrapping(
            logits, target, label_weight=self.label_weight, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"label_weight={self.label_weight}, reduction={self.reduction!r}"
