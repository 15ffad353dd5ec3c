"""The loss of GSMC, global-local multi-task learning with the model's average as teacher."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer._checks import check_floating, check_range, check_target
from robustfer.functional import attention_consistency
from robustfer.functional._cross_entropy import (
    check_class_weights,
    negative_log_likelihood,
    register_class_weights,
)
from robustfer.functional._precision import full_precision
from robustfer.functional.distillation import divergence_by_class
from robustfer.losses._terms import sum_of_terms


class GSMCLoss(nn.Module):
    r"""Cross entropy, self-distillation, and consistency of the class maps.

    .. math::
        L = \mathrm{CE}(z, y) + w_d\, \mathrm{KL}\bigl(\operatorname{softmax}(\mathrm{sg}(t))
            \,\|\, \operatorname{softmax}(z)\bigr)
            + w_c\, \frac{1}{BCHW} \sum_{n,c,h,w} (M_{n,c,h,w} - M'_{n,c,h,W-1-w})^2

    with logits :math:`z` and :math:`t` of student and teacher, target :math:`y`, and the class maps
    :math:`M` of the image and :math:`M'` of its mirror image; sg marks a constant. The teacher is a
    :class:`robustfer.state.ModelEMA` of the student, and sees the mirror image. We could not obtain
    the paper, so this follows the authors' public code.

    Args:
        distillation_weight: :math:`w_d`, the weight of the divergence from the teacher.
        consistency_weight: :math:`w_c`, the weight of the attention consistency.
        class_weights: weight of each class in the cross entropy, ``(C)``, like torch's ``weight``;
            default: all 1. It moves with the module, but is not in its ``state_dict``.

    Shape:
        logits ``(B, C)`` of the image, target ``(B)`` int64 or ``(B, C)`` probabilities,
        teacher_logits ``(B, C)`` of its mirror image, attention and attention_flipped
        ``(B, C, H, W)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Huang et al., A Global-Local Scalable Multi-task Contrastive Learning Framework, CGI 2024.

    >>> import torch
    >>> criterion = GSMCLoss(distillation_weight=0.9, consistency_weight=0.2)
    >>> logits, target = torch.zeros(2, 7), torch.tensor([3, 0])
    >>> teacher_logits, maps = torch.zeros(2, 7), torch.ones(2, 7, 6, 6)
    >>> criterion(logits, target, teacher_logits, attention=maps, attention_flipped=maps)
    tensor(1.9459)
    >>> list(criterion.terms(logits, target, teacher_logits, maps, maps))
    ['cross_entropy', 'self_distillation', 'attention_consistency']
    """

    __call__: Callable[..., Tensor]
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        distillation_weight: float = 0.9,
        consistency_weight: float = 0.2,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.distillation_weight = check_range("distillation_weight", distillation_weight, 0.0)
        self.consistency_weight = check_range("consistency_weight", consistency_weight, 0.0)
        register_class_weights(self, class_weights)

    def terms(
        self,
        logits: Tensor,
        target: Tensor,
        teacher_logits: Tensor,
        attention: Tensor,
        attention_flipped: Tensor,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_target(
            logits,
            target,
            teacher_logits=(teacher_logits, "B C"),
            attention=(attention, "B C H W"),
        )
        check_floating(teacher_logits=teacher_logits)
        check_class_weights(self.class_weights, logits)
        # self_distillation would compute the log-softmax a second time.
        log_p = full_precision(logits).log_softmax(dim=1)
        share = self.distillation_weight / len(log_p)
        return {
            "cross_entropy": negative_log_likelihood(log_p, target, self.class_weights),
            "self_distillation": share * divergence_by_class(log_p, teacher_logits).sum(),
            "attention_consistency": self.consistency_weight
            * attention_consistency(attention, attention_flipped),
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"distillation_weight={self.distillation_weight}, "
            f"consistency_weight={self.consistency_weight}"
        )
