"""Noise-aware weighting as a loss: weighted cross entropy, and consistency of two views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from robustfer.authoring import (
    check_choice,
    check_range,
    check_target,
    cross_entropy,
    sum_of_terms,
)
from robustfer_nla.functional import (
    geometric_jensen_shannon,
    jensen_shannon,
    noise_aware_weights,
)


class NoiseAwareWeightingLoss(nn.Module):
    r"""Cross entropy with more weight for ambiguous samples, plus consistency of two views.

    .. math::
        L = \frac{1}{B} \sum_n \lambda\, (1 + w_n)\, \mathrm{CE}(z_n, y_n)
            + (1 - \lambda)\, \mathrm{JSD}\bigl(\operatorname{softmax}(z_n),
            \operatorname{softmax}(z'_n)\bigr)

    The weights :math:`w` are :func:`~robustfer_nla.functional.noise_aware_weights`. The divergence
    is :func:`~robustfer_nla.functional.jensen_shannon`.

    With ``variant="paper"`` the weights are constants, and the divergence is a mean over the batch.
    ``variant="official"`` follows the authors' code. There the weights have a gradient. The
    divergence is :func:`~robustfer_nla.functional.geometric_jensen_shannon`, summed over the batch,
    so it counts more in larger batches.

    Args:
        label_weight: :math:`\lambda` in [0, 1], the weight of the label. The consistency gets the
            rest.
        agreed_weight: :math:`\lambda_t`, a factor of :math:`w` if the prediction is the label.
        variant: ``"paper"`` or ``"official"``, see above.

    Shape:
        logits ``(B, C)``, logits_flipped ``(B, C)`` of the mirror image, target ``(B)`` int64 or
        ``(B, C)`` probabilities, progress ``()`` share of the training that is done -> scalar;
        float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Lee et al., Navigating Label Ambiguity for Facial Expression Recognition in the Wild,
        AAAI 2025.

    >>> import torch
    >>> criterion = NoiseAwareWeightingLoss()
    >>> logits, target = torch.zeros(2, 4), torch.tensor([3, 0])
    >>> criterion(logits, logits, target, torch.tensor(0.5))
    tensor(0.9408)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        *,
        label_weight: float = 0.5,
        agreed_weight: float = 1.0,
        variant: Literal["paper", "official"] = "paper",
    ) -> None:
        super().__init__()
        self.label_weight = check_range("label_weight", label_weight, 0.0, 1.0)
        self.agreed_weight = check_range("agreed_weight", agreed_weight, 0.0)
        self.variant = check_choice("variant", variant, ("paper", "official"))

    def terms(
        self, logits: Tensor, logits_flipped: Tensor, target: Tensor, progress: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_target(logits, target, logits_flipped=(logits_flipped, "B C"))
        weights = noise_aware_weights(logits, target, progress, agreed_weight=self.agreed_weight)
        if self.variant == "paper":
            weights = weights.detach()
            apart = jensen_shannon(logits, logits_flipped)
        else:
            apart = geometric_jensen_shannon(logits, logits_flipped, reduction="sum")
        of_labels = cross_entropy(logits, target, reduction="none")
        return {
            "cross_entropy": self.label_weight * ((1 + weights) * of_labels).mean(),
            "consistency": (1 - self.label_weight) * apart,
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"label_weight={self.label_weight}, agreed_weight={self.agreed_weight}, "
            f"variant={self.variant!r}"
        )
