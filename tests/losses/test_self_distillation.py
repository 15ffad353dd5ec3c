import pytest
import torch

from robustfer.functional import self_distillation
from robustfer.losses import SelfDistillationLoss


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_function(reduction):
    student, teacher = torch.randn(4, 7), torch.randn(4, 7)
    loss = SelfDistillationLoss(temperature=2.0, reduction=reduction)
    expected = self_distillation(student, teacher, temperature=2.0, reduction=reduction)
    assert torch.equal(loss(student, teacher), expected)
    assert torch.equal(loss(student_logits=student, teacher_logits=teacher), expected)
    assert repr(loss) == f"SelfDistillationLoss(temperature=2.0, reduction={reduction!r})"


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
