"""Early-learning regularization against the paper's equations, step by step in plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.losses import AttentionConsistencyLoss, CompositeLoss, Term, check_values
from robustfer.testing import StatefulLossConformance
from robustfer_elr.functional import early_learning_regularization, moved_early_target
from robustfer_elr.losses import EarlyLearningLoss


class TestEarlyLearning(StatefulLossConformance):
    def make_loss(self):
        return EarlyLearningLoss(num_samples=self.samples, num_classes=self.classes)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, dtype=dtype, generator=generator),
            "target": torch.randint(classes, (batch,), generator=generator),
        }


class TestWithProbabilities(TestEarlyLearning):
    def make_inputs(self, *, batch, classes, dtype, generator):
        logits, votes = torch.randn(2, batch, classes, dtype=dtype, generator=generator)
        return {"logits": logits, "target": votes.softmax(dim=1)}


class PlainELR:
    """The paper's algorithm with lists and Python's own numbers."""

    def __init__(self, samples, classes, decay, weight):
        self.t = [[0.0] * classes for _ in range(samples)]
        self.decay, self.weight = decay, weight

    def step(self, logits, target, index):
        """Move the targets of these samples, then return the loss with them."""
        total = 0.0
        for row, label, sample in zip(logits, target, index, strict=True):
            largest = max(row)
            e = [math.exp(score - largest) for score in row]
            p = [value / sum(e) for value in e]
            clamped = [min(max(value, 1e-4), 1 - 1e-4) for value in p]
            t = self.t[sample]
            for k, value in enumerate(clamped):
                t[k] = self.decay * t[k] + (1 - self.decay) * value / sum(clamped)
            agreement = sum(a * b for a, b in zip(t, clamped, strict=True))
            total += -math.log(p[label]) + self.weight * math.log(1 - agreement)
        return total / len(logits)


def batches(steps=6, *, samples=9, batch=4, classes=5, scale=3.0):
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        logits = scale * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
        target = torch.randint(classes, (batch,), generator=generator)
        yield logits, target, torch.randperm(samples, generator=generator)[:batch]


def train(criterion, logits, target, index):
    early_target = criterion.propose(logits=logits, index=index)
    loss = criterion(logits, target, early_target)
    criterion.update(index, early_target)
    return loss


@pytest.mark.parametrize(("classes", "scale"), [(5, 3.0), (2, 30.0), (200, 10.0)])
@pytest.mark.parametrize(("decay", "weight"), [(0.7, 3.0), (0.9, 1.0), (0.0, 0.5)])
def test_it_goes_where_the_algorithm_goes(decay, weight, classes, scale):
    criterion = EarlyLearningLoss(
        num_samples=9, num_classes=classes, decay=decay, weight=weight
    ).double()
    plain = PlainELR(9, classes, decay, weight)
    for logits, target, index in batches(classes=classes, scale=scale):
        expected = plain.step(logits.tolist(), target.tolist(), index.tolist())
        assert train(criterion, logits, target, index).item() == pytest.approx(expected, rel=1e-9)
        found = criterion.early_targets
        torch.testing.assert_close(found, found.new_tensor(plain.t), rtol=1e-12, atol=1e-14)


def test_the_gradient_is_that_of_the_paper():
    [(logits, _, _)] = batches(1, scale=1.0)
    t = 0.8 * logits.flip(0).softmax(dim=1)
    logits.requires_grad_()
    [found] = torch.autograd.grad(4 * early_learning_regularization(logits, t), logits)
    p = logits.detach().softmax(dim=1)
    for n in range(4):
        agreement = sum(p[n, k] * t[n, k] for k in range(5))
        for k in range(5):
            pull = sum((t[n, j] - t[n, k]) * p[n, j] for j in range(5))
            torch.testing.assert_close(found[n, k], p[n, k] / (1 - agreement) * pull)


def test_what_is_remembered_is_a_constant():
    [(logits, _, _)] = batches(1)
    t = (0.5 * logits.softmax(dim=1)).requires_grad_()
    logits.requires_grad_()
    early_learning_regularization(logits, t).backward()
    assert logits.grad.any()
    assert t.grad is None
    assert not moved_early_target(t, logits).requires_grad


def test_the_function_moves_as_the_loss_does_by_default():
    [(logits, _, index)] = batches(1)
    criterion = EarlyLearningLoss(num_samples=9, num_classes=5).double()
    proposed = criterion.propose(logits, index)
    torch.testing.assert_close(moved_early_target(torch.zeros(4, 5).double(), logits), proposed)


def test_labels_may_be_probabilities():
    [(logits, _, _)] = batches(1)
    votes, t = logits.flip(1).softmax(dim=1), 0.5 * logits.softmax(dim=1)
    terms = EarlyLearningLoss(num_samples=9, num_classes=5).terms(logits, votes, t)
    expected = -(votes * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(terms["cross_entropy"], expected)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 50), st.integers(1, 20), st.floats(0.0, 0.99), st.floats(0.0, 200.0))
def test_the_targets_add_up_and_the_term_is_bounded(classes, steps, decay, scale):
    t = torch.zeros(3, classes)
    for seed in range(steps):
        generator = torch.Generator().manual_seed(seed % 3)
        logits = scale * torch.randn(3, classes, generator=generator)
        t = moved_early_target(t, logits, decay=decay)
    torch.testing.assert_close(t.sum(dim=1), torch.full((3,), 1 - decay**steps))
    value = early_learning_regularization(logits, t).item()
    assert math.log(9e-5) < value <= 0.0


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_classes_may_be_in_any_order(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, before = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    order = torch.randperm(6, generator=generator)
    t = moved_early_target(before.softmax(dim=1), logits)
    permuted = moved_early_target(before.softmax(dim=1)[:, order], logits[:, order])
    torch.testing.assert_close(permuted, t[:, order])
    torch.testing.assert_close(
        early_learning_regularization(logits[:, order], permuted),
        early_learning_regularization(logits, t),
    )


@pytest.mark.parametrize("classes", [2, 7, 200])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_where_both_are_sure_it_stays_finite(dtype, classes):
    """The least that 1 - <t, p> can be, and no more certainty takes it further."""
    t = torch.eye(classes)[:2].to(torch.float64 if dtype == torch.float64 else torch.float32)
    for certainty in (20.0, 1e4):
        logits = (certainty * torch.eye(classes)[:2]).to(dtype).requires_grad_()
        value = early_learning_regularization(logits, t)
        value.backward()
        assert value.item() == pytest.approx(math.log(1e-4), abs=2e-3)
        assert logits.grad.isfinite().all()


def test_a_certain_prediction_repeated_for_long_keeps_its_distance():
    """Where t = p~ / sum p~, 1 - <t, p~> is C * 1e-4 but for smaller terms."""
    t, logits = torch.zeros(1, 3), torch.tensor([[50.0, 0.0, 0.0]])
    for _ in range(2000):
        t = moved_early_target(t, logits, decay=0.9)
    assert early_learning_regularization(logits, t).item() == pytest.approx(
        math.log(3e-4), rel=1e-3
    )


def test_against_a_wrong_label_it_takes_the_pull_of_cross_entropy_back():
    """What the method is for: a sample that was seen as class 0, labelled 1."""
    logits = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    index, wrong = torch.tensor([0]), torch.tensor([1])
    criterion = EarlyLearningLoss(num_samples=1, num_classes=3)
    for _ in range(20):
        criterion.update(index, criterion.propose(logits=logits, index=index))
    terms = criterion.terms(logits, wrong, criterion.propose(logits=logits, index=index))
    [of_label] = torch.autograd.grad(terms["cross_entropy"], logits, retain_graph=True)
    [of_memory] = torch.autograd.grad(terms["early_learning"], logits)
    assert of_label[0, 0] > 0 > of_memory[0, 0]
    assert (of_label + of_memory)[0, 1].abs() < of_label[0, 1].abs()


def test_in_a_composition():
    options = {"num_samples": 9, "num_classes": 5}
    composed = CompositeLoss(
        Term("elr", EarlyLearningLoss(**options)),
        Term("attention", AttentionConsistencyLoss(), weight=5.0),
    )
    alone, maps = EarlyLearningLoss(**options), torch.zeros(4, 5, 3, 3)
    for logits, target, index in batches(3):
        proposed = composed.propose(logits=logits, index=index)
        assert list(proposed) == ["early_target"]
        loss = composed(
            logits=logits, target=target, attention=maps, attention_flipped=maps, **proposed
        )
        composed.update(index, proposed)
        assert loss == train(alone, logits, target, index)
    assert torch.equal(composed.losses[0].early_targets, alone.early_targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples must be a whole number from 1 on, got 0"),
        ({"num_samples": 2.5}, "num_samples must be a whole number from 1 on, got 2.5"),
        ({"num_samples": 10**30}, "num_samples must be a whole number from 1 to 9223372036"),
        ({"num_samples": True}, "num_samples must be a whole number from 1 on, got True"),
        ({"num_classes": 1}, "num_classes must be a whole number from 2 on, got 1"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"decay": -0.1}, r"decay must lie in \[0, 1\), got -0.1"),
        ({"weight": -1.0}, r"weight must lie in \[0, inf\), got -1.0"),
        ({"weight": float("nan")}, r"weight must lie in \[0, inf\), got nan"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        EarlyLearningLoss(**{"num_samples": 9, "num_classes": 5, **options})


def test_arguments_that_do_not_fit():
    [(logits, target, index)] = batches(1)
    criterion, t = EarlyLearningLoss(num_samples=9, num_classes=5), torch.zeros(4, 5)
    for call, message in (
        (lambda: criterion.propose(logits[:, :4], index), r"logits must have shape \(B, 5\)"),
        (lambda: criterion.propose(logits, index[:3]), "index has B=3 but logits has B=4"),
        (lambda: criterion.propose(logits.long(), index), "logits must have a floating-point"),
        (lambda: criterion(logits, target, t[:3]), "early_target has B=3 but logits has B=4"),
        (lambda: criterion(logits, target, t.long()), "early_target must have a floating-point"),
        (lambda: criterion(logits, target.int(), t), "target must be int64 class indices"),
        (lambda: criterion.update(index, t[:, :4]), r"early_target must have shape \(B, 5\)"),
        (lambda: criterion.update(index.int(), t), r"index must be int64 of shape \(B\)"),
        (lambda: moved_early_target(t, logits, decay=1.0), r"decay must lie in \[0, 1\)"),
        (lambda: moved_early_target(t[:1], logits), "early_target has B=1 but logits has B=4"),
        (lambda: early_learning_regularization(logits[0], t[0]), r"must have shape \(B, C\)"),
        (lambda: early_learning_regularization(logits[:0], t[:0]), "logits is empty along B"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with check_values(), pytest.raises(ValueError, match="class indices from 0 to 4, got 9"):
        criterion(logits, target.clone().fill_(9), t)
    with check_values(), pytest.raises(IndexError, match="rows from 0 to 8, got 9 at position 0"):
        criterion.propose(logits, index.clone().fill_(9))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_prediction_that_is_not_finite_is_seen_and_not_kept(bad):
    [(logits, target, index)] = batches(1)
    criterion, other = (EarlyLearningLoss(num_samples=9, num_classes=5) for _ in range(2))
    for one in (criterion, other):
        one.update(index, one.propose(logits, index))
    broken = logits.clone()
    broken[2, 1] = bad
    early_target = criterion.propose(broken, index)
    assert criterion(broken, target, early_target).isnan()
    criterion.update(index, early_target)
    others = torch.tensor([0, 1, 3])
    other.update(index[others], early_target[others])
    assert torch.equal(criterion.early_targets, other.early_targets)
    assert criterion.early_targets.isfinite().all()
    with check_values():
        for call, name in (
            (lambda: criterion.propose(broken, index), "logits"),
            (lambda: criterion(broken, target, early_target[:1].expand(4, -1)), "logits"),
            (lambda: criterion(logits, target, early_target), "early_target"),
            (lambda: criterion.update(index, early_target), "early_target"),
        ):
            with pytest.raises(ValueError, match=f"{name} must be finite"):
                call()


@pytest.mark.parametrize("label", [-100, -1, 5])
def test_no_label_is_left_out(label):
    [(logits, target, index)] = batches(1)
    criterion, target[1] = EarlyLearningLoss(num_samples=9, num_classes=5), label
    with pytest.raises(IndexError, match=f"0 to 4, got {label} at position 1. If your labels"):
        criterion(logits, target, criterion.propose(logits, index))


def test_no_rows_are_nothing_to_remember():
    [(logits, _, index)] = batches(1)
    criterion = EarlyLearningLoss(num_samples=9, num_classes=5)
    criterion.update(index[:0], criterion.propose(logits[:0], index[:0]))
    assert not criterion.early_targets.any()


def test_a_state_that_does_not_fit_changes_nothing():
    [(logits, _, index)] = batches(1)
    criterion, saved = (EarlyLearningLoss(num_samples=9, num_classes=5) for _ in range(2))
    saved.update(index, saved.propose(logits, index))
    state = saved.state_dict()
    for wrong, message in (
        (EarlyLearningLoss(num_samples=8, num_classes=5).state_dict(), r"\(8, 5\) there"),
        ({**state, "stray": torch.zeros(1)}, "stray is .* there and not here"),
        ({"early_targets": state["early_targets"] / 0}, "early_targets must be averages"),
        (
            {"early_targets": state["early_targets"] + 0.6},
            "at most 1, got .* for sample 0",
        ),
        ({"early_targets": state["early_targets"] - 0.1}, "at least 0 with"),
    ):
        with pytest.raises(ValueError, match=f"saved EarlyLearningLoss does not fit.*{message}"):
            criterion.load_state_dict(wrong)
        assert not criterion.early_targets.any()


def test_the_state_keeps_its_precision_in_a_model_that_is_cast():
    [(logits, _, index)] = batches(1)
    criterion = EarlyLearningLoss(num_samples=9, num_classes=5)
    criterion.update(index, criterion.propose(logits, index))
    before = criterion.early_targets.clone()
    torch.nn.ModuleList([criterion]).bfloat16()
    assert torch.equal(criterion.early_targets, before)


def test_the_state_follows_no_default_of_torch():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            [bank] = EarlyLearningLoss(num_samples=9, num_classes=5).buffers()
    finally:
        torch.set_default_dtype(torch.float32)
    assert (bank.device.type, bank.dtype) == ("cpu", torch.float32)


def test_the_module_says_how_it_was_made():
    criterion = EarlyLearningLoss(num_samples=9, num_classes=5)
    assert repr(criterion) == "EarlyLearningLoss(9 samples, num_classes=5, decay=0.7, weight=3.0)"
