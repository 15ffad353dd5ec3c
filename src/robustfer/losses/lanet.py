"""The loss of LA-Net, landmark-aware learning."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import (
    Variant,
    check_probabilities,
    check_range,
    check_shapes,
    check_target,
)
from robustfer.functional._cross_entropy import (
    check_class_weights,
    cross_entropy,
    register_class_weights,
)
from robustfer.functional._precision import full_precision
from robustfer.losses._terms import sum_of_terms
from robustfer.losses.adaptive_wing import LandmarkAdaptiveWingLoss
from robustfer.losses.expression_landmark_contrast import ExpressionLandmarkContrastiveLoss


class LANetLoss(nn.Module):
    r"""Cross entropy plus estimated label distribution, landmarks, and contrast.

    .. math::
        L = \mathrm{CE}(z, y) + w_d\, \mathrm{KL}\bigl(q \,\|\, \operatorname{softmax}(z)\bigr)
            + w_l\, L_\text{landmarks} + w_c\, L_\text{contrast}

    with logits :math:`z`, target :math:`y` and soft target :math:`q`, the average of the label
    distribution bank's old row and the neighbours' estimate. It is not a constant: its gradient
    trains the scorers of the pairs. :math:`L_\text{landmarks}` is
    :func:`robustfer.functional.landmark_adaptive_wing`, :math:`L_\text{contrast}` is
    :func:`robustfer.functional.expression_landmark_contrast`. For other options of the terms, use a
    :class:`CompositeLoss`.

    Args:
        image_size: size of the image in pixels, (height, width) or one number for both. ``None``
            trains without a landmark branch: leave out heatmaps; landmarks and visible are ignored.
        distribution_weight: :math:`w_d`, the weight of the divergence.
        landmark_weight: :math:`w_l`, the weight of the heat maps' loss.
        contrast_weight: :math:`w_c`, the weight of the contrast.
        temperature: divides the similarities of the contrast.
        gather: contrast the joined batch of all processes, see
            :class:`ExpressionLandmarkContrastiveLoss`.
        variant: ``"paper"`` or ``"official"``, for the heat maps and the contrast.
        class_weights: weight of each class in the cross entropy, ``(C)``, like torch's ``weight``;
            default: all 1. It moves with the module, but is not in its ``state_dict``.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, soft_target
        ``(B, C)`` the estimated distribution; expression_query, landmark_query, expression_key,
        landmark_key ``(B, d)``, pseudo_label ``(B)`` int64, expression_queue, landmark_queue
        ``(M, d)``, queue_label ``(M)`` int64, heatmaps ``(B, K, h, w)``, landmarks
        ``(B, K, 2)`` in pixels, visible ``(B, K)`` bool -> scalar; float32 for half inputs.

    Raises:
        TypeError: ``gather`` is not a bool.
        ValueError: an option or an argument does not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> criterion = LANetLoss(image_size=56)
    >>> label, faces = torch.tensor([0, 1]), torch.eye(2)
    >>> given = {"logits": torch.zeros(2, 7), "target": label, "pseudo_label": label}
    >>> given["soft_target"] = torch.full((2, 7), 1 / 7)
    >>> given |= dict.fromkeys(("expression_query", "landmark_query"), faces)
    >>> given |= dict.fromkeys(("expression_key", "landmark_key"), faces)
    >>> given |= dict.fromkeys(("expression_queue", "landmark_queue"), faces)
    >>> given |= {"queue_label": label, "heatmaps": torch.zeros(2, 5, 14, 14)}
    >>> given["landmarks"] = torch.full((2, 5, 2), 28.0)
    >>> for name, value in criterion.terms(**given).items():
    ...     print(name, f"{value:.3f}")
    cross_entropy 1.946
    label_distribution 0.000
    landmark_adaptive_wing 4.904
    expression_landmark_contrast 0.000
    """

    __call__: Callable[..., Tensor]
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] | None,
        distribution_weight: float = 1.0,
        landmark_weight: float = 1.0,
        contrast_weight: float = 0.1,
        temperature: float = 0.1,
        gather: bool = True,
        variant: Variant = "paper",
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        register_class_weights(self, class_weights)
        self.distribution_weight = check_range("distribution_weight", distribution_weight, 0.0)
        self.landmark_weight = check_range("landmark_weight", landmark_weight, 0.0)
        self.contrast_weight = check_range("contrast_weight", contrast_weight, 0.0)
        self.landmark_loss = (
            None
            if image_size is None
            else LandmarkAdaptiveWingLoss(image_size=image_size, variant=variant)
        )
        self.contrast = ExpressionLandmarkContrastiveLoss(
            temperature=temperature, gather=gather, variant=variant
        )

    def terms(
        self,
        logits: Tensor,
        target: Tensor,
        soft_target: Tensor,
        expression_query: Tensor,
        landmark_query: Tensor,
        expression_key: Tensor,
        landmark_key: Tensor,
        pseudo_label: Tensor,
        expression_queue: Tensor,
        landmark_queue: Tensor,
        queue_label: Tensor,
        heatmaps: Tensor | None = None,
        landmarks: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_target(
            logits,
            target,
            soft_target=(soft_target, "B C"),
            expression_query=(expression_query, "B d"),
        )
        check_probabilities(soft_target=soft_target)
        check_class_weights(self.class_weights, logits)
        terms = {
            "cross_entropy": cross_entropy(logits, target, class_weights=self.class_weights),
            "label_distribution": self.distribution_weight * _divergence(soft_target, logits),
        }
        if self.landmark_loss is not None:
            if heatmaps is None or landmarks is None:
                raise ValueError(
                    "heatmaps and landmarks must be tensors with an image_size, got None; "
                    "LANetLoss(image_size=None) trains without a landmark branch"
                )
            check_shapes(logits=(logits, "B C"), heatmaps=(heatmaps, "B K h w"))
            terms["landmark_adaptive_wing"] = self.landmark_weight * self.landmark_loss(
                heatmaps, landmarks, visible
            )
        elif heatmaps is not None:
            raise ValueError(
                "heatmaps must be left out with image_size=None; give LANetLoss an image_size to "
                "train a landmark branch"
            )
        terms["expression_landmark_contrast"] = self.contrast_weight * self.contrast(
            expression_query=expression_query,
            landmark_query=landmark_query,
            expression_key=expression_key,
            landmark_key=landmark_key,
            pseudo_label=pseudo_label,
            expression_queue=expression_queue,
            landmark_queue=landmark_queue,
            queue_label=queue_label,
        )
        return terms

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"distribution_weight={self.distribution_weight}, "
            f"landmark_weight={self.landmark_weight}, contrast_weight={self.contrast_weight}"
        )


def _divergence(soft_target: Tensor, logits: Tensor) -> Tensor:
    """Return the mean of KL(soft_target || softmax(logits)), with gradients to both."""
    logits = full_precision(logits)
    soft_target = soft_target.to(logits.dtype)
    # The gradient by an entry of zero would be infinite.
    soft_target = soft_target.clamp(min=torch.finfo(logits.dtype).tiny)
    return F.kl_div(F.log_softmax(logits, dim=1), soft_target, reduction="batchmean")
