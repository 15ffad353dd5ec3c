import pytest
import torch
import torch.nn.functional as F

from robustfer.losses import EACLoss
from tests.reference import attention as reference


def inputs(batch=4, classes=7, size=3, *, dtype=torch.float64, soft=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator, dtype=dtype)
    maps = torch.randn(2, batch, classes, size, size + 1, generator=generator, dtype=dtype)
    target = torch.randint(classes, (batch,), generator=generator)
    if soft:
        target = torch.rand(batch, classes, generator=generator, dtype=dtype)
        target = target / target.sum(1, keepdim=True)
    return {
        "logits": logits.requires_grad_(),
        "target": target,
        "attention": maps[0].clone().requires_grad_(),
        "attention_flipped": maps[1].clone().requires_grad_(),
    }


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("batch", "classes"), [(1, 7), (4, 7), (3, 200)])
def test_is_the_equation(batch, classes, soft):
    given = inputs(batch, classes, soft=soft)
    terms = EACLoss(consistency_weight=3.0).terms(**given)
    maps = given["attention"], given["attention_flipped"]
    torch.testing.assert_close(
        terms["cross_entropy"], reference.cross_entropy(given["logits"], given["target"])
    )
    torch.testing.assert_close(
        terms["attention_consistency"], 3.0 * reference.attention_consistency(*maps).mean()
    )
    total = EACLoss(consistency_weight=3.0)(**given)
    torch.testing.assert_close(total, sum(terms.values()), rtol=0, atol=0)


def test_the_mirrored_view_is_not_classified():
    """The logits of the unmirrored view alone carry the gradient of the cross entropy."""
    given = inputs()
    EACLoss(consistency_weight=0.0)(**given).backward()
    assert given["logits"].grad.abs().sum() > 0
    assert given["attention_flipped"].grad.abs().sum() == 0


def test_label_smoothing_is_torchs():
    given = inputs()
    terms = EACLoss(label_smoothing=0.2).terms(**given)
    expected = F.cross_entropy(given["logits"], given["target"], label_smoothing=0.2)
    torch.testing.assert_close(terms["cross_entropy"], expected)


def test_soft_targets_of_another_precision():
    given = inputs(dtype=torch.float32, soft=True)
    given["target"] = given["target"].double()
    assert EACLoss()(**given).dtype == torch.float32


def test_nothing_is_kept():
    assert not EACLoss().state_dict()
    assert repr(EACLoss()) == "EACLoss(consistency_weight=5.0, label_smoothing=0.0)"


def bad_inputs():
    good = inputs(4, 7, 3)
    target, logits, maps = good["target"], good["logits"], good["attention"]
    yield {"logits": logits[:3]}, "target has B=4 but logits has B=3"
    yield {"logits": logits[0]}, r"logits must have shape \(B, C\), got \(7\)"
    yield {"logits": logits[:0], "target": target[:0]}, "logits is empty along B"
    yield {"target": target.int()}, "target must be int64 class indices"
    yield {"target": target.double()}, "target must be int64 class indices"
    yield {"target": target[:, None].repeat(1, 6)}, "target has C=6 but logits has C=7"
    yield {"target": target[:, None].repeat(1, 7)}, "for one-hot rows use target.float"
    yield {"attention": maps[:, :6]}, "attention has C=6 but logits has C=7"
    yield {"attention": maps[..., :2]}, "attention_flipped has W=4 but attention has W=2"
    yield {"attention_flipped": maps[:1]}, "attention_flipped has B=1 but attention has B=4"
    yield {"attention": maps.to("meta")}, "attention is on meta but logits is on cpu"
    yield {"logits": torch.ones(4, 7, dtype=torch.int64)}, "logits must have a floating-point dtype"


@pytest.mark.parametrize(("change", "message"), list(bad_inputs()))
def test_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        EACLoss()(**{**inputs(4, 7, 3), **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consistency_weight": -1.0}, r"consistency_weight must lie in \[0, inf\), got -1.0"),
        ({"consistency_weight": float("nan")}, "consistency_weight must lie in"),
        ({"consistency_weight": float("inf")}, "consistency_weight must lie in"),
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\), got 1.0"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        EACLoss(**options)
