"""The mathematics of relative uncertainty learning, as pure functions of tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer.authoring import (
    check_floating,
    check_int64,
    check_shapes,
    check_target,
    cross_entropy,
    full_precision,
    values_are_checked,
    without_autocast,
)


def log_uncertainty(log_variance: Tensor) -> Tensor:
    r"""Return the logarithm of the mean variance of each sample, without overflow.

    .. math:: \log a_n = \log \frac{1}{D} \sum_d e^{v_{n,d}}

    Args:
        log_variance: :math:`v`, the output of an uncertainty branch.

    Shape:
        log_variance ``(B, D)`` -> ``(B)``; float32 for half inputs.

    Raises:
        ValueError: the shape or dtype does not fit.

    Reference:
        Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression Recognition,
        NeurIPS 2021.

    >>> log_uncertainty(torch.tensor([[0.0, 0.0], [500.0, 500.0]]))
    tensor([  0., 500.])
    """
    width = check_shapes(log_variance=(log_variance, "B D"))["D"]
    check_floating(log_variance=log_variance)
    return full_precision(log_variance).logsumexp(dim=1) - math.log(width)


def relative_uncertainty_weights(log_uncertainty: Tensor, permutation: Tensor) -> Tensor:
    r"""Return the share of each sample in the mixture with its partner, larger if more uncertain.

    .. math:: w_n = \frac{a_n}{a_n + a_{\pi(n)}}

    The partner has the rest, :math:`1 - w_n`. It is computed as the logistic function of
    :math:`\log a_n - \log a_{\pi(n)}`, which does not overflow.

    Args:
        log_uncertainty: :math:`\log a` of each sample.
        permutation: :math:`\pi`, the partner of each sample. The loop draws a new one in each step:
            ``torch.randperm(B)``. Its values are checked only under
            ``robustfer.losses.check_values()``.

    Shape:
        log_uncertainty ``(B)``, permutation ``(B)`` int64 -> ``(B)`` in [0, 1]; float32 for half
        inputs.

    Raises:
        ValueError: a shape, a dtype or a device does not fit.

    Reference:
        Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression Recognition,
        NeurIPS 2021.

    >>> uncertainty, permutation = torch.tensor([3.0, 1.0, 1.0]), torch.tensor([1, 2, 0])
    >>> relative_uncertainty_weights(uncertainty.log(), permutation)
    tensor([0.7500, 0.5000, 0.2500])
    """
    check_shapes(log_uncertainty=(log_uncertainty, "B"), permutation=(permutation, "B"))
    check_floating(log_uncertainty=log_uncertainty)
    check_int64(permutation=permutation)
    if values_are_checked():
        _check_permutation(permutation)
    own = full_precision(log_uncertainty)
    return torch.sigmoid(own - own.index_select(0, permutation))


def mix_by_uncertainty(embeddings: Tensor, log_uncertainty: Tensor, permutation: Tensor) -> Tensor:
    r"""Mix the embedding of each sample with its partner's, by their uncertainties.

    .. math:: \tilde\mu_n = w_n\, \mu_n + (1 - w_n)\, \mu_{\pi(n)}

    The weight of a sample multiplies its own embedding. The classifier must recognize both faces in
    the mixture, so an uncertain embedding needs a larger share. This trains the uncertainty without
    labels for it.

    Args:
        embeddings: :math:`\mu`, the input of the classifier.
        log_uncertainty: :math:`\log a` of each sample.
        permutation: :math:`\pi`, the partner of each sample; see
            :func:`robustfer_rul.functional.relative_uncertainty_weights`.

    Shape:
        embeddings ``(B, D)``, log_uncertainty ``(B)``, permutation ``(B)`` int64 -> ``(B, D)``;
        float32 for half embeddings.

    Raises:
        ValueError: a shape, a dtype or a device does not fit.

    Reference:
        Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression Recognition,
        NeurIPS 2021.

    >>> embeddings, uncertainty = torch.tensor([[0.0], [8.0]]), torch.tensor([3.0, 1.0])
    >>> mix_by_uncertainty(embeddings, uncertainty.log(), torch.tensor([1, 0])).round(decimals=4)
    tensor([[2.],
            [2.]])
    """
    check_shapes(embeddings=(embeddings, "B D"), log_uncertainty=(log_uncertainty, "B"))
    check_floating(embeddings=embeddings)
    weights = relative_uncertainty_weights(log_uncertainty, permutation)
    embeddings = full_precision(embeddings)
    own = weights.to(embeddings.dtype)[:, None]
    return own * embeddings + (1 - own) * embeddings.index_select(0, permutation)


def relative_uncertainty(
    embeddings: Tensor,
    log_uncertainty: Tensor,
    target: Tensor,
    classifier_weight: Tensor,
    permutation: Tensor,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    r"""Return the cross entropy of mixed embeddings with the labels of both samples, half each.

    .. math::
        L = \frac{1}{B} \sum_n \tfrac12 \mathrm{CE}(W \tilde\mu_n + b,\; y_n)
            + \tfrac12 \mathrm{CE}(W \tilde\mu_n + b,\; y_{\pi(n)})

    Mixup weighs both labels by their share of the mixture. Here both labels always have the same
    weight, and the network learns the mixture. Gradients reach all tensors except target and
    permutation.

    Args:
        embeddings: :math:`\mu`, the input of the classifier.
        log_uncertainty: :math:`\log a` of each sample.
        target: the given label, possibly wrong.
        classifier_weight: :math:`W`, the parameter of the network's classifier.
        permutation: :math:`\pi`, the partner of each sample; see
            :func:`robustfer_rul.functional.relative_uncertainty_weights`.
        bias: :math:`b`, the parameter of the network's classifier, if it has one.

    Shape:
        embeddings ``(B, D)``, log_uncertainty ``(B)``, target ``(B)`` int64 or ``(B, C)``
        probabilities, classifier_weight ``(C, D)``, permutation ``(B)`` int64, bias ``(C)`` ->
        scalar; float32 for half embeddings.

    Raises:
        ValueError: a shape, a dtype or a device does not fit.

    Reference:
        Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression Recognition,
        NeurIPS 2021.

    >>> embeddings, uncertainty = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([1.0, 1.0])
    >>> target, permutation = torch.tensor([0, 1]), torch.tensor([1, 0])
    >>> relative_uncertainty(embeddings, uncertainty.log(), target, torch.eye(2), permutation)
    tensor(0.6931)
    """
    _check(embeddings, target, classifier_weight, permutation, bias)
    with without_autocast(embeddings):
        mixed = mix_by_uncertainty(embeddings, log_uncertainty, permutation)
        weight = classifier_weight.to(mixed.dtype)
        logits = F.linear(mixed, weight, None if bias is None else bias.to(mixed.dtype))
        check_target(logits, target)
        of_own = cross_entropy(logits, target)
        return 0.5 * of_own + 0.5 * cross_entropy(logits, target.index_select(0, permutation))


def _check(
    embeddings: Tensor,
    target: Tensor,
    classifier_weight: Tensor,
    permutation: Tensor,
    bias: Tensor | None,
) -> None:
    """Check shapes before the logits are computed. Values are checked after that."""
    soft = isinstance(target, Tensor) and target.ndim == 2
    check_shapes(
        embeddings=(embeddings, "B D"),
        target=(target, "B C" if soft else "B"),
        classifier_weight=(classifier_weight, "C D"),
        permutation=(permutation, "B"),
        **({} if bias is None else {"bias": (bias, "C")}),
    )
    weights = {"classifier_weight": classifier_weight, **({} if bias is None else {"bias": bias})}
    check_floating(**weights)


def _check_permutation(permutation: Tensor) -> None:
    """Require each position in the batch once. Synchronises."""
    every = torch.arange(len(permutation), device=permutation.device)
    if not torch.equal(permutation.sort().values, every):
        raise ValueError(
            f"permutation must hold each of 0 to {len(permutation) - 1} once, as torch.randperm "
            f"does; got {permutation.tolist()}"
        )
