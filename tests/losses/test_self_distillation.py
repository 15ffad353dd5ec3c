import pytest
import torch
from torch import nn

from robustfer.functional import self_distillation
from robustfer.losses import CompositeLoss, SelfDistillationLoss, Term


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_function(reduction):
    student, teacher = torch.randn(4, 7), torch.randn(4, 7)
    loss = SelfDistillationLoss(temperature=2.0, reduction=reduction)
    expected = self_distillation(student, teacher, temperature=2.0, reduction=reduction)
    assert torch.equal(loss(student, teacher), expected)
    assert torch.equal(loss(student_logits=student, teacher_logits=teacher), expected)
    assert repr(loss) == f"SelfDistillationLoss(temperature=2.0, reduction={reduction!r})"


def test_composes_with_a_classification_loss():
    logits, teacher, target = torch.randn(4, 7), torch.randn(4, 7), torch.arange(4)
    composite = CompositeLoss(
        Term("ce", nn.CrossEntropyLoss(), inputs={"input": "logits"}),
        Term("teacher", SelfDistillationLoss(), weight=0.9, inputs={"student_logits": "logits"}),
    )
    assert composite.accepts == {"logits", "target", "teacher_logits"}
    loss = composite(logits=logits, target=target, teacher_logits=teacher)
    expected = nn.functional.cross_entropy(logits, target) + 0.9 * self_distillation(
        logits, teacher
    )
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature must lie in \(0, inf\), got 0.0"),
        ({"temperature": float("inf")}, "temperature must lie in"),
        ({"reduction": "average"}, "reduction must be"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        SelfDistillationLoss(**options)
