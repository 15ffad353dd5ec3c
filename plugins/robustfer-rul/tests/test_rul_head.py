"""The paper's two branches as a head of its own."""

import pytest
import torch

from robustfer_rul.functional import log_uncertainty, relative_uncertainty
from robustfer_rul.heads import RelativeUncertaintyHead


@pytest.fixture
def head():
    torch.manual_seed(0)
    return RelativeUncertaintyHead(num_features=6, dim=4)


def test_it_is_two_linear_layers(head):
    features = torch.randn(5, 6)
    embeddings, uncertainty = head(features)
    torch.testing.assert_close(embeddings, head.mean(features))
    torch.testing.assert_close(uncertainty, log_uncertainty(head.log_variance(features)))


def test_only_the_uncertainty_starts_near_zero(head):
    assert not head.log_variance.bias.any()
    assert head.mean.weight.std() > 10 * head.log_variance.weight.std()
    assert head.mean.bias.any()


def test_the_uncertainty_trains_the_features_too(head):
    features = torch.randn(5, 6, requires_grad=True)
    head(features).log_uncertainty.sum().backward()
    assert features.grad.any()


def test_it_trains_with_the_loss(head):
    classifier = torch.nn.Linear(4, 7)
    parts = torch.nn.ModuleList([head, classifier])
    features, target = torch.randn(8, 6, requires_grad=True), torch.arange(8) % 7
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = relative_uncertainty(
            *head(features),
            target,
            classifier.weight,
            torch.arange(8).roll(1),
            bias=classifier.bias,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert features.grad.any()
    assert all(parameter.grad.any() for parameter in parts.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_and_autocast_give_single(head, dtype):
    features = torch.randn(5, 6).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        output = head(features)
    for result, expected in zip(output, head(features.float()), strict=True):
        assert torch.equal(result, expected)


def test_what_does_not_fit(head):
    with pytest.raises(ValueError, match=r"embeddings must have shape \(B, 6\), got \(5, 4\)"):
        head(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="embeddings must have a floating-point dtype"):
        head(torch.zeros(5, 6).long())
    with pytest.raises(ValueError, match="dim must be a whole number from 1 on, got 0"):
        RelativeUncertaintyHead(num_features=6, dim=0)
    with pytest.raises(ValueError, match="num_features must be a whole number from 1 on, got -1"):
        RelativeUncertaintyHead(num_features=-1)
