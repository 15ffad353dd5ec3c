"""The loss of EAC, erasing attention consistency."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer._checks import check_range, check_target
from robustfer.functional import attention_consistency
from robustfer.functional._cross_entropy import (
    check_class_weights,
    cross_entropy,
    register_class_weights,
)
from robustfer.losses._terms import sum_of_terms


class EACLoss(nn.Module):
    r"""Cross entropy plus consistency of the class maps with those of the mirror image.

    .. math::
        L = \mathrm{CE}(z, y) + \lambda\,
            \frac{1}{BCHW} \sum_{n,c,h,w} (M_{n,c,h,w} - M'_{n,c,h,W-1-w})^2

    with logits :math:`z`, target :math:`y`, and the class maps :math:`M` of the image and
    :math:`M'` of its mirror image. Only the unmirrored view is classified. To memorise a wrong
    label, a network needs maps that differ between the image and its randomly erased mirror image.
    The best :math:`\lambda` depends on the number of classes and on the scale of the features.

    Args:
        consistency_weight: :math:`\lambda`, the weight of the attention consistency. The paper's is
            5. In short trainings 1 learnt faster and was more accurate.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        class_weights: weight of each class in the cross entropy, ``(C)``, like torch's ``weight``;
            default: all 1. It moves with the module, but is not in its ``state_dict``.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, attention and
        attention_flipped ``(B, C, H, W)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial
        Expression Recognition, ECCV 2022.

    >>> import torch
    >>> criterion = EACLoss(consistency_weight=5.0)
    >>> logits, target = torch.zeros(2, 7), torch.tensor([3, 0])
    >>> maps = torch.ones(2, 7, 6, 6)
    >>> criterion(logits, target, attention=maps, attention_flipped=maps)
    tensor(1.9459)
    >>> list(criterion.terms(logits, target, attention=maps, attention_flipped=maps))
    ['cross_entropy', 'attention_consistency']
    """

    __call__: Callable[..., Tensor]
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        consistency_weight: float = 5.0,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.consistency_weight = check_range("consistency_weight", consistency_weight, 0.0)
        self.label_smoothing = check_range(
            "label_smoothing", label_smoothing, 0.0, 1.0, open_high=True
        )
        register_class_weights(self, class_weights)

    def terms(
        self, logits: Tensor, target: Tensor, attention: Tensor, attention_flipped: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_target(logits, target, attention=(attention, "B C H W"))
        check_class_weights(self.class_weights, logits)
        return {
            "cross_entropy": cross_entropy(
                logits,
                target,
                class_weights=self.class_weights,
                label_smoothing=self.label_smoothing,
            ),
            "attention_consistency": self.consistency_weight
            * attention_consistency(attention, attention_flipped),
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"consistency_weight={self.consistency_weight}, label_smoothing={self.label_smoothing}"
        )
