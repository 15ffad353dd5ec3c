"""Mine extra knowledge against the paper's equations, sample by sample in plain Python."""

import math

import pytest
import torch

from robustfer.functional import attention_consistency
from robustfer.losses import EACLoss, check_values
from robustfer.testing import LossConformance
from robustfer_mek.functional import rebalanced_attention_consistency, rebalanced_cross_entropy
from robustfer_mek.losses import ExtraKnowledgeLoss


def maps(batch, classes, dtype, generator):
    pair = torch.randn(2, batch, classes, 3, 4, dtype=dtype, generator=generator)
    return {"attention": pair[0], "attention_flipped": pair[1]}


class TestExtraKnowledge(LossConformance):
    def make_loss(self):
        return ExtraKnowledgeLoss()

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
            **maps(batch, classes, dtype, generator),
            "class_counts": torch.randint(1, 900, (classes,), generator=generator),
        }


class TestWithProbabilitiesAndShares(TestExtraKnowledge):
    constants = ("target", "class_counts")

    def make_loss(self):
        return ExtraKnowledgeLoss(consistency_weight=0.5, smoothing=0.2)

    def make_inputs(self, *, generator, **sizes):
        inputs = super().make_inputs(generator=generator, **sizes)
        draws = {"dtype": inputs["logits"].dtype, "generator": generator}
        return inputs | {
            "target": torch.randn(inputs["logits"].shape, **draws).softmax(dim=1),
            "class_counts": torch.randn(sizes["classes"], **draws).softmax(dim=0),
        }


class TestWithClassesThatAreEmpty(TestExtraKnowledge):
    def make_inputs(self, **sizes):
        inputs = super().make_inputs(**sizes)
        inputs["class_counts"][::2] = 0
        return inputs


def drawn(batch=4, classes=7, *, soft=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    double = {"generator": generator, "dtype": torch.float64}
    target = torch.randint(classes, (batch,), generator=generator)
    return {
        "logits": 3 * torch.randn(batch, classes, **double),
        "target": torch.randn(batch, classes, **double).softmax(dim=1) if soft else target,
        **maps(batch, classes, torch.float64, generator),
        "class_counts": torch.randint(1, 900, (classes,), generator=generator),
    }


def plain_rarity(counts):
    return [sum(counts) / (10 * count) if count else 0.0 for count in counts]


def plain_cross_entropy(logits, label, counts, smoothing):
    """Of one sample with one label: the equation with lists and Python's own numbers."""
    rarity = plain_rarity(counts)
    others = sum(b for k, b in enumerate(rarity) if k != label)
    normalizer = math.log(sum(math.exp(score) for score in logits))
    loss = 0.0
    for k, score in enumerate(logits):
        if others == 0:
            share = float(k == label)
        else:
            share = 1 - smoothing if k == label else smoothing * rarity[k] / others
        loss -= share * (score - normalizer)
    return loss


def plain_consistency(attention, flipped, counts):
    rarity, total = plain_rarity(counts), 0.0
    batch, classes, height, width = attention.shape
    one, other = attention.tolist(), flipped.tolist()
    for n in range(batch):
        for c in range(classes):
            squares = 0.0
            for h in range(height):
                for w in range(width):
                    squares += (one[n][c][h][w] - other[n][c][h][width - 1 - w]) ** 2
            total += rarity[c] * squares / (height * width)
    return total / batch


@pytest.mark.parametrize(("batch", "classes"), [(4, 7), (1, 2), (3, 200)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.9])
def test_it_is_the_equation(batch, classes, smoothing):
    given = drawn(batch, classes)
    counts = given["class_counts"].tolist()
    terms = ExtraKnowledgeLoss(consistency_weight=0.7, smoothing=smoothing).terms(**given)
    expected = [
        plain_cross_entropy(row, label, counts, smoothing)
        for row, label in zip(given["logits"].tolist(), given["target"].tolist(), strict=True)
    ]
    assert terms["rebalanced_cross_entropy"].item() == pytest.approx(
        sum(expected) / batch, rel=1e-12
    )
    consistency = 0.7 * plain_consistency(given["attention"], given["attention_flipped"], counts)
    found = terms["rebalanced_attention_consistency"].item()
    assert found == pytest.approx(consistency, rel=1e-12)


def test_probabilities_cost_the_mean_over_labels_drawn_from_them():
    given = drawn(soft=True)
    logits, target, counts = given["logits"], given["target"], given["class_counts"]
    found = rebalanced_cross_entropy(logits, target, counts, reduction="none")
    for n in range(len(logits)):
        mean = sum(
            target[n, label].item()
            * plain_cross_entropy(logits[n].tolist(), label, counts.tolist(), 0.3)
            for label in range(7)
        )
        assert found[n].item() == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_the_function_reduces_as_it_is_told(soft):
    given = drawn(soft=soft)
    each, total, mean = (
        rebalanced_cross_entropy(
            given["logits"], given["target"], given["class_counts"], reduction=reduction
        )
        for reduction in ("none", "sum", "mean")
    )
    assert each.shape == given["logits"].shape[:1]
    torch.testing.assert_close(total, each.sum())
    torch.testing.assert_close(mean, each.mean())


def test_shapes_on_the_meta_device():
    """torch.autocast knows no such device."""
    given = {name: tensor.to("meta") for name, tensor in drawn(soft=True).items()}
    loss = rebalanced_cross_entropy(given["logits"], given["target"], given["class_counts"])
    assert (loss.device.type, loss.shape) == ("meta", ())


def test_the_counts_are_constants():
    given = drawn()
    counts = given["class_counts"].double().requires_grad_()
    logits = given["logits"].requires_grad_()
    ExtraKnowledgeLoss()(**{**given, "class_counts": counts}).backward()
    assert logits.grad.any()
    assert counts.grad is None


def test_counts_shares_and_a_multiple_mean_the_same():
    given = drawn()
    counts, criterion = given["class_counts"], ExtraKnowledgeLoss()
    expected = criterion(**given)
    for same in (counts.double() / counts.sum(), 1000 * counts, counts.float()):
        torch.testing.assert_close(criterion(**given | {"class_counts": same}), expected)


def test_with_equal_counts_it_is_eac_with_another_weight_and_label_smoothing():
    given = drawn()
    given["class_counts"] = torch.full((7,), 123)
    found = ExtraKnowledgeLoss(consistency_weight=0.1, smoothing=0.3)(**given)
    del given["class_counts"]
    # torch's smoothing spreads a share over all classes, the label's own among them.
    eac = EACLoss(consistency_weight=0.1 * 49 / 10, label_smoothing=0.3 * 7 / 6)
    torch.testing.assert_close(found, eac(**given))


def test_rare_classes_count_more():
    pair = maps(4, 7, torch.float64, torch.Generator().manual_seed(0))
    counts = torch.tensor([1000, 100, 10, 1000, 1000, 1000, 1000])
    attention = pair["attention"].requires_grad_()
    rebalanced_attention_consistency(attention, pair["attention_flipped"], counts).backward()
    slope = attention.grad.square().mean(dim=(0, 2, 3)).sqrt()
    assert slope[2] > 5 * slope[1] > 25 * slope[0]
    logits = torch.zeros(1, 7, dtype=torch.float64, requires_grad=True)
    rebalanced_cross_entropy(logits, torch.tensor([0]), counts).backward()
    pull = 1 / 7 - logits.grad[0]  # the share of each class in the label
    torch.testing.assert_close(pull[2] / pull[1], pull.new_tensor(10.0))
    torch.testing.assert_close(pull[0], pull.new_tensor(0.7))


@pytest.mark.parametrize("soft", [False, True])
def test_a_class_without_samples_has_no_weight(soft):
    given = drawn(soft=soft)
    given["class_counts"][3] = 0
    given["logits"].requires_grad_()
    given["attention"].requires_grad_()
    if not soft:
        given["target"][:] = torch.tensor([0, 1, 2, 4])
    terms = ExtraKnowledgeLoss().terms(**given)
    sum(terms.values()).backward()
    assert given["attention"].grad[:, 3].abs().sum() == 0
    assert given["attention"].grad.isfinite().all()
    share = given["logits"].softmax(dim=1)[:, 3] - 4 * given["logits"].grad[:, 3]
    # Without samples a class is in a label only where the label says so.
    stated = 0.7 * given["target"][:, 3] if soft else torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(share, stated)


def test_where_only_one_class_has_samples_its_label_stays_whole():
    logits, counts = drawn()["logits"], torch.tensor([0, 0, 5, 0, 0, 0, 0])
    target = torch.tensor([2, 2, 2, 2])
    found = rebalanced_cross_entropy(logits, target, counts)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, target))


def test_the_consistency_is_the_cores_with_weights():
    pair = maps(4, 7, torch.float64, torch.Generator().manual_seed(0))
    equal = rebalanced_attention_consistency(**pair, class_counts=torch.ones(7))
    torch.testing.assert_close(equal, 4.9 * attention_consistency(**pair))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"consistency_weight": -1.0}, r"consistency_weight must lie in \[0, inf\), got -1.0"),
        ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\), got 1.0"),
        ({"smoothing": float("nan")}, r"smoothing must lie in \[0, 1\), got nan"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        ExtraKnowledgeLoss(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_counts": torch.ones(6)}, "class_counts has C=6 but logits has C=7"),
        ({"class_counts": torch.ones(1, 7)}, r"class_counts must have shape \(C\), got \(1, 7\)"),
        ({"target": torch.zeros(4).int()}, "target must be int64 class indices"),
        ({"attention": torch.zeros(4, 6, 3, 4)}, "attention has C=6 but logits has C=7"),
        ({"attention": torch.zeros(3, 7, 3, 4)}, "attention has B=3 but logits has B=4"),
        ({"attention_flipped": torch.zeros(4, 7, 3, 3)}, "attention_flipped has W=3"),
        ({"attention": torch.zeros(4, 7, 3, 4).long()}, "attention must have a floating-point"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        ExtraKnowledgeLoss()(**drawn() | change)


@pytest.mark.parametrize(
    "counts", [[1, 1, -1, 1, 1, 1, 1], [0] * 7, [1.0] * 6 + [float("nan")]], ids=str
)
def test_counts_that_are_none(counts):
    given = drawn() | {"class_counts": torch.tensor(counts)}
    with check_values(), pytest.raises(ValueError, match="class_counts"):
        ExtraKnowledgeLoss()(**given)


@pytest.mark.parametrize("name", ["logits", "target", "class_counts", "attention_flipped"])
def test_lists_are_refused(name):
    given = drawn()
    with pytest.raises(TypeError, match=rf"{name} must be a torch.Tensor, got list"):
        ExtraKnowledgeLoss()(**{**given, name: given[name].tolist()})


@pytest.mark.parametrize("label", [-100, -1, 7])
def test_no_label_is_left_out(label):
    given = drawn()
    given["target"][1] = label
    with pytest.raises(IndexError, match=f"0 to 6, got {label} at position 1. If your labels"):
        ExtraKnowledgeLoss()(**given)


def test_the_module_says_how_it_was_made_and_keeps_nothing():
    criterion = ExtraKnowledgeLoss()
    assert repr(criterion) == "ExtraKnowledgeLoss(consistency_weight=0.1, smoothing=0.3)"
    assert not criterion.state_dict()
