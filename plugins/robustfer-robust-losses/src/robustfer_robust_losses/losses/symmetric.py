"""Symmetric cross entropy: cross entropy and its reverse."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer.authoring import Reduction, check_range, check_reduction, cross_entropy, sum_of_terms
from robustfer_robust_losses.losses.reverse import reverse_cross_entropy


def symmetric_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    cross_entropy_weight: float = 0.1,
    reverse_weight: float = 1.0,
    floor: float = 1e-4,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return cross entropy, which learns fast, plus reverse cross entropy, which is robust.

    .. math:: \ell_n = -\alpha \log p_{n,y_n} - \beta \sum_k p_{n,k} \log \max(t_{n,k}, f)

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong.
        cross_entropy_weight: :math:`\alpha`. A larger one learns hard tasks, but also wrong labels.
        reverse_weight: :math:`\beta`, the weight of the reverse cross entropy.
        floor: f, replaces the zeros of a label, in (0, 1).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019.

    >>> import torch
    >>> symmetric_cross_entropy(torch.zeros(1, 2), torch.tensor([1]))  # 0.1 log 2 + 9.21 / 2
    tensor(4.6745)
    """
    check_range("cross_entropy_weight", cross_entropy_weight, 0.0)
    check_range("reverse_weight", reverse_weight, 0.0)
    # First, because it checks the tensors.
    reverse = reverse_cross_entropy(logits, target, floor=floor, reduction=reduction)
    entropy = cross_entropy(logits, target, reduction=reduction)
    return cross_entropy_weight * entropy + reverse_weight * reverse


class SymmetricCrossEntropyLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.symmetric_cross_entropy`.

    Args:
        cross_entropy_weight: weight of the cross entropy, which learns fast.
        reverse_weight: weight of the reverse cross entropy, which is robust.
        floor: replaces the zeros of a label in the reverse cross entropy, in (0, 1).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019.

    >>> import torch
    >>> criterion = SymmetricCrossEntropyLoss(cross_entropy_weight=0.1, reverse_weight=1.0)
    >>> criterion.terms(torch.zeros(2, 4), torch.tensor([3, 0]))
    {'cross_entropy': tensor(0.1386), 'reverse_cross_entropy': tensor(6.9078)}
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        *,
        cross_entropy_weight: float = 0.1,
        reverse_weight: float = 1.0,
        floor: float = 1e-4,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.cross_entropy_weight = check_range("cross_entropy_weight", cross_entropy_weight, 0.0)
        self.reverse_weight = check_range("reverse_weight", reverse_weight, 0.0)
        self.floor = check_range("floor", floor, 0.0, 1.0, open_low=True, open_high=True)
        self.reduction = check_reduction(reduction)

    def terms(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        reverse = reverse_cross_entropy(logits, target, floor=self.floor, reduction=self.reduction)
        entropy = cross_entropy(logits, target, reduction=self.reduction)
        return {
            "cross_entropy": self.cross_entropy_weight * entropy,
            "reverse_cross_entropy": self.reverse_weight * reverse,
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"cross_entropy_weight={self.cross_entropy_weight}, "
            f"reverse_weight={self.reverse_weight}, floor={self.floor}, "
            f"reduction={self.reduction!r}"
        )
