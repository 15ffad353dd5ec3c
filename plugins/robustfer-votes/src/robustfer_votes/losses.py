"""Losses for crowd votes as modules."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer.authoring import Reduction, check_bool, check_range, check_reduction
from robustfer_votes.functional import drawn_vote_cross_entropy, partial_label, vote_cross_entropy


class _VoteLoss(nn.Module):
    """Hold the options of all losses for votes."""

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        *,
        drop_single: bool = False,
        weighted: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        self.drop_single = check_bool("drop_single", drop_single)
        self.weighted = check_bool("weighted", weighted)
        self.reduction = check_reduction(reduction)

    def extra_repr(self) -> str:
        return (
            f"drop_single={self.drop_single}, weighted={self.weighted}, "
            f"reduction={self.reduction!r}"
        )


class VoteCrossEntropyLoss(_VoteLoss):
    """Module form of :func:`robustfer_votes.functional.vote_cross_entropy`.

    Args:
        smoothing: pseudo votes for each class, which make few votes count less than many; 0 keeps
            the shares.
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.
        weighted: weigh each face by the number of its votes.
        reduction: ``"mean"`` by the weights, ``"sum"`` of the weighted values over the batch, or
            ``"none"`` for a weighted value per sample.

    Shape:
        logits ``(B, C)``, votes ``(B, C)`` int64 -> scalar, or ``(B)`` for ``"none"``; float32 for
        half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> import torch
    >>> criterion = VoteCrossEntropyLoss(smoothing=0.3)
    >>> criterion(torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 1]]))
    tensor(0.6921)
    """

    def __init__(
        self,
        *,
        smoothing: float = 0.3,
        drop_single: bool = False,
        weighted: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(drop_single=drop_single, weighted=weighted, reduction=reduction)
        self.smoothing = check_range("smoothing", smoothing, 0.0)

    def forward(self, logits: Tensor, votes: Tensor) -> Tensor:
        return vote_cross_entropy(
            logits,
            votes,
            smoothing=self.smoothing,
            drop_single=self.drop_single,
            weighted=self.weighted,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"smoothing={self.smoothing}, {super().extra_repr()}"


class DrawnVoteLoss(_VoteLoss):
    """Module form of :func:`robustfer_votes.functional.drawn_vote_cross_entropy`.

    Args:
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.
        weighted: weigh each face by the number of its votes.
        reduction: ``"mean"`` by the weights, ``"sum"`` of the weighted values over the batch, or
            ``"none"`` for a weighted value per sample.

    Shape:
        logits ``(B, C)``, votes ``(B, C)`` int64, vote_draw ``(B)`` in [0, 1), new random numbers
        in each step -> scalar, or ``(B)`` for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> import torch
    >>> logits, votes = torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 1]])
    >>> DrawnVoteLoss()(logits, votes, vote_draw=torch.tensor([0.9]))
    tensor(2.1269)
    """

    def forward(self, logits: Tensor, votes: Tensor, vote_draw: Tensor) -> Tensor:
        return drawn_vote_cross_entropy(
            logits,
            votes,
            vote_draw,
            drop_single=self.drop_single,
            weighted=self.weighted,
            reduction=self.reduction,
        )


class PartialLabelLoss(_VoteLoss):
    """Module form of :func:`robustfer_votes.functional.partial_label`.

    Args:
        min_share: least share of the votes for a class in the set, in [0, 1]; FERPlus's authors
            take 0.3.
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.
        weighted: weigh each face by the number of its votes.
        reduction: ``"mean"`` by the weights, ``"sum"`` of the weighted values over the batch, or
            ``"none"`` for a weighted value per sample.

    Shape:
        logits ``(B, C)``, votes ``(B, C)`` int64 -> scalar, or ``(B)`` for ``"none"``; float32 for
        half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Jin and Ghahramani, Learning with Multiple Labels, NIPS 2002; Barsoum et al., Training
        Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution,
        ICMI 2016.

    >>> import torch
    >>> criterion = PartialLabelLoss(min_share=0.3)
    >>> criterion(torch.zeros(1, 4), torch.tensor([[5, 4, 1, 0]]))
    tensor(0.6931)
    """

    def __init__(
        self,
        *,
        min_share: float = 0.0,
        drop_single: bool = False,
        weighted: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(drop_single=drop_single, weighted=weighted, reduction=reduction)
        self.min_share = check_range("min_share", min_share, 0.0, 1.0)

    def forward(self, logits: Tensor, votes: Tensor) -> Tensor:
        return partial_label(
            logits,
            votes,
            min_share=self.min_share,
            drop_single=self.drop_single,
            weighted=self.weighted,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"min_share={self.min_share}, {super().extra_repr()}"
