"""Forward correction: the network predicts the true class, the loss compares the given label."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer._checks import (
    check_floating,
    check_mask,
    check_range,
    check_target,
    check_within,
    values_are_checked,
)
from robustfer.functional._cross_entropy import at_label, name_label
from robustfer.functional._precision import Reduction, full_precision, reduce


def forward_correction(
    logits: Tensor,
    target: Tensor,
    transition: Tensor,
    *,
    verified: Tensor | None = None,
    q: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the loss of the given label, for a network that predicts the true class.

    .. math::
        \ell_n = \begin{cases} -\log s_n & q = 0 \\ (1 - s_n^q) / q & q > 0 \end{cases}, \qquad
        s_n = \sum_k T_{k,y_n}\, p_{n,k}, \quad p_n = \operatorname{softmax}(z_n)

    :math:`T_{k,l}` is the probability that a sample of class k was given the label l. So
    :math:`s_n` is the probability of the given label. Predict with :math:`p`, never with :math:`s`.
    For a verified sample :math:`T` is the identity. The loss of a soft target is its mean over
    labels drawn from it, as in cross entropy.

    The loss is finite for any logits, and :math:`T` may hold zeros. Only a label that no class is
    ever given has an infinite loss, or 1/q with q > 0, and no gradient. The transition matrix is a
    constant: it gets no gradient.

    Args:
        logits: :math:`z`, scores of the true classes, before softmax.
        target: :math:`y`, the given label, possibly wrong; for verified samples the true label.
        transition: :math:`T`, a row per true class, a column per given label; rows sum to 1. See
            :func:`robustfer.noise.transition_from_verified`.
        verified: which samples a person has verified; default: none.
        q: 0 for the logarithm; in (0, 1] for the robust form, which learns less from a label that
            the network contradicts.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, transition ``(C, C)``,
        verified ``(B)`` bool -> scalar, or ``(B)`` for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction
        Approach, CVPR 2017; Hendrycks et al., Using Trusted Data to Train Deep Networks on Labels
        Corrupted by Severe Noise, NeurIPS 2018.

    >>> transition = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    >>> sure = torch.tensor([[99.0, 0.0]])
    >>> forward_correction(sure, torch.tensor([1]), transition)  # -log 0.1
    tensor(2.3026)
    >>> forward_correction(sure, torch.tensor([1]), transition, verified=torch.tensor([True]))
    tensor(99.)
    """
    others = {} if verified is None else {"verified": (verified, "B")}
    check_target(logits, target, transition=(transition, "C C"), **others)
    check_floating(transition=transition)
    if verified is not None:
        check_mask(verified=verified)
    check_range("q", q, 0.0, 1.0)
    if values_are_checked():
        check_within(0, 1, transition=transition)
    log_p = full_precision(logits).log_softmax(dim=1)
    given = full_precision(transition.detach()).to(log_p.dtype)
    # The gradient of logsumexp is NaN where all terms are -inf. `_loss` fills these labels in.
    never = (given == 0).all(dim=0)
    log_t = given.log().masked_fill(never, 0.0)
    if target.ndim == 1:
        # One column of the matrix per sample is enough; the whole matrix would take (B, C, C).
        try:
            columns, never = log_t.index_select(1, target), never.index_select(0, target)
        except (IndexError, RuntimeError) as error:
            name_label(target, log_p.shape[1], error)
            raise
        log_s = _log_given(log_p, columns.T, verified, target)
        return reduce(_loss(log_s, q, never if verified is None else never & ~verified), reduction)
    log_s = torch.logsumexp(log_p[:, :, None] + log_t, dim=1)
    if verified is not None:
        log_s = log_p.where(verified[:, None], log_s)
        never = never & ~verified[:, None]
    # A probability of 0 times an infinite loss would be NaN.
    values = _loss(log_s, q, never).masked_fill(never & (target == 0), 0.0)
    return reduce(at_label(values, target), reduction)


def _log_given(log_p: Tensor, columns: Tensor, verified: Tensor | None, target: Tensor) -> Tensor:
    if verified is not None:
        classes = torch.arange(log_p.shape[1], device=target.device)
        identity = (target[:, None] == classes).to(log_p.dtype).log()
        columns = identity.where(verified[:, None], columns)
    return torch.logsumexp(log_p + columns, dim=1)


def _loss(log_s: Tensor, q: float, never: Tensor) -> Tensor:
    # expm1, because 1 - s**q loses digits where q is small or s is near 1.
    loss = -log_s if q == 0 else -torch.expm1(q * log_s) / q
    return loss.masked_fill(never, float("inf") if q == 0 else 1 / q)
