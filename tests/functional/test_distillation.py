import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.functional import self_distillation
from tests.reference import distillation as reference


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("batch", "classes"), [(1, 2), (5, 7), (3, 200)])
def test_is_the_loop(batch, classes, temperature):
    student, teacher = 3 * draw(0, batch, classes), 3 * draw(1, batch, classes)
    values, gradients = reference.self_distillation(student, teacher, temperature)
    student.requires_grad_()
    for reduction, expected, share in (
        ("none", values, 1.0),
        ("sum", values.sum(), 1.0),
        ("mean", values.mean(), 1 / batch),
    ):
        loss = self_distillation(student, teacher, temperature=temperature, reduction=reduction)
        torch.testing.assert_close(loss, expected)
        (found,) = torch.autograd.grad(loss.sum(), student)
        torch.testing.assert_close(found, share * gradients)


def test_the_teacher_is_a_constant():
    student, teacher = draw(0, 3, 7).requires_grad_(), draw(1, 3, 7).requires_grad_()
    self_distillation(student, teacher).backward()
    assert student.grad.abs().min() > 0
    assert teacher.grad is None


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 99), st.floats(0.25, 8.0))
@settings(deadline=None, max_examples=25)
def test_invariances(batch, classes, seed, temperature):
    student, teacher = draw(seed, batch, classes), draw(-seed - 1, batch, classes)

    def loss(student, teacher):
        return self_distillation(student, teacher, temperature=temperature, reduction="none")

    value = loss(student, teacher)
    assert (value >= -1e-12).all()
    torch.testing.assert_close(loss(student, student), torch.zeros(batch).double())
    # Blind to the level of the logits and to the order of the classes.
    torch.testing.assert_close(loss(student + 5, teacher - 3), value)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss(student[:, order], teacher[:, order]), value)
    # Logits and temperature scaled together leave but the factor of the square.
    scaled = self_distillation(
        2 * student, 2 * teacher, temperature=2 * temperature, reduction="none"
    )
    torch.testing.assert_close(scaled, 4 * value)


GAP = 1e4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_whatever_the_gap(dtype):
    """Where log(softmax()) has a logarithm of zero, and zero times infinity for a gradient."""
    rows = torch.tensor([[GAP, 0.0, -GAP], [0.0, GAP, -GAP], [-GAP, GAP, 0.0]], dtype=dtype)
    pairs = [(student, teacher) for student in rows for teacher in rows]
    student = torch.stack([one for one, _ in pairs]).requires_grad_()
    teacher = torch.stack([other for _, other in pairs])
    loss = self_distillation(student, teacher, reduction="none")
    values, gradients = reference.self_distillation(student.detach().double(), teacher.double())
    torch.testing.assert_close(loss.double(), values, rtol=1e-6, atol=1e-6)
    loss.sum().backward()
    torch.testing.assert_close(student.grad.double(), gradients, rtol=1e-3, atol=1e-6)


def test_a_teacher_of_another_dtype_follows_the_student():
    student, teacher = draw(0, 3, 7), draw(1, 3, 7)
    assert self_distillation(student, teacher.bfloat16()).dtype == torch.float64
    assert self_distillation(student.half(), teacher).dtype == torch.float32


def bad_arguments():
    good = torch.zeros(4, 7)
    yield good[0], good, {}, r"student_logits must have shape \(B, C\), got \(7\)"
    yield good, good[:3], {}, "teacher_logits has B=3 but student_logits has B=4"
    yield good, good[:, :6], {}, "teacher_logits has C=6 but student_logits has C=7"
    yield good[:0], good[:0], {}, "student_logits is empty along B"
    yield good.long(), good, {}, "student_logits must have a floating-point dtype"
    yield good, good.long(), {}, "teacher_logits must have a floating-point dtype"
    yield good, good.to("meta"), {}, "teacher_logits is on meta but student_logits is on cpu"
    yield good, good, {"temperature": 0.0}, r"temperature must lie in \(0, inf\), got 0.0"
    yield good, good, {"reduction": "batchmean"}, "reduction must be 'mean', 'sum' or 'none'"


@pytest.mark.parametrize(("student", "teacher", "options", "message"), list(bad_arguments()))
def test_refuses(student, teacher, options, message):
    with pytest.raises(ValueError, match=message):
        self_distillation(student, teacher, **options)
