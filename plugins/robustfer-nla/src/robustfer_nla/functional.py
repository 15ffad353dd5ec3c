"""Noise-aware weights, and the divergence of two predictions, as functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustfer.authoring import (
    Reduction,
    at_label,
    check_floating,
    check_range,
    check_shapes,
    check_target,
    full_precision,
    reduce,
    values_are_checked,
)

# Means and covariances of the two bells over (probability of the label, highest other one).
_MEAN_AGREED, _MEAN_OTHER = (0.5, 0.5), (0.30, 0.15)
_LONG_AGREED, _SHORT_AGREED = 0.8**2, (0.8 / 2) ** 2
_LONG_OTHER, _SHORT_OTHER = 0.91**2, (0.91 / 6) ** 2
_RATE = 15.0


def noise_aware_weights(
    logits: Tensor, target: Tensor, progress: Tensor, *, agreed_weight: float = 1.0
) -> Tensor:
    r"""Return a weight per sample: large if two classes compete, small for probable noise.

    .. math::
        w_n = \begin{cases}
            \lambda_t\, \mathcal N(x_n;\, (0.5, 0.5),\, S_t) & \arg\max_k p_{n,k} = y_n \\
            \mathcal N(x_n;\, (0.30, 0.15),\, S_f) & \text{otherwise}
        \end{cases}, \qquad
        x_n = \bigl(p_{n,y_n},\; \max_{k \ne y_n} p_{n,k}\bigr)

    .. math::
        S = \begin{pmatrix} M & m \\ m & M \end{pmatrix}, \quad
        \begin{aligned}
            M_t &= 0.8^2 + 0.4^2, & m_t &= \varepsilon\, (0.4^2 - 0.8^2), &
            \varepsilon &= 1 - e^{-15 s} \\
            M_f &= 0.91^2 + (0.91 / 6)^2, & m_f &= 0.91^2 - (0.91 / 6)^2
        \end{aligned}

    Both are densities of a normal distribution. The first is round at the start of the training. It
    soon stretches along the line where the two probabilities sum to 1: there only two classes
    compete. The weights have a gradient. Detach them to use them as constants.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong. Of probabilities, the most probable class counts.
        progress: :math:`s`, the share of the training that is done, from 0 to 1.
        agreed_weight: :math:`\lambda_t`, a factor for samples whose prediction is the label.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, progress ``()`` ->
        ``(B)``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Lee et al., Navigating Label Ambiguity for Facial Expression Recognition in the Wild,
        AAAI 2025.

    >>> logits, done = torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor(1.0)
    >>> noise_aware_weights(logits, torch.tensor([0, 0]), done)
    tensor([0.2487, 0.2046])
    """
    check_range("agreed_weight", agreed_weight, 0.0)
    _check_progress(target, logits, progress)
    p = full_precision(logits).softmax(dim=1)
    label = target if target.ndim == 1 else target.argmax(dim=1)
    own = at_label(p, label)
    other = p.scatter(1, label[:, None], -1.0).amax(dim=1)
    eps = -torch.expm1(-_RATE * progress.detach().to(p.dtype))
    shared = eps * (_SHORT_AGREED - _LONG_AGREED)
    spread = _LONG_AGREED + _SHORT_AGREED
    agreed = _bell(own, other, _MEAN_AGREED, spread + shared, spread - shared)
    disagreed = _bell(own, other, _MEAN_OTHER, 2 * _LONG_OTHER, 2 * _SHORT_OTHER)
    return torch.where(p.argmax(dim=1) == label, agreed_weight * agreed, disagreed)


def jensen_shannon(
    logits: Tensor, logits_flipped: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the Jensen-Shannon divergence of two predictions for the same sample.

    .. math::
        \ell_n = \tfrac12 \mathrm{KL}(p_n \,\|\, m_n) + \tfrac12 \mathrm{KL}(q_n \,\|\, m_n),
        \qquad m_n = \tfrac12 (p_n + q_n)

    It is between 0 and :math:`\log 2`. It is computed from the logits, so no logarithm of a zero
    occurs.

    Args:
        logits: scores of the classes for an image, before softmax; :math:`p`.
        logits_flipped: those for its mirror image; :math:`q`.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        both ``(B, C)`` -> scalar, or ``(B)`` for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Lin, Divergence Measures Based on the Shannon Entropy, IEEE Transactions on Information
        Theory, 1991.

    >>> jensen_shannon(torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]]))
    tensor(0.6931)
    """
    log_p, log_q = _log_probabilities(logits, logits_flipped)
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return reduce(_mean_divergence(log_p, log_q, log_mean), reduction)


def geometric_jensen_shannon(
    logits: Tensor, logits_flipped: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the mean divergence of two predictions from the prediction of their mean logits.

    .. math::
        \ell_n = \tfrac12 \mathrm{KL}(p_n \,\|\, g_n) + \tfrac12 \mathrm{KL}(q_n \,\|\, g_n),
        \qquad g_n = \operatorname{softmax}\bigl(\tfrac12 (z_n + z'_n)\bigr)

    This is the consistency of NLA's public program. The softmax of the mean logits is the geometric
    mean of the two predictions, scaled to sum to 1. So this is not the Jensen-Shannon divergence,
    and it has no upper bound.

    Args:
        logits: scores of the classes for an image, before softmax; :math:`z`.
        logits_flipped: those for its mirror image; :math:`z'`.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        both ``(B, C)`` -> scalar, or ``(B)`` for ``"none"``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Lee et al., Navigating Label Ambiguity for Facial Expression Recognition in the Wild,
        AAAI 2025.

    >>> geometric_jensen_shannon(torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 27.0]]))
    tensor(4.4990)
    """
    log_p, log_q = _log_probabilities(logits, logits_flipped)
    log_mean = (0.5 * (log_p + log_q)).log_softmax(dim=1)
    return reduce(_mean_divergence(log_p, log_q, log_mean), reduction)


def _bell(
    own: Tensor,
    other: Tensor,
    mean: tuple[float, float],
    along: Tensor | float,
    across: Tensor | float,
) -> Tensor:
    """Return a normal density. Its covariance has eigenvalues along (1, 1) and across it."""
    x, y = own - mean[0], other - mean[1]
    distance = (x + y).square() / (2 * along) + (x - y).square() / (2 * across)
    return (-0.5 * distance).exp() / (2 * math.pi * (along * across) ** 0.5)


def _mean_divergence(log_p: Tensor, log_q: Tensor, log_mean: Tensor) -> Tensor:
    both = log_p.exp() * (log_p - log_mean) + log_q.exp() * (log_q - log_mean)
    return 0.5 * both.sum(dim=1)


def _log_probabilities(logits: Tensor, logits_flipped: Tensor) -> tuple[Tensor, Tensor]:
    check_shapes(logits=(logits, "B C"), logits_flipped=(logits_flipped, "B C"))
    check_floating(logits=logits, logits_flipped=logits_flipped)
    log_p = full_precision(logits).log_softmax(dim=1)
    return log_p, full_precision(logits_flipped).log_softmax(dim=1)


def _check_progress(target: Tensor, logits: Tensor, progress: Tensor) -> None:
    check_target(logits, target, progress=(progress, ""))
    check_floating(progress=progress)
    if values_are_checked() and not 0 <= progress <= 1:
        raise ValueError(
            f"progress must lie in [0, 1], got {float(progress):g}; pass the share of the "
            "training that is done"
        )
