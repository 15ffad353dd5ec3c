"""Self-distillation as a module, to combine with any classification loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer._checks import check_range
from robustfer.functional import self_distillation
from robustfer.functional._precision import Reduction, check_reduction


class SelfDistillationLoss(nn.Module):
    """Module form of :func:`robustfer.functional.self_distillation`.

    The teacher is usually a :class:`robustfer.state.ModelEMA` of the student.

    Args:
        temperature: divides the logits; above 1 for softer distributions.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        student_logits, teacher_logits ``(B, C)`` -> scalar, or ``(B)`` for ``"none"``.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, NIPS workshop 2014; Huang et
        al., A Global-Local Scalable Multi-task Contrastive Learning Framework, CGI 2024.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[10000.0, 0.0]])
    >>> SelfDistillationLoss()(student, teacher)
    tensor(0.6931)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *, temperature: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.temperature = check_range("temperature", temperature, 0.0, open_low=True)
        self.reduction = check_reduction(reduction)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self_distillation(
            student_logits,
            teacher_logits,
            temperature=self.temperature,
            reduction=self.reduction,
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, reduction={self.reduction!r}"
