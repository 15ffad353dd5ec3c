import pytest
import torch

from robustfer.losses import (
    AttentionConsistencyLoss,
    CompositeLoss,
    GSMCLoss,
    SelfDistillationLoss,
    Term,
)
from tests.reference import attention as reference
from tests.reference.distillation import self_distillation


def inputs(batch=4, classes=7, size=3, *, dtype=torch.float64, soft=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, batch, classes, generator=generator, dtype=dtype)
    maps = torch.randn(2, batch, classes, size, size + 1, generator=generator, dtype=dtype)
    target = torch.randint(classes, (batch,), generator=generator)
    if soft:
        target = torch.rand(batch, classes, generator=generator, dtype=dtype)
        target = target / target.sum(1, keepdim=True)
    return {
        "logits": logits[0].clone().requires_grad_(),
        "target": target,
        "teacher_logits": logits[1].clone().requires_grad_(),
        "attention": maps[0].clone().requires_grad_(),
        "attention_flipped": maps[1].clone().requires_grad_(),
    }


def reference_terms(given):
    divergence, _ = self_distillation(given["logits"].detach(), given["teacher_logits"].detach())
    maps = given["attention"], given["attention_flipped"]
    return {
        "cross_entropy": reference.cross_entropy(given["logits"], given["target"]),
        "self_distillation": divergence.mean(),
        "attention_consistency": reference.attention_consistency(*maps).mean(),
    }


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("batch", "classes"), [(1, 7), (4, 7), (3, 200)])
def test_is_the_equation(batch, classes, soft):
    given = inputs(batch, classes, soft=soft)
    criterion = GSMCLoss(distillation_weight=0.7, consistency_weight=3.0)
    terms, expected = criterion.terms(**given), reference_terms(given)
    weights = {"cross_entropy": 1.0, "self_distillation": 0.7, "attention_consistency": 3.0}
    assert list(terms) == list(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(terms[name], weight * expected[name])
    torch.testing.assert_close(criterion(**given), sum(terms.values()), rtol=0, atol=0)


def test_its_parts_make_it():
    given = inputs()
    composite = CompositeLoss(
        Term("ce", torch.nn.CrossEntropyLoss(), inputs={"input": "logits"}),
        Term("teacher", SelfDistillationLoss(), weight=0.9, inputs={"student_logits": "logits"}),
        Term("attention", AttentionConsistencyLoss(), weight=0.2),
    )
    torch.testing.assert_close(composite(**given), GSMCLoss()(**given))


def test_the_teacher_gets_no_gradient():
    given = inputs()
    GSMCLoss()(**given).backward()
    assert given["teacher_logits"].grad is None
    for name in ("logits", "attention", "attention_flipped"):
        assert given[name].grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("soft", [False, True])
def test_finite_for_a_gap_of_ten_thousand(dtype, soft):
    given = inputs(dtype=torch.float32, soft=soft)
    extreme = torch.tensor([[1e4, *[-1e4] * 6], [-1e4, 1e4, *[0.0] * 5]] * 2)
    given |= {"logits": extreme, "teacher_logits": extreme.roll(1, dims=0)}
    given = {
        name: tensor.detach().to(dtype).requires_grad_() if tensor.is_floating_point() else tensor
        for name, tensor in given.items()
    }
    loss = GSMCLoss()(**given)
    assert loss.isfinite()
    loss.backward()
    assert given["logits"].grad.isfinite().all()


def test_soft_targets_of_another_precision_than_the_logits():
    given = inputs(soft=True)
    single = {**given, "logits": given["logits"].detach().float()}
    loss = GSMCLoss()(**single)
    torch.testing.assert_close(loss, GSMCLoss()(**given), rtol=1e-5, atol=1e-5, check_dtype=False)


def test_nothing_is_kept():
    assert not GSMCLoss().state_dict()
    assert repr(GSMCLoss()) == "GSMCLoss(distillation_weight=0.9, consistency_weight=0.2)"


def bad_inputs():
    good = inputs(4, 7, 3)
    target, logits, maps = good["target"], good["logits"], good["attention"]
    yield {"logits": logits[:3]}, "target has B=4 but logits has B=3"
    yield {"logits": logits[0]}, r"logits must have shape \(B, C\), got \(7\)"
    yield {"target": target[:3]}, "target has B=3 but logits has B=4"
    yield {"target": target.int()}, "target must be int64 class indices"
    yield {"teacher_logits": logits[:, :6]}, "teacher_logits has C=6 but logits has C=7"
    yield {"teacher_logits": target}, r"teacher_logits must have shape \(B, C\), got \(4\)"
    yield {"teacher_logits": logits.long()}, "teacher_logits must have a floating-point dtype"
    yield {"attention": maps[:, :6]}, "attention has C=6 but logits has C=7"
    yield {"attention": maps[..., :2]}, "attention_flipped has W=4 but attention has W=2"
    yield {"attention_flipped": maps[:1]}, "attention_flipped has B=1 but attention has B=4"
    yield {"attention": maps.to("meta")}, "attention is on meta but logits is on cpu"


@pytest.mark.parametrize(("change", "message"), list(bad_inputs()))
def test_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        GSMCLoss()(**{**inputs(4, 7, 3), **change})


@pytest.mark.parametrize("name", ["distillation_weight", "consistency_weight"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_refuses_options(name, value):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, inf\), got {value}"):
        GSMCLoss(**{name: value})
