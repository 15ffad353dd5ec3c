"""The loss of MEK, mine extra knowledge."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer.authoring import check_range, check_target, sum_of_terms
from robustfer_mek.functional import rebalanced_attention_consistency, rebalanced_cross_entropy


class ExtraKnowledgeLoss(nn.Module):
    r"""Rebalanced cross entropy plus attention consistency: rare classes learn from every face.

    .. math::
        L = \mathrm{CE}(z, y') + \lambda\, \frac{1}{B} \sum_n \sum_c b_c\, \frac{1}{HW}
            \sum_{h,w} (M_{n,c,h,w} - M'_{n,c,h,W-1-w})^2, \qquad b_c = \frac{\sum_k n_k}{10\, n_c}

    As in EAC, class maps must agree with those of the mirror image. The maps of rare classes have
    larger weights. The smooth label :math:`y'` gives the other classes the share :math:`\epsilon`,
    and rare ones more of it. The two parts are
    :func:`~robustfer_mek.functional.rebalanced_attention_consistency` and
    :func:`~robustfer_mek.functional.rebalanced_cross_entropy`.

    The counts are an argument, because counts of noisy labels are wrong: a class that wrong labels
    make rare gets too much weight. Take them from a :class:`robustfer.state.LabelStore`, which has
    the corrected labels, or from verified shares.

    Args:
        consistency_weight: :math:`\lambda`, the weight of the attention consistency.
        smoothing: :math:`\epsilon` in [0, 1), the share of the other classes in a label.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, attention and
        attention_flipped ``(B, C, H, W)``, class_counts ``(C)`` of any dtype -> scalar; float32 for
        half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Zhang et al., Leave No Stone Unturned: Mine Extra Knowledge for Imbalanced Facial
        Expression Recognition, NeurIPS 2023.

    >>> import torch
    >>> criterion = ExtraKnowledgeLoss(consistency_weight=0.1, smoothing=0.3)
    >>> logits, target = torch.zeros(2, 3), torch.tensor([2, 0])
    >>> maps, class_counts = torch.ones(2, 3, 6, 6), torch.tensor([60, 30, 10])
    >>> criterion(logits, target, maps, maps, class_counts)
    tensor(1.0986)
    >>> list(criterion.terms(logits, target, maps, maps, class_counts))
    ['rebalanced_cross_entropy', 'rebalanced_attention_consistency']
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, consistency_weight: float = 0.1, smoothing: float = 0.3) -> None:
        super().__init__()
        self.consistency_weight = check_range("consistency_weight", consistency_weight, 0.0)
        self.smoothing = check_range("smoothing", smoothing, 0.0, 1.0, open_high=True)

    def terms(
        self,
        logits: Tensor,
        target: Tensor,
        attention: Tensor,
        attention_flipped: Tensor,
        class_counts: Tensor,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_target(logits, target, attention=(attention, "B C H W"))
        return {
            "rebalanced_cross_entropy": rebalanced_cross_entropy(
                logits, target, class_counts, smoothing=self.smoothing
            ),
            "rebalanced_attention_consistency": self.consistency_weight
            * rebalanced_attention_consistency(attention, attention_flipped, class_counts),
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return f"consistency_weight={self.consistency_weight}, smoothing={self.smoothing}"
