"""The divergence from a teacher as loops, slow and plain, in extended precision."""

from decimal import Decimal, localcontext

import torch


def log_softmax(row, temperature):
    scaled = [Decimal(value) / Decimal(temperature) for value in row.tolist()]
    largest = max(scaled)
    total = sum((value - largest).exp() for value in scaled)
    return [value - largest - total.ln() for value in scaled]


def self_distillation(student_logits, teacher_logits, temperature=1.0):
    """A value a sample, and its gradient by the student's logits."""
    values, gradients = [], []
    with localcontext() as context:
        context.prec = 40
        for student, teacher in zip(student_logits, teacher_logits, strict=True):
            log_p, log_q = (log_softmax(row, temperature) for row in (student, teacher))
            value = sum(q.exp() * (q - p) for p, q in zip(log_p, log_q, strict=True))
            values.append(float(Decimal(temperature) ** 2 * value))
            gradients.append([
                float(Decimal(temperature) * (p.exp() - q.exp()))
                for p, q in zip(log_p, log_q, strict=True)
            ])  # fmt: skip
    return torch.tensor(values, dtype=torch.float64), torch.tensor(gradients, dtype=torch.float64)
