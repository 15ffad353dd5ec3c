"""The paper's two branches, for a network that is built with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from robustfer_rul._branch import apply_branch, make_uncertainty_branch
from robustfer_rul.functional import log_uncertainty


class RelativeUncertaintyOutput(NamedTuple):
    """Output of a :class:`RelativeUncertaintyHead`.

    Attributes:
        embeddings: (B, dim) the means, the input of a classifier, also at inference.
        log_uncertainty: (B) log uncertainties, for mixing in training.
    """

    embeddings: Tensor
    log_uncertainty: Tensor


class RelativeUncertaintyHead(nn.Module):
    r"""Compute mean and uncertainty from features, with a linear layer each.

    .. math::
        \mu_n = M f_n + m, \qquad \log a_n = \log \frac{1}{d} \sum_k \exp\, (U f_n + u)_k

    Train with :func:`robustfer_rul.functional.relative_uncertainty` and a classifier of ``dim``
    inputs. To keep the network's own embeddings and classifier, use
    :class:`robustfer_rul.losses.RelativeUncertaintyLoss` instead, which does not need this head.

    Args:
        num_features: D, the width of the features.
        dim: :math:`d`, the width of the means.

    Shape:
        embeddings ``(B, D)`` of the network -> :class:`RelativeUncertaintyOutput`; float32 for half
        inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression Recognition,
        NeurIPS 2021.

    >>> import torch
    >>> head = RelativeUncertaintyHead(num_features=512, dim=64)
    >>> embeddings, uncertainty = head(torch.zeros(4, 512))
    >>> embeddings.shape, uncertainty.tolist()
    (torch.Size([4, 64]), [0.0, 0.0, 0.0, 0.0])
    """

    __call__: Callable[..., RelativeUncertaintyOutput]

    def __init__(self, *, num_features: int, dim: int = 64) -> None:
        super().__init__()
        self.log_variance = make_uncertainty_branch(num_features, dim)
        self.mean = nn.Linear(num_features, dim)

    def forward(self, embeddings: Tensor) -> RelativeUncertaintyOutput:
        return RelativeUncertaintyOutput(
            apply_branch(self.mean, embeddings),
            log_uncertainty(apply_branch(self.log_variance, embeddings)),
        )
