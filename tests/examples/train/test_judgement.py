"""Figures of predictions against slow loops written from their definitions."""

import pytest
import torch

from examples.train.judgement import (
    at_temperature,
    fit_temperature,
    judge,
    per_class,
    reliability,
)


def drawn(count=200, classes=4, scale=2.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(count, classes, generator=generator)
    probability = torch.softmax(logits / scale * 1.5, 1)
    targets = torch.multinomial(probability, 1, generator=generator)[:, 0]
    return logits, targets


def test_per_class_counts_given_and_predicted():
    confusion = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    rows = per_class(confusion, ("a", "b", "c"))
    assert rows[0] == {
        "class": "a", "images": 4, "recall": 0.75, "precision": 0.6,
        "share_given": 0.4, "share_predicted": 0.5,
    }  # fmt: skip
    assert rows[2]["recall"] is rows[2]["precision"] is None
    assert rows[2]["share_predicted"] == 0


def test_bins_hold_all_images_and_their_gaps_are_the_calibration_error():
    logits, targets = drawn()
    probability = logits.softmax(1)
    bins = reliability(probability, targets)
    assert sum(one.count for one in bins) == len(targets)
    gaps = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / len(targets)
    found = judge(probability, targets, tuple("abcd"))
    assert found.calibration_error == pytest.approx(gaps, abs=1e-6)
    for one in bins:
        low = one.confidence - 1e-9
        assert int(low * 15) == int(one.confidence * 15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_confidence_on_an_edge_counts_in_the_lower_bin(dtype):
    sure = torch.arange(8, 16, dtype=torch.float64) / 15
    sure = torch.cat((sure, sure - 0.5 / 15))
    probability = torch.stack((sure, 1 - sure), dim=1).to(dtype)
    bins = reliability(probability, torch.zeros(16, dtype=torch.int64))
    assert [one.count for one in bins] == [2] * 8


@pytest.mark.parametrize("scale", [0.5, 2.0, 9.0])
def test_the_temperature_is_the_likeliest(scale):
    logits, targets = drawn(scale=scale)
    found = fit_temperature(logits, targets)

    def loss(temperature):
        return float(torch.nn.functional.cross_entropy(logits.double() / temperature, targets))

    tried = torch.logspace(-1.3, 1.3, 4001, dtype=torch.float64).tolist()
    best = min(tried, key=loss)
    assert found == pytest.approx(best, rel=2e-3)
    assert loss(found) <= loss(best) + 1e-12
    sums = at_temperature(logits, found).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_the_temperature_stays_within_bounds():
    logits = torch.eye(3).repeat(4, 1)
    targets = torch.arange(3).repeat(4)
    assert fit_temperature(logits, targets) == pytest.approx(0.05)
    assert fit_temperature(logits, (targets + 1) % 3) == pytest.approx(20)
    assert fit_temperature(torch.zeros(3, 3), targets[:3]) > 0


def test_figures_and_text_name_every_class():
    logits, targets = drawn()
    found = judge(logits.softmax(1), targets, ("anger", "fear", "joy", "=1+1"))
    figures = found.figures()
    assert figures["images"] == 200
    assert figures["accuracy"] == pytest.approx(
        float((logits.argmax(1) == targets).double().mean())
    )
    assert [row["class"] for row in figures["classes"]] == ["anger", "fear", "joy", "=1+1"]
    lines = found.text().splitlines()
    assert len({len(line) for line in lines[2:]}) == 1  # columns in line
