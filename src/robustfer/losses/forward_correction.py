"""Forward correction as a module that holds the transition matrix."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer._checks import check_distribution, check_floating, check_range, check_shapes
from robustfer.functional import forward_correction
from robustfer.functional._precision import Reduction, check_reduction

# Wide enough for float32 rows and for entries rounded to a few decimals.
_TOLERANCE = 1e-4


class ForwardCorrectionLoss(nn.Module):
    """Module form of :func:`robustfer.functional.forward_correction`.

    Args:
        transition: probability that a sample of the true class (row) was given the label (column),
            ``(C, C)``; rows sum to 1. It moves with the module, but is not in its ``state_dict``.
        q: 0 for the logarithm; in (0, 1] for the robust form, which learns less from a label that
            the network contradicts.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, verified ``(B)`` bool
        -> scalar, or ``(B)`` for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit, a row of ``transition`` is not a distribution, or a
            column holds only zeros (the loss of its label would be infinite).

    Reference:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction
        Approach, CVPR 2017; Hendrycks et al., Using Trusted Data to Train Deep Networks on Labels
        Corrupted by Severe Noise, NeurIPS 2018.

    >>> import torch
    >>> criterion = ForwardCorrectionLoss(transition=torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
    >>> criterion(torch.tensor([[99.0, 0.0]]), torch.tensor([1]))
    tensor(2.3026)
    """

    __call__: Callable[..., Tensor]
    transition: Tensor

    def __init__(
        self, *, transition: Tensor, q: float = 0.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        _check_transition(transition)
        self.q = check_range("q", q, 0.0, 1.0)
        self.register_buffer("transition", transition.detach().clone(), persistent=False)
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor, verified: Tensor | None = None) -> Tensor:
        return forward_correction(
            logits,
            target,
            self.transition,
            verified=verified,
            q=self.q,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"num_classes={len(self.transition)}, q={self.q}, reduction={self.reduction!r}"


def _check_transition(transition: Tensor) -> None:
    check_shapes(transition=(transition, "C C"))
    check_floating(transition=transition)
    check_distribution(_TOLERANCE, transition=transition)
    empty = transition.detach().any(dim=0).logical_not().nonzero()
    if len(empty):
        raise ValueError(
            f"columns of transition must not be all zero, got zeros in column {int(empty[0])}, "
            "which make the loss of that label infinite; add a small probability to every entry"
        )
