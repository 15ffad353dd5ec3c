"""Truncated generalized cross entropy, without the state of the paper's pruning."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from robustfer.authoring import Reduction, at_label, check_range, check_reduction, reduce
from robustfer_robust_losses.losses._log_probabilities import box_cox, log_probabilities


def truncated_generalized_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    q: float = 0.7,
    threshold: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return generalized cross entropy that is constant for labels of low probability.

    .. math::
        \ell_n = L_q\bigl(\max(p_{n,y_n}, k)\bigr), \qquad L_q(p) = \frac{1 - p^q}{q}

    A label with a probability of at most the threshold :math:`k` has no gradient, so it is left
    out. The present prediction decides this in every batch. Nothing is remembered. **An untrained
    network gives no label a probability of 0.5, and would never start to learn.** Train with
    ``threshold=0``, which is generalized cross entropy, until it can classify. Then raise the
    threshold.

    The paper goes further. Every few epochs it decides for each sample of the training set whether
    it counts (:math:`w_i = 1` if :math:`L_q(p_{y_i}) < L_q(k)`). Until the next decision these
    samples count for any prediction. That needs a state per sample. Just after a decision both have
    the same gradient. The paper defines the loss for classes. For probabilities it is the mean over
    labels drawn from them, as in cross entropy.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong.
        q: from cross entropy (near 0) to absolute error (1), in (0, 1].
        threshold: the probability k up to which a label is left out, in [0, 1).
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

    ``threshold`` is an attribute that the loop sets. Start with 0, because an untrained network
    gives all labels a low probability.

    Args:
        q: from cross entropy (near 0) to absolute error (1), in (0, 1].
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
        self.reduction = check_reduction(reduction)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return truncated_generalized_cross_entropy(
            logits, target, q=self.q, threshold=self.threshold, reduction=self.reduction
        )

    def extra_repr(self) -> str:
        return f"q={self.q}, threshold={self.threshold}, reduction={self.reduction!r}"
