"""Early-learning regularization and memory targets as functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer.authoring import (
    Reduction,
    check_floating,
    check_range,
    check_reduction,
    check_shapes,
    check_target,
    cross_entropy,
    full_precision,
    reduce,
)

# Keeps 1 - <t, p> above 0, for its logarithm.
_LEAST_PROBABILITY = 1e-4


def moved_early_target(early_target: Tensor, logits: Tensor, *, decay: float = 0.7) -> Tensor:
    r"""Return the running average of the predictions for each sample after one more step.

    .. math::
        t_n' = \beta\, t_n + (1 - \beta)\, \frac{\tilde p_n}{\sum_k \tilde p_{n,k}}, \qquad
        \tilde p_n = \operatorname{clamp}\bigl(\operatorname{softmax}(z_n),
            10^{-4}, 1 - 10^{-4}\bigr)

    It is a constant, without a gradient.

    Args:
        early_target: :math:`t`, the average so far, 0 at first.
        logits: :math:`z`, scores of the classes, before softmax.
        decay: :math:`\beta` in [0, 1), the weight of the average so far.

    Shape:
        early_target, logits ``(B, C)`` -> ``(B, C)``; float32 for half inputs. From 0 on the rows
        sum to :math:`1 - \beta^k` after k steps.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels,
        NeurIPS 2020.

    >>> moved_early_target(torch.zeros(1, 2), torch.zeros(1, 2), decay=0.7)
    tensor([[0.1500, 0.1500]])
    """
    check_range("decay", decay, 0.0, 1.0, open_high=True)
    check_shapes(logits=(logits, "B* C"), early_target=(early_target, "B* C"))
    check_floating(logits=logits, early_target=early_target)
    predicted = _probabilities(logits.detach())
    predicted = predicted / predicted.sum(dim=1, keepdim=True)
    return decay * full_precision(early_target.detach()) + (1 - decay) * predicted


def early_learning_regularization(logits: Tensor, early_target: Tensor) -> Tensor:
    r"""Return a loss that is lower if predictions agree with earlier ones: ELR's second term.

    .. math:: R = \frac{1}{B} \sum_n \log\bigl(1 - \langle t_n, \tilde p_n \rangle\bigr)

    Its gradient favours the classes of :math:`t_n`. This cancels the gradient of a wrong label that
    earlier predictions contradicted. Its value is between :math:`\log 10^{-4} = -9.21`, if both are
    sure of one class, and 0.

    Args:
        logits: scores of the classes, before softmax.
        early_target: :math:`t` from :func:`moved_early_target`, which includes this step's
            prediction; a constant.

    Shape:
        logits, early_target ``(B, C)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: a shape, a dtype or a device does not fit.

    Reference:
        Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels,
        NeurIPS 2020.

    >>> early_learning_regularization(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]))
    tensor(-0.6931)
    """
    check_shapes(logits=(logits, "B C"), early_target=(early_target, "B C"))
    check_floating(logits=logits, early_target=early_target)
    agreement = (full_precision(early_target.detach()) * _probabilities(logits)).sum(dim=1)
    return torch.log1p(-agreement).mean()


def memory_cross_entropy(
    logits: Tensor,
    target: Tensor,
    early_target: Tensor,
    *,
    weight: float = 0.6,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the cross entropy with a mixture of the label and earlier predictions.

    .. math:: \ell_n = -\sum_k \bigl[(1 - w\, s_n)\, y_{n,k} + w\, t_{n,k}\bigr]
        \log \operatorname{softmax}(z_n)_k, \qquad s_n = \sum_k t_{n,k}

    Args:
        logits: scores of the classes, before softmax.
        target: :math:`y`, classes or probabilities.
        early_target: :math:`t` from :func:`moved_early_target`; a constant.
        weight: :math:`w` in [0, 1], share of earlier predictions in the target, once full.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, early_target
        ``(B, C)`` -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Laine and Aila, Temporal Ensembling for Semi-Supervised Learning, ICLR 2017; Huang et al.,
        Self-Adaptive Training: beyond Empirical Risk Minimization, NeurIPS 2020.

    >>> logits, target = torch.tensor([[2.0, 0.0]]), torch.tensor([1])
    >>> memory_cross_entropy(logits, target, torch.zeros(1, 2))  # nothing is remembered yet
    tensor(2.1269)
    >>> memory_cross_entropy(logits, target, torch.tensor([[0.9, 0.1]]), weight=0.5)
    tensor(1.2269)
    """
    check_range("weight", weight, 0.0, 1.0)
    check_reduction(reduction)
    check_target(logits, target, early_target=(early_target, "B C"))
    check_floating(early_target=early_target)
    logits = full_precision(logits)
    remembered = weight * early_target.detach().to(logits.dtype)
    of_label = cross_entropy(logits, target, reduction="none")
    of_memory = cross_entropy(logits, remembered, reduction="none")
    return reduce((1 - remembered.sum(dim=1)) * of_label + of_memory, reduction)


def _probabilities(logits: Tensor) -> Tensor:
    predicted = full_precision(logits).softmax(dim=1)
    return predicted.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
