import pytest
import torch

from robustfer.losses import SCNLoss
from tests.reference import attention as entropy_reference
from tests.reference import importance as reference


def inputs(batch=6, classes=7, *, dtype=torch.float64, soft=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator, dtype=dtype)
    importance = torch.sigmoid(0.1 * torch.randn(batch, generator=generator, dtype=dtype))
    target = torch.randint(classes, (batch,), generator=generator)
    if soft:
        target = torch.rand(batch, classes, generator=generator, dtype=dtype)
        target = target / target.sum(1, keepdim=True)
    return {
        "logits": logits.requires_grad_(),
        "target": target,
        "importance": importance.requires_grad_(),
        "bias": torch.randn(classes, generator=generator, dtype=dtype).requires_grad_(),
    }


def reference_terms(given, *, bias=None, margin=0.3, high=None):
    weighted = reference.weighted_logits(given["logits"], given["importance"], bias)
    return (
        entropy_reference.cross_entropy(weighted, given["target"]),
        reference.rank_regularization(given["importance"], margin, 0.7, high),
    )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("batch", "classes"), [(1, 7), (6, 7), (5, 200)])
def test_the_papers_form_is_the_equation(batch, classes, soft):
    given = inputs(batch, classes, soft=soft)
    entropy, rank = reference_terms(given, bias=given["bias"])
    criterion = SCNLoss(margin=0.3, rank_weight=0.2)
    terms = criterion.terms(**given)
    torch.testing.assert_close(terms["weighted_cross_entropy"], 0.8 * entropy)
    torch.testing.assert_close(terms["rank_regularization"], 0.2 * rank)
    torch.testing.assert_close(criterion(**given), sum(terms.values()), rtol=0, atol=0)


def test_without_a_bias_the_whole_logits_are_weighted():
    given = inputs()
    del given["bias"]
    entropy, rank = reference_terms(given)
    torch.testing.assert_close(SCNLoss(margin=0.3)(**given), 0.5 * entropy + 0.5 * rank)


def test_the_official_form_is_the_plain_sum_with_the_bias_weighted():
    given = inputs(90)
    entropy, rank = reference_terms(given, high=62)  # its group of 90 is one short
    criterion = SCNLoss(margin=0.3, variant="official")
    torch.testing.assert_close(criterion(**given), entropy + rank)
    del given["bias"]
    torch.testing.assert_close(criterion(**given), entropy + rank)


def test_the_official_form_is_twice_the_papers():
    given = inputs()
    del given["bias"]
    paper, official = SCNLoss(margin=0.3), SCNLoss(margin=0.3, variant="official")
    torch.testing.assert_close(official(**given), 2 * paper(**given))


@pytest.mark.parametrize(("variant", "rank"), [("paper", 0.0), ("official", 0.3)])
def test_a_batch_of_one_is_not_ranked(variant, rank):
    given = inputs(1)
    terms = SCNLoss(margin=0.3, variant=variant).terms(**given)
    assert terms["rank_regularization"] == rank
    terms["rank_regularization"].backward()
    assert given["importance"].grad == 0


@pytest.mark.parametrize(("variant", "weight"), [("paper", 0.5), ("official", 1.0)])
def test_a_learnt_margin_feels_the_weight_of_the_ranking(variant, weight):
    criterion = SCNLoss(margin=0.3, variant=variant, learnable_margin=True).double()
    criterion(**inputs(4, 3)).backward()
    assert criterion.margin.grad == weight


def test_importances_in_single_beside_logits_in_half():
    """What a head in float32 and a network under autocast hand over."""
    given = inputs()
    mixed = {
        "logits": given["logits"].detach().bfloat16(),
        "target": given["target"],
        "importance": given["importance"].detach().float(),
        "bias": given["bias"].detach().float(),
    }
    expected = SCNLoss()(**{**mixed, "logits": mixed["logits"].float()})
    assert torch.equal(SCNLoss()(**mixed), expected)


def test_nothing_is_kept_but_a_learnt_margin():
    assert not SCNLoss().state_dict()
    assert list(SCNLoss(learnable_margin=True).state_dict()) == ["margin"]
    assert repr(SCNLoss()) == (
        "SCNLoss(margin=0.15, high_ratio=0.7, rank_weight=0.5, variant='paper', gather=True)"
    )


def bad_inputs():
    good = inputs(4, 7)
    target, logits, importance = good["target"], good["logits"], good["importance"]
    yield {"logits": logits[:3]}, "target has B=4 but logits has B=3"
    yield {"logits": logits[0]}, r"logits must have shape \(B, C\), got \(7\)"
    yield {"target": target[:3]}, "target has B=3 but logits has B=4"
    yield {"target": target.int()}, "target must be int64 class indices"
    yield {"target": target[:, None].repeat(1, 6).double()}, "target has C=6 but logits has C=7"
    yield {"importance": importance[:, None]}, r"importance must have shape \(B\), got \(4, 1\)"
    yield {"importance": importance.to("meta")}, "importance is on meta but logits is on cpu"
    yield {"bias": good["bias"][:6]}, "bias has C=6 but logits has C=7"


@pytest.mark.parametrize(("change", "message"), list(bad_inputs()))
def test_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        SCNLoss()(**{**inputs(4, 7), **change})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 2.0}, r"margin must lie in \[0, 1\], got 2.0"),
        ({"high_ratio": 0.0}, r"high_ratio must lie in \(0, 1\), got 0.0"),
        ({"rank_weight": 1.5}, r"rank_weight must lie in \[0, 1\], got 1.5"),
        ({"variant": "code"}, "variant must be 'paper' or 'official', got 'code'"),
        (
            {"variant": "official", "rank_weight": 0.5},
            "rank_weight must be left out for variant='official'.*got 0.5",
        ),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        SCNLoss(**options)
