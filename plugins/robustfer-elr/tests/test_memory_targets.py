"""Memory targets against plain Python, and against the core's bank that starts at the label."""

import math
from itertools import pairwise

import pytest
import torch

from robustfer.losses import CompositeLoss, Term
from robustfer.state import LabelDistributionBank
from robustfer.testing import StatefulLossConformance
from robustfer_elr.functional import memory_cross_entropy, moved_early_target
from robustfer_elr.losses import EarlyLearningLoss, MemoryTargetLoss


class TestMemoryTargets(StatefulLossConformance):
    def make_loss(self):
        return MemoryTargetLoss(num_samples=self.samples, num_classes=self.classes)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
        }


class TestMemoryTargetsWithProbabilities(TestMemoryTargets):
    def make_inputs(self, *, batch, classes, dtype, generator):
        logits, votes = torch.randn(2, batch, classes, dtype=dtype, generator=generator)
        return {"logits": logits, "target": votes.softmax(dim=1)}


def batches(steps=12, *, samples=9, batch=4, classes=5):
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(classes, (samples,), generator=generator)
    for _ in range(steps):
        logits = torch.randn(batch, classes, generator=generator, dtype=torch.float64)
        index = torch.randperm(samples, generator=generator)[:batch]
        yield logits, given[index], index


def train(criterion, logits, target, index):
    early_target = criterion.propose(logits=logits, index=index)
    loss = criterion(logits, target, early_target)
    criterion.update(index, early_target)
    return loss


@pytest.mark.parametrize(("decay", "weight"), [(0.7, 0.6), (0.9, 1.0), (0.0, 0.5), (0.5, 0.0)])
@pytest.mark.parametrize("classes", [2, 7, 200])
def test_it_goes_where_the_algorithm_goes(decay, weight, classes):
    criterion = MemoryTargetLoss(
        num_samples=9, num_classes=classes, decay=decay, weight=weight
    ).double()
    memory = [[0.0] * classes for _ in range(9)]
    for logits, target, index in batches(classes=classes):
        total = 0.0
        rows = zip(logits.tolist(), target.tolist(), index.tolist(), strict=True)
        for scores, label, sample in rows:
            e = [math.exp(score) for score in scores]
            p = [value / sum(e) for value in e]
            clamped = [min(max(value, 1e-4), 1 - 1e-4) for value in p]
            m = memory[sample]
            for k, value in enumerate(clamped):
                m[k] = decay * m[k] + (1 - decay) * value / sum(clamped)
            for k, value in enumerate(p):
                share = (k == label) * (1 - weight * sum(m)) + weight * m[k]
                total -= share * math.log(value)
        found = train(criterion, logits, target, index)
        assert found.item() == pytest.approx(total / len(logits), rel=1e-9)


@pytest.mark.parametrize("soft", [False, True])
def test_the_function_mixes_the_label_with_a_constant_memory(soft):
    logits, votes, memory = torch.randn(
        3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    logits.requires_grad_()
    memory = (0.8 * memory.softmax(dim=1)).requires_grad_()
    target = votes.softmax(dim=1) if soft else votes.argmax(dim=1)
    label = target if soft else torch.eye(5, dtype=torch.float64)[target]
    mixture = (1 - 0.6 * 0.8) * label + 0.6 * memory.detach()
    each = -(mixture * logits.log_softmax(dim=1)).sum(dim=1)
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        found = memory_cross_entropy(logits, target, memory, reduction=reduction)
        torch.testing.assert_close(found, expected)
    found.backward()
    assert logits.grad.any()
    assert memory.grad is None


@pytest.mark.parametrize("decay", [0.7, 0.9])
def test_it_is_the_cores_bank_that_starts_at_the_label(decay):
    given = torch.full((9,), -1)
    for _, target, index in batches():
        given[index] = target
    bank = LabelDistributionBank(
        given.clamp(min=0), num_classes=5, decay=decay, dtype=torch.float64
    )
    options = {"num_samples": 9, "num_classes": 5, "decay": decay}
    criterion = MemoryTargetLoss(**options, weight=0.6).double()
    for logits, target, index in batches():
        believed = bank(index, logits.softmax(dim=1))
        bank.update(index, believed)
        label = 0.4 * torch.eye(5, dtype=torch.float64)[target] + 0.6 * believed
        expected = torch.nn.functional.cross_entropy(logits, label)
        torch.testing.assert_close(train(criterion, logits, target, index), expected)


def test_the_memory_is_that_of_early_learning_regularization():
    options = {"num_samples": 9, "num_classes": 5, "decay": 0.8}
    one, other = MemoryTargetLoss(**options), EarlyLearningLoss(**options)
    for batch in batches():
        train(one, *batch)
        train(other, *batch)
    assert torch.equal(one.early_targets, other.early_targets)


def test_the_target_turns_from_the_label_into_the_prediction():
    logits, wrong = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([1])
    early_target, slopes = torch.zeros(1, 3), []
    for _ in range(20):
        given = logits.clone().requires_grad_()
        memory_cross_entropy(given, wrong, early_target, weight=0.6).backward()
        slopes.append(given.grad[0, 1].item())
        early_target = moved_early_target(early_target, logits, decay=0.7)
    share = logits.softmax(dim=1)[0, 1].item()
    assert slopes[0] == pytest.approx(share - 1)  # the label alone
    assert all(before < after for before, after in pairwise(slopes))
    assert slopes[-1] == pytest.approx(0.4 * (share - 1), rel=0.01)


def test_a_label_that_was_corrected_counts_at_once():
    criterion = MemoryTargetLoss(num_samples=1, num_classes=3, weight=0.5)
    logits, index = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
    early_target = criterion.propose(logits, index)
    found = criterion(logits, torch.tensor([2]), early_target)
    label = torch.tensor([[0.0, 0.0, 1.0]])
    torch.testing.assert_close(criterion(logits, label, early_target), found)
    assert criterion(logits, torch.tensor([0]), early_target) < found


def test_a_teacher_can_be_remembered_and_the_weight_raised():
    criterion = MemoryTargetLoss(num_samples=9, num_classes=5, weight=0.0)
    [(logits, target, index)] = batches(1)
    taught = criterion.propose(logits=-logits, index=index)
    torch.testing.assert_close(
        criterion(logits, target, taught), torch.nn.functional.cross_entropy(logits, target)
    )
    criterion.weight = 0.6
    expected = memory_cross_entropy(logits, target, taught, weight=0.6)
    assert criterion(logits, target, taught) == expected


def test_in_a_composition():
    options = {"num_samples": 9, "num_classes": 5}
    composed = CompositeLoss(Term("memory", MemoryTargetLoss(**options), weight=2.0))
    single = MemoryTargetLoss(**options)
    for logits, target, index in batches(3):
        proposed = composed.propose(logits=logits, index=index)
        loss = composed(logits=logits, target=target, **proposed)
        composed.update(index, proposed)
        assert loss == 2 * train(single, logits, target, index)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 1.1}, r"weight must lie in \[0, 1\], got 1.1"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"num_samples": 0}, "num_samples must be a whole number from 1 on, got 0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryTargetLoss(**{"num_samples": 9, "num_classes": 5, **options})


def test_arguments_that_do_not_fit():
    [(logits, target, index)] = batches(1)
    criterion, t = MemoryTargetLoss(num_samples=9, num_classes=5), torch.zeros(4, 5)
    for call, message in (
        (lambda: criterion.propose(logits[:, :4], index), r"logits must have shape \(B, 5\)"),
        (lambda: criterion(logits, target, t[:3]), "early_target has B=3 but logits has B=4"),
        (lambda: criterion(logits, target, t.long()), "early_target must have a floating-point"),
        (lambda: criterion(logits, target.int(), t), "target must be int64 class indices"),
        (lambda: memory_cross_entropy(logits, target, t, reduction="max"), "reduction must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_module_says_how_it_was_made():
    criterion = MemoryTargetLoss(num_samples=9, num_classes=5)
    assert repr(criterion) == "MemoryTargetLoss(9 samples, num_classes=5, decay=0.9, weight=0.6)"
