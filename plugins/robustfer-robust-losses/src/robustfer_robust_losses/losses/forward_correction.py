"""Forward correction: the network predicts the true class, the loss how it was labelled."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer.authoring import (
    Reduction,
    check_finite,
    check_floating,
    check_range,
    check_reduction,
    check_shapes,
    check_target,
    check_whole_number,
    check_within,
    full_precision,
    reduce,
    values_are_checked,
)
from robustfer_robust_losses.losses._log_probabilities import at_label

# Room for rows in single precision, and for figures printed with four digits and more.
_TOLERANCE = 1e-4


def forward_correction(
    logits: Tensor, target: Tensor, transition: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Cross entropy of the label as given, if labels go wrong as a matrix says.

    .. math:: \ell_n = -\log \sum_c T_{c,y_n}\, p_{n,c}

    :math:`T_{c,k}` is the probability that a sample of class c was labelled k, and the sum that of
    the given label. The network itself is left to predict the true class, which at evaluation
    is its softmax as usual. Of probabilities it is the mean over labels drawn from them, as cross
    entropy is. It is computed from logarithms and finite for any logits, unless a label has
    probability zero in every class, which the module form refuses.

    Args:
        logits: scores of the true classes, before softmax.
        target: the label as given, possibly wrong.
        transition: the matrix T, a row for each true class, a column for each given label; rows
            sum to 1. :func:`robustfer.noise.transition_matrix` and
            :func:`robustfer.noise.noise_matrix` make such ones.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value a sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, transition ``(C, C)``
        -> scalar, or ``(B)`` for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction
        Approach, CVPR 2017.

    >>> transition = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> sure = torch.tensor([[99.0, 0.0]])
    >>> forward_correction(sure, torch.tensor([1]), transition)  # -log 0.1
    tensor(2.3026)
    """
    check_target(target, logits, transition=(transition, "C C"))
    check_floating(transition=transition)
    if values_are_checked():
        check_finite(transition=transition)
        check_within(0, 1, transition=transition)
    log_p = F.log_softmax(full_precision(logits), dim=1)
    log_t = full_precision(transition).log().to(log_p.dtype)
    if target.ndim == 2:
        log_given = torch.logsumexp(log_p[:, :, None] + log_t, dim=1)
        return reduce(at_label(-log_given, target), reduction)
    # Of one label its column is enough, where all would take the memory of (B, C, C).
    columns = log_t.index_select(1, target).T
    return reduce(-torch.logsumexp(log_p + columns, dim=1), reduction)


class ForwardCorrectionLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.forward_correction`.

    Args:
        transition: probability that a sample of the true class (row) was given the label (column),
            ``(C, C)``, rows that sum to 1. A constant: it moves with the module, but is not in
            its ``state_dict``.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value a sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit: a row is no distribution, or a column is all zeros, so
            that the loss of its label would be infinite.

    Reference:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction
        Approach, CVPR 2017.

    >>> criterion = ForwardCorrectionLoss(transition=torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
    >>> criterion(torch.tensor([[99.0, 0.0]]), torch.tensor([1]))
    tensor(2.3026)
    """

    __call__: Callable[..., Tensor]
    transition: Tensor

    def __init__(self, *, transition: Tensor, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        _check_transition(transition)
        self.register_buffer("transition", transition.detach().clone(), persistent=False)
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return forward_correction(logits, target, self.transition, reduction=self.reduction)

    def extra_repr(self) -> str:
        return f"num_classes={len(self.transition)}, reduction={self.reduction!r}"


def symmetric_forward_correction(
    *, num_classes: int, rate: float, reduction: Reduction = "mean"
) -> ForwardCorrectionLoss:
    """Make the forward correction for labels of which each wrong one is equally likely.

    Args:
        num_classes: number of classes C, at least 2.
        rate: share of the labels that are wrong, in [0, 1].
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value a sample.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction
        Approach, CVPR 2017.

    >>> symmetric_forward_correction(num_classes=3, rate=0.3).transition
    tensor([[0.7000, 0.1500, 0.1500],
            [0.1500, 0.7000, 0.1500],
            [0.1500, 0.1500, 0.7000]])
    """
    num_classes = check_whole_number("num_classes", num_classes, 2)
    check_range("rate", rate, 0.0, 1.0)
    transition = torch.full(
        (num_classes, num_classes), rate / (num_classes - 1), dtype=torch.float32, device="cpu"
    )
    return ForwardCorrectionLoss(
        transition=transition.fill_diagonal_(1 - rate), reduction=reduction
    )


def _check_transition(transition: Tensor) -> None:
    check_shapes(transition=(transition, "C C"))
    check_floating(transition=transition)
    rows = full_precision(transition.detach())
    right = ((rows.sum(dim=1) - 1).abs() <= _TOLERANCE) & (rows >= 0).all(dim=1)
    for row, values in enumerate(rows):
        if not right[row]:
            raise ValueError(
                f"rows of transition must be probabilities that sum to 1, row {row} sums to "
                f"{float(values.sum()):.6g}, its least value is {float(values.min()):.6g}"
            )
    for label, column in enumerate(rows.T):
        if not column.any():
            raise ValueError(
                f"column {label} of transition must not be all zeros: no class would be given "
                "this label, and its loss would be infinite"
            )
