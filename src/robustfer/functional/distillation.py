"""Self-distillation: learn from an average of the model itself (GSMC)."""

from __future__ import annotations

from torch import Tensor

from robustfer._checks import check_floating, check_range, check_shapes
from robustfer.functional._precision import Reduction, full_precision, reduce


def self_distillation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the divergence of the student's prediction from the teacher's, a constant.

    .. math::
        \ell_n = T^2 \sum_c q_{n,c} \log \frac{q_{n,c}}{p_{n,c}}, \qquad
        q_n = \operatorname{softmax}\bigl(\mathrm{sg}(t_n) / T\bigr), \quad
        p_n = \operatorname{softmax}(s_n / T)

    where sg marks a constant. Value and gradient stay finite for any gap between two logits. The
    factor :math:`T^2` keeps the size of the gradient when the temperature changes.

    Args:
        student_logits: :math:`s`, the student's scores of the classes.
        teacher_logits: :math:`t`, the teacher's scores; detached inside.
        temperature: :math:`T`, above 1 for softer distributions.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        both ``(B, C)`` -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or an option is out of range.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, NIPS workshop 2014; Huang et
        al., A Global-Local Scalable Multi-task Contrastive Learning Framework, CGI 2024.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[10000.0, 0.0]])
    >>> self_distillation(student, teacher)
    tensor(0.6931)
    >>> self_distillation(teacher, teacher)
    tensor(0.)
    """
    check_shapes(student_logits=(student_logits, "B C"), teacher_logits=(teacher_logits, "B C"))
    check_floating(student_logits=student_logits, teacher_logits=teacher_logits)
    check_range("temperature", temperature, 0.0, open_low=True)
    student, teacher = full_precision(student_logits), full_precision(teacher_logits)
    if temperature != 1:
        student, teacher = student / temperature, teacher / temperature
    per_sample = divergence_by_class(student.log_softmax(dim=1), teacher).sum(dim=1)
    return temperature**2 * reduce(per_sample, reduction)


def divergence_by_class(log_p: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return what each class adds to the divergence from the teacher, ``(B, C)``."""
    log_q = teacher_logits.detach().to(log_p.dtype).log_softmax(dim=1)
    return log_q.exp() * (log_q - log_p)
