"""Sparse over-parameterization as functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustfer.authoring import (
    Reduction,
    at_label,
    check_floating,
    check_shapes,
    check_target,
    full_precision,
    reduce,
)

# Keeps the logarithm of a corrected probability away from that of 0.
_LEAST_PROBABILITY = 1e-4


def corrected_cross_entropy(
    logits: Tensor, target: Tensor, u: Tensor, v: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the cross entropy of predictions to which a sample's label noise is added.

    .. math::
        \ell_n = -\sum_k y_{n,k} \log \bar p_{n,k}, \qquad
        \bar p_n \propto \max\bigl(p_n + U_n - \mathrm{sg}(V_n),\, 10^{-4}\bigr)

    .. math::
        U_n = \min(u_n^2\, y_n,\, 1), \qquad V_n = \min\bigl(v_n^2 (1 - y_n),\, 1\bigr)

    :math:`y` is the label as a row of probabilities, :math:`p` the prediction. As long as
    :math:`V` is 0, the gradient by the logits is :math:`\frac{p_y}{p_y + u^2} (p - y)`: a large
    :math:`u` takes the label's weight. No gradient reaches :math:`v`.

    Args:
        logits: scores of the classes, before softmax.
        target: the given label, possibly wrong.
        u: root of what is added at the label.
        v: roots of what is taken away at each other class.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, u ``(B)``, v
        ``(B, C)`` -> scalar, or ``(B)`` for ``"none"``; float32 for half logits.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Liu et al., Robust Training under Label Noise by Over-parameterization, ICML 2022.

    >>> logits, target, v = torch.zeros(1, 2), torch.tensor([0]), torch.zeros(1, 2)
    >>> corrected_cross_entropy(logits, target, torch.zeros(1), v)
    tensor(0.6931)
    >>> corrected_cross_entropy(logits, target, torch.ones(1), v)
    tensor(0.2877)
    """
    label, added, taken = _noise(logits, target, u, v)
    p = full_precision(logits).softmax(dim=1)
    corrected = (p + added - taken.detach()).clamp(min=_LEAST_PROBABILITY)
    log_p = corrected.log() - corrected.sum(dim=1, keepdim=True).log()
    return reduce(-(label * log_p).sum(dim=1), reduction)


def noise_error(
    logits: Tensor, target: Tensor, u: Tensor, v: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return how far the predicted class and the label noise are from the label.

    .. math::
        \ell_n = \bigl\lVert \mathrm{onehot}(\arg\max_k p_{n,k}) + U_n - V_n - y_n \bigr\rVert^2

    Only :math:`u` and :math:`v` receive a gradient. Where the network predicts the label, the noise
    shrinks. Where it predicts another class, the noise grows to explain that.

    Args:
        logits: scores of the classes, before softmax; constants.
        target: the given label, possibly wrong.
        u: root of what is added at the label.
        v: roots of what is taken away at each other class.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, u ``(B)``, v
        ``(B, C)`` -> scalar, or ``(B)`` for ``"none"``; float32 for half logits.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Liu et al., Robust Training under Label Noise by Over-parameterization, ICML 2022.

    >>> logits, target = torch.tensor([[0.0, 9.0]]), torch.tensor([0])
    >>> noise_error(logits, target, torch.zeros(1), torch.zeros(1, 2))
    tensor(2.)
    >>> noise_error(logits, target, torch.ones(1), torch.ones(1, 2))
    tensor(0.)
    """
    label, added, taken = _noise(logits, target, u, v)
    predicted = _one_hot(logits.argmax(dim=1), label)
    return reduce((predicted + added - taken - label).square().sum(dim=1), reduction)


def class_balance(logits: Tensor) -> Tensor:
    r"""Return the divergence of the batch's mean prediction from equal shares of the classes.

    .. math:: L = \sum_k \frac{1}{C} \log \frac{1 / C}{\bar p_k}, \qquad
        \bar p = \frac{1}{B} \sum_n \operatorname{softmax}(z_n)

    It keeps the network from giving up a class. It is computed from logarithms, so a class that
    nothing is predicted as gives a finite value.

    Args:
        logits: scores of the classes, before softmax.

    Shape:
        logits ``(B, C)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: the shape or dtype does not fit.

    Reference:
        Tanaka et al., Joint Optimization Framework for Learning with Noisy Labels, CVPR 2018.

    >>> class_balance(torch.zeros(3, 4)).abs()
    tensor(0.)
    >>> class_balance(torch.tensor([[0.0, -200.0]]))
    tensor(99.3069)
    """
    sizes = check_shapes(logits=(logits, "B C"))
    check_floating(logits=logits)
    log_shares = full_precision(logits).log_softmax(dim=1).logsumexp(dim=0) - math.log(sizes["B"])
    return -log_shares.mean() - math.log(sizes["C"])


def _noise(logits: Tensor, target: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the label as probabilities, U and V, all (B, C)."""
    check_target(logits, target, u=(u, "B"), v=(v, "B C"))
    check_floating(u=u, v=v)
    values = full_precision(logits)
    label = target.to(values.dtype) if target.ndim == 2 else _one_hot(target, values)
    added = (u.to(values.dtype).square()[:, None] * label).clamp(max=1.0)
    taken = (v.to(values.dtype).square() * (1 - label)).clamp(max=1.0)
    return label, added, taken


def _one_hot(classes: Tensor, rows: Tensor) -> Tensor:
    try:
        return torch.zeros_like(rows).scatter(1, classes[:, None], 1.0)
    except RuntimeError:
        # It raises an error that names the label.
        at_label(rows, classes)
        raise
