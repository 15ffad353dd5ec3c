"""Truncated generalized cross entropy, without the memory that the paper's pruning keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

from torch import Tensor, nn

from robustfer.authoring import Reduction, at_label, check_choice, check_range, reduce
from robustfer_robust_losses.losses._log_probabilities import box_cox, log_probabilities


def truncated_generalized_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    threshold: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Generalized cross entropy, constant where a label is believed too little.

    .. math::
        \ell_n = L_q\bigl(\max(p_{n,y_n}, k)\bigr), \qquad L_q(p) = \frac{1 - p^q}{q}

    A label that the network gives no more than the threshold :math:`k` has no gradient: it is
    left out. What the network believes now decides, in every batch anew, and nothing is
    remembered. **An untrained network believes no label as much as 0.5 and would never begin to
    learn.** Train with ``threshold=0``, which is generalized cross entropy, until it tells the
    classes apart, then raise the threshold.

    The paper goes on from here: every few epochs it decides, for each sample of the training set,
    whether it counts (:math:`w_i = 1` where :math:`L_q(p_{y_i}) < L_q(k)`), and between these
    rounds the samples that count do so wherever their belief goes. That takes state by sample.
    Right after a round both have the same gradient. The paper defines the loss for classes. Of
    probabilities it is the mean over labels drawn from them, as cross entropy is.

    Args:
        logits: scores of the classes, before softmax.
        target: the label as given, possibly wrong.
        q: where between cross entropy (near 0) and absolute error (1), in (0, 1].
        threshold: the belief k up to which a label is left out, in [0, 1).
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with
        Noisy Labels, NeurIPS 2018.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 2.0], [9.0, 0.0]])
    >>> truncated_generalized_cross_entropy(logits, torch.tensor([1, 1]), q=1.0, reduction="none")
    tensor([0.1192, 0.5000])
    """
    check_range("q", q, 0.0, 1.0, open_low=True)
    check_range("threshold", threshold, 0.0, 1.0, open_high=True)
    log_p = log_probabilities(logits, target)
    if threshold > 0:
        log_p = log_p.clamp(min=math.log(threshold))
    return reduce(at_label(box_cox(log_p, q), target), reduction)


class TruncatedGeneralizedCrossEntropyLoss(nn.Module):
    """Module form of :func:`robustfer_robust_losses.losses.truncated_generalized_cross_entropy`.

    ``threshold`` is an attribute that the loop sets: begin with 0, as an untrained network
    believes no label enough to learn from it.

    Args:
        q: where between cross entropy (near 0) and absolute error (1), in (0, 1].
        threshold: the belief up to which a label is left out, in [0, 1); 0 leaves out none.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities -> scalar, or ``(B)``
        for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with
        Noisy Labels, NeurIPS 2018.

    >>> import torch
    >>> criterion = TruncatedGeneralizedCrossEntropyLoss(q=0.5, threshold=0.0)
    >>> criterion(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(1.)
    >>> criterion.threshold = 0.5  # once the network tells the classes apart
    >>> criterion(torch.zeros(2, 4), torch.tensor([3, 0]))
    tensor(0.5858)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self, *, q: float = 0.7, threshold: float = 0.5, reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        self.q = check_range("q", q, 0.0, 1.0, open_low=True)
        self.threshold = check_range("threshold", threshold, 0.0, 1.0, open_high=True)
        self.reduction = check_choice("reduction", reduction, get_args(Reduction))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return truncated_generalized_cross_entropy(
            logits, target, q=self.q, threshold=self.threshold, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"q={self.q}, threshold={self.threshold}, reduction={self.reduction!r}"
