"""Rank regularization as a module, to combine with any classification loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustfer._checks import Variant, check_bool, check_range, check_variant
from robustfer.functional import rank_regularization
from robustfer.functional._gather import gather_rows, several_processes
from robustfer.functional.ranking import check_high_ratio, check_importance


class RankRegularizationLoss(nn.Module):
    """Module form of :func:`robustfer.functional.rank_regularization`.

    A learnable margin is a parameter for the optimizer. The loss can only lower it, until it equals
    the gap between the groups. Several processes keep the same margin only with ``gather``.

    Args:
        margin: gap required between the means of the two groups, in [0, 1].
        high_ratio: share of the batch in the high group, in (0, 1).
        learnable_margin: make ``margin`` a parameter that starts at this value.
        variant: ``"paper"``, or ``"official"`` for the group size of the authors' code and its loss
            for a batch of one.
        gather: rank the joined batch of all processes. Each must call this at the same point. It
            costs one synchronisation with the GPU, for the lengths, and a break in a compiled
            graph. With one process it has no effect.

    Shape:
        importance ``(B)`` -> scalar; float32 for half inputs.

    Raises:
        TypeError: ``learnable_margin`` or ``gather`` is not a bool.
        ValueError: an option or an argument does not fit.

    Reference:
        Wang et al., Suppressing Uncertainties for Large-Scale Facial Expression Recognition,
        CVPR 2020.

    >>> criterion = RankRegularizationLoss(margin=0.15, high_ratio=0.7)
    >>> criterion(torch.tensor([0.9, 0.8, 0.8]))
    tensor(0.1000)
    """

    __call__: Callable[..., Tensor]
    margin: float | nn.Parameter

    def __init__(
        self,
        *,
        margin: float = 0.15,
        high_ratio: float = 0.7,
        learnable_margin: bool = False,
        variant: Variant = "paper",
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.margin = make_margin(margin, learnable=learnable_margin)
        self.high_ratio = check_high_ratio(high_ratio)
        self.variant = check_variant(variant)
        self.gather = check_bool("gather", gather)

    def forward(self, importance: Tensor) -> Tensor:
        if self.gather and several_processes():
            # A wrong shape must raise before any process waits for another.
            check_importance(importance)
            (importance,), _ = gather_rows(importance)
        return rank_regularization(
            importance, margin=self.margin, high_ratio=self.high_ratio, variant=self.variant
        )

    def extra_repr(self) -> str:
        return (
            f"{margin_text(self.margin)}, high_ratio={self.high_ratio}, "
            f"variant={self.variant!r}, gather={self.gather}"
        )


def make_margin(margin: float, *, learnable: bool) -> float | nn.Parameter:
    """Return a margin in [0, 1], as a parameter if it is learnable."""
    check_range("margin", margin, 0.0, 1.0)
    if check_bool("learnable_margin", learnable):
        return nn.Parameter(torch.tensor(float(margin)))
    return margin


def margin_text(margin: float | nn.Parameter) -> str:
    """Return the text of a margin in a repr."""
    return f"margin={'learnt' if isinstance(margin, nn.Parameter) else margin}"
