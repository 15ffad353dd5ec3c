import pytest
import torch

from robustfer.functional import rank_regularization
from robustfer.losses import RankRegularizationLoss


def importances(batch=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, generator=generator, dtype=torch.float64)
    return torch.sigmoid(0.1 * noise).requires_grad_()


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("batch", [1, 6, 90])
def test_is_the_function(variant, batch):
    options = {"margin": 0.3, "high_ratio": 0.7, "variant": variant}
    loss = RankRegularizationLoss(**options)
    expected = rank_regularization(importances(batch), **options)
    assert torch.equal(loss(importance=importances(batch)), expected)
    assert not loss.state_dict()
    assert repr(loss) == (
        f"RankRegularizationLoss(margin=0.3, high_ratio=0.7, variant={variant!r}, gather=True)"
    )


def test_a_learnable_margin_is_a_parameter_that_ends_at_the_gap():
    importance = importances().detach()
    loss = RankRegularizationLoss(margin=0.3, learnable_margin=True)
    assert list(loss.state_dict()) == ["margin"]
    fixed = rank_regularization(importance, margin=0.3)
    torch.testing.assert_close(loss.double()(importance).detach(), fixed, rtol=1e-6, atol=1e-8)
    gap = 0.3 - float(fixed)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        loss(importance).backward()
        optimizer.step()
    assert loss.margin.item() == pytest.approx(gap, abs=0.01)
    assert "margin=learnt" in repr(loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1.0}, r"margin must lie in \[0, 1\], got -1.0"),
        ({"margin": float("nan"), "learnable_margin": True}, "margin must lie in"),
        ({"high_ratio": 1.0}, r"high_ratio must lie in \(0, 1\), got 1.0"),
        ({"variant": "code"}, "variant must be 'paper' or 'official', got 'code'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        RankRegularizationLoss(**options)
