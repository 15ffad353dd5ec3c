"""Relative uncertainty learning as a loss that contains the uncertainty branch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer.authoring import load_whole
from robustfer_rul._branch import apply_branch, make_uncertainty_branch
from robustfer_rul.functional import log_uncertainty, relative_uncertainty


class RelativeUncertaintyLoss(nn.Module):
    r"""Cross entropy of embeddings mixed by their uncertainties, with the labels of both faces.

    .. math::
        a_n = \frac{1}{D} \sum_d \exp\, (U \mu_n + u)_d, \qquad
        \tilde\mu_n = \frac{a_n \mu_n + a_{\pi(n)} \mu_{\pi(n)}}{a_n + a_{\pi(n)}}

    .. math::
        L = \frac{1}{B} \sum_n \tfrac12 \mathrm{CE}(W \tilde\mu_n + b,\; y_n)
            + \tfrac12 \mathrm{CE}(W \tilde\mu_n + b,\; y_{\pi(n)})

    This form fits any network: :math:`\mu` are its embeddings, :math:`W` and :math:`b` its
    classifier. The uncertainty branch :math:`U, u` belongs to the loss, because inference does not
    need it. The paper puts the two branches of
    :class:`robustfer_rul.heads.RelativeUncertaintyHead` on the features instead.

    The loss has parameters: build the optimizer from ``robustfer.losses.param_groups(model,
    criterion)``. At first all uncertainties are nearly equal: the weights of the branch have a
    standard deviation of 0.01, and its biases are 0.

    Args:
        num_features: D, the width of the embeddings.

    Shape:
        embeddings ``(B, D)`` that the classifier reads, target ``(B)`` int64 or ``(B, C)``
        probabilities, classifier_weight ``(C, D)`` the parameter itself, permutation ``(B)``
        int64 the partner of each sample, bias ``(C)`` of the classifier -> scalar; float32 for
        half embeddings.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression Recognition,
        NeurIPS 2021.

    >>> import torch
    >>> criterion = RelativeUncertaintyLoss(num_features=2)
    >>> embeddings, target = torch.zeros(3, 2), torch.tensor([3, 0, 6])
    >>> classifier, permutation = nn.Linear(2, 7), torch.tensor([1, 2, 0])
    >>> loss = criterion(embeddings, target, classifier.weight, permutation)
    >>> loss.detach()
    tensor(1.9459)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, num_features: int) -> None:
        super().__init__()
        self.log_variance = make_uncertainty_branch(num_features, num_features)
        load_whole(self)

    def forward(
        self,
        embeddings: Tensor,
        target: Tensor,
        classifier_weight: Tensor,
        permutation: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        uncertainty = log_uncertainty(apply_branch(self.log_variance, embeddings))
        return relative_uncertainty(
            embeddings, uncertainty, target, classifier_weight, permutation, bias=bias
        )

    def uncertainty(self, embeddings: Tensor) -> Tensor:
        """Return the uncertainty of each sample, to look at; the share of two rests on their ratio.

        Args:
            embeddings: of faces of the same network, any number of them.

        Shape:
            embeddings ``(B, D)`` -> ``(B)``, above 0; float32 for half inputs.
        """
        return log_uncertainty(apply_branch(self.log_variance, embeddings)).exp()

    def extra_repr(self) -> str:
        return f"num_features={self.log_variance.in_features}"
