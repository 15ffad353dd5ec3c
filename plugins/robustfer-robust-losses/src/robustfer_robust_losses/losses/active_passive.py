"""Active passive loss: a normalized loss plus one like the absolute error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from robustfer.authoring import Reduction, check_choice, check_range, check_reduction, sum_of_terms
from robustfer_robust_losses.losses.mean_absolute_error import mean_absolute_error
from robustfer_robust_losses.losses.normalized import (
    normalized_cross_entropy,
    normalized_generalized_cross_entropy,
)
from robustfer_robust_losses.losses.reverse import reverse_cross_entropy

Active = Literal["normalized_cross_entropy", "normalized_generalized_cross_entropy"]
Passive = Literal["mean_absolute_error", "reverse_cross_entropy"]


class ActivePassiveLoss(nn.Module):
    r"""Add a robust loss of the label's probability and one that lowers the other probabilities.

    .. math:: \ell_n = \alpha\, \ell^{\text{active}}_n + \beta\, \ell^{\text{passive}}_n

    A robust loss learns too little by itself. The paper calls a loss active if it depends only on
    the probability of the label, and passive if it also lowers those of the other classes. One of
    each learns more, and their sum is as robust as they are. This loss is the paper's choice of
    both, by name. For other sums use :class:`robustfer.losses.CompositeLoss`.

    Args:
        active: ``"normalized_cross_entropy"`` or ``"normalized_generalized_cross_entropy"``.
        passive: ``"mean_absolute_error"``, which is half the paper's, or
            ``"reverse_cross_entropy"``, which is 9.21 times as large.
        active_weight: :math:`\alpha`, the weight of the active loss, whose size falls with the
            number of classes.
        passive_weight: :math:`\beta`, the weight of the passive loss.
        q: only for the normalized generalized cross entropy.
        floor: only for the reverse cross entropy.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, ICML 2020.

    >>> import torch
    >>> criterion = ActivePassiveLoss(passive="reverse_cross_entropy", active_weight=10.0)
    >>> criterion.terms(torch.zeros(2, 4), torch.tensor([3, 0]))
    {'normalized_cross_entropy': tensor(2.5000), 'reverse_cross_entropy': tensor(6.9078)}
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        *,
        active: Active = "normalized_cross_entropy",
        passive: Passive = "mean_absolute_error",
        active_weight: float = 1.0,
        passive_weight: float = 1.0,
        q: float = 0.7,
        floor: float = 1e-4,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.active = check_choice("active", active, get_args(Active))
        self.passive = check_choice("passive", passive, get_args(Passive))
        self.active_weight = check_range("active_weight", active_weight, 0.0)
        self.passive_weight = check_range("passive_weight", passive_weight, 0.0)
        self.q = check_range("q", q, 0.0, 1.0, open_low=True)
        self.floor = check_range("floor", floor, 0.0, 1.0, open_low=True, open_high=True)
        self.reduction = check_reduction(reduction)

    def terms(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        if self.active == "normalized_cross_entropy":
            active = normalized_cross_entropy(logits, target, reduction=self.reduction)
        else:
            active = normalized_generalized_cross_entropy(
                logits, target, q=self.q, reduction=self.reduction
            )
        if self.passive == "mean_absolute_error":
            passive = mean_absolute_error(logits, target, reduction=self.reduction)
        else:
            passive = reverse_cross_entropy(
                logits, target, floor=self.floor, reduction=self.reduction
            )
        return {
            self.active: self.active_weight * active,
            self.passive: self.passive_weight * passive,
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"active={self.active!r}, passive={self.passive!r}, "
            f"active_weight={self.active_weight}, passive_weight={self.passive_weight}, "
            f"q={self.q}, floor={self.floor}, reduction={self.reduction!r}"
        )
