import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.metrics import (
    History,
    accuracy,
    adjust_to_shares,
    calibration_error,
    confusion_matrix,
    correct_predictions,
    mean_class_accuracy,
)

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50)


@settings(deadline=None, max_examples=50)
@given(pairs)
def test_against_counting(rows):
    predicted, target = torch.tensor(rows).T
    confusion = confusion_matrix(predicted, target, num_classes=5)
    for true in range(5):
        for guess in range(5):
            assert confusion[true, guess] == rows.count((guess, true))
    assert accuracy(confusion) == pytest.approx(sum(p == t for p, t in rows) / len(rows))
    recalls = [
        sum(p == t == label for p, t in rows) / sum(t == label for _, t in rows)
        for label in {t for _, t in rows}
    ]
    assert mean_class_accuracy(confusion) == pytest.approx(sum(recalls) / len(recalls))


@settings(deadline=None, max_examples=25)
@given(pairs, st.integers(1, 49))
def test_batches_add_up(rows, cut):
    predicted, target = torch.tensor(rows).T
    parts = [(predicted[:cut], target[:cut]), (predicted[cut:], target[cut:])]
    total = sum(confusion_matrix(p, t, num_classes=5) for p, t in parts if len(p))
    assert torch.equal(total, confusion_matrix(predicted, target, num_classes=5))


@pytest.mark.parametrize(
    ("predicted", "target", "message"),
    [
        ([0, 1], [0], "target has B=1 but predicted has B=2"),
        ([0, 3], [0, 0], "predicted must hold class indices from 0 to 2, got 3 at position 1"),
        ([0, 0], [-1, 0], "target must hold class indices from 0 to 2, got -1 at position 0"),
        ([0.5], [0], "predicted must be int64, got torch.float32"),
        ([], [], "predicted is empty along B"),
    ],
)
def test_bad_predictions(predicted, target, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(torch.tensor(predicted), torch.tensor(target), num_classes=3)


def test_bad_number_of_classes():
    with pytest.raises(ValueError, match="num_classes must be a whole number from 1 on, got '3'"):
        confusion_matrix(torch.tensor([0]), torch.tensor([0]), num_classes="3")


@pytest.mark.parametrize("metric", [accuracy, mean_class_accuracy])
def test_bad_confusion(metric):
    with pytest.raises(ValueError, match="confusion must count at least one sample"):
        metric(torch.zeros(3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"confusion must have shape \(C, C\)"):
        metric(torch.ones(3, 2, dtype=torch.int64))
    for value, message in (
        (math.nan, "confusion must be finite, got 1 NaN or infinite of 9"),
        (math.inf, "confusion must be finite"),
        (-1.0, r"confusion must lie in \[0, inf\), got -1 at position 1, 1"),
    ):
        confusion = torch.ones(3, 3)
        confusion[1, 1] = value
        with pytest.raises(ValueError, match=message):
            metric(confusion)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16, torch.float32, torch.float64])
def test_a_confusion_of_any_dtype_has_the_figures_of_its_counts(dtype):
    counts = torch.tensor([[3, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert accuracy(counts.to(dtype)) == accuracy(counts) == 4 / 6
    assert mean_class_accuracy(counts.to(dtype)) == mean_class_accuracy(counts) == 0.625


def test_shares_of_the_samples_are_a_confusion_too():
    shares = torch.tensor([[0.375, 0.125], [0.0, 0.5]])
    assert accuracy(shares) == mean_class_accuracy(shares) == 0.875
    shares = torch.tensor([[0.3, 0.2], [0.1, 0.3]])
    assert accuracy(shares) == pytest.approx(0.6 / 0.9)
    assert mean_class_accuracy(shares) == pytest.approx((0.6 + 0.75) / 2)


def history(*values):
    made = History()
    for value in values:
        made.add({"accuracy": value, "loss": 1 - value})
    return made


def test_last_and_best_are_kept_apart():
    made = history(0.5, 0.9, 0.9, 0.6)
    assert len(made) == 4
    assert made.last["epoch"] == 4
    assert made.best("accuracy") == {"epoch": 2, "accuracy": 0.9, "loss": pytest.approx(0.1)}
    assert made.best("loss", largest=False)["epoch"] == 2
    assert made.best("loss")["epoch"] == 1
    assert made.mean_of_last("accuracy", epochs=2) == pytest.approx(0.75)
    assert made.mean_of_last("accuracy") == pytest.approx(0.725)
    assert made.summary("loss", largest=False) == (
        "loss: last 0.4000 (epoch 4), mean of the last 4 0.2750, best 0.1000 (epoch 2)"
    )


def test_a_diverged_epoch_is_kept_but_never_best():
    made = history(math.nan, 0.4, math.nan)
    assert made.best("accuracy")["epoch"] == 2
    assert math.isnan(made.last["accuracy"])
    with pytest.raises(ValueError, match="'accuracy' is NaN in every epoch"):
        history(math.nan).best("accuracy")


def test_epochs_without_an_evaluation_do_not_count():
    made = History()
    for epoch, value in enumerate((0.1, 0.9, 0.3, 0.4, 0.5, 0.6), start=1):
        made.add({"loss": 1.0})
        made.add({"loss": 1.0, "accuracy": value})
        assert made.last["epoch"] == 2 * epoch
    made.add({"loss": 0.5})
    assert made.summary("accuracy") == (
        "accuracy: last 0.6000 (epoch 12), mean of the last 5 0.5400, best 0.9000 (epoch 4)"
    )
    assert made.mean_of_last("accuracy", epochs=2) == pytest.approx(0.55)
    assert made.mean_of_last("loss", epochs=2) == 0.75
    assert made.last == {"epoch": 13, "loss": 0.5}


def test_what_is_handed_out_is_a_copy():
    made = history(0.5)
    made.last["accuracy"] = made.best("accuracy")["accuracy"] = 0.0
    made.state_dict()["epochs"][0]["accuracy"] = 0.0
    assert made.last["accuracy"] == 0.5


def test_state_goes_on_where_it_stopped():
    made, other = history(0.5, 0.7), History()
    other.load_state_dict(made.state_dict())
    made.add({"accuracy": torch.tensor(0.25)})
    other.add({"accuracy": 0.25})
    assert other.epochs == made.epochs
    assert type(made.last["accuracy"]) is float


def test_the_terms_of_a_loss_are_taken_as_numbers():
    made, weight = History(), torch.ones((), requires_grad=True)
    made.add({"cross_entropy": weight * 0.5, "epochs": torch.tensor(3)})
    assert made.last == {"epoch": 1, "cross_entropy": 0.5, "epochs": 3.0}


def test_bad_histories():
    with pytest.raises(ValueError, match="must not hold 'epoch'"):
        History().add({"epoch": 3.0})
    with pytest.raises(ValueError, match="has no epoch yet"):
        _ = History().last
    with pytest.raises(ValueError, match="named 'acuracy'; there are accuracy, loss"):
        history(0.5).best("acuracy")
    for find in (history(0.5).mean_of_last, history(0.5).summary, History().summary):
        with pytest.raises(ValueError, match="no epoch has a value named 'acuracy'"):
            find("acuracy")
    with pytest.raises(ValueError, match="epochs must be a whole number from 1 on, got 0"):
        history(0.5).mean_of_last("accuracy", epochs=0)


def calibration_by_hand(probability, target, bins):
    """The definition, one bin and one sample after the other."""
    total = 0.0
    for place in range(bins):
        inside = []
        for row, label in zip(probability.double().tolist(), target.tolist(), strict=True):
            confidence = max(row)
            if place / bins < confidence <= (place + 1) / bins:
                inside.append((confidence, float(row.index(confidence) == label)))
        if inside:
            confidence = sum(one for one, _ in inside) / len(inside)
            right = sum(one for _, one in inside) / len(inside)
            total += len(inside) / len(target) * abs(right - confidence)
    return total


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(2, 9), st.integers(1, 20), st.integers(0, 2**31))
def test_calibration_is_that_of_the_definition(samples, classes, bins, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (samples,), generator=generator)
    probability = logits.softmax(dim=1)
    expected = calibration_by_hand(probability, target, bins)
    assert calibration_error(probability, target, bins=bins) == pytest.approx(expected, abs=1e-12)


def test_who_is_always_sure_and_right_is_calibrated():
    target = torch.tensor([2, 0, 1])
    sure = torch.eye(3)[target]
    assert calibration_error(sure, target) == 0.0
    assert calibration_error(sure, (target + 1) % 3) == 1.0


@pytest.mark.parametrize("bins", [10, 15, 50, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_confidence_on_an_edge_counts_in_the_lower_bin(dtype, bins):
    for edge in range(bins // 2 + 1, bins + 1):
        # Two sure samples of one bin: the right one makes up for the wrong one.
        sure = torch.tensor([edge / bins, (edge - 0.5) / bins], dtype=torch.float64)
        probability = torch.stack((sure, 1 - sure), dim=1).to(dtype)
        error = calibration_error(probability, torch.tensor([0, 1]), bins=bins)
        expected = abs(1 - float(probability[:, 0].double().sum())) / 2
        assert error == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("probability", "target", "bins", "message"),
    [
        (torch.full((2, 2), 0.5), torch.tensor([0]), 15, "target"),
        (torch.full((2, 2), 0.5), torch.tensor([0.0, 1.0]), 15, "target must be int64"),
        (torch.full((2, 2), 0.5), torch.tensor([0, 2]), 15, "target"),
        (
            torch.zeros(2, 2),
            torch.tensor([0, 1]),
            15,
            "rows of probabilities must be",
        ),
        (torch.ones(2, 2, dtype=torch.int64), torch.tensor([0, 1]), 15, "probabilities"),
        (
            torch.zeros(0, 2),
            torch.zeros(0, dtype=torch.int64),
            15,
            "is empty along N",
        ),
        (
            torch.full((2, 2), 0.5),
            torch.tensor([0, 1]),
            0,
            "bins must be a whole number from 1 on, got 0",
        ),
        (torch.full((2, 2), 0.5), torch.tensor([0, 1]), 2.5, "bins must be a whole number"),
    ],
)
def test_calibration_refuses_what_does_not_fit(probability, target, bins, message):
    with pytest.raises(ValueError, match=message):
        calibration_error(probability, target, bins=bins)


def slow_adjustment(rows, given, true, strength):
    powered = [
        [p * (t / g) ** strength for p, g, t in zip(row, given, true, strict=True)] for row in rows
    ]
    return [[value / sum(row) for value in row] for row in powered]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
def test_adjusting_to_shares_is_the_loop(strength):
    rows = torch.rand(9, 4, generator=torch.Generator().manual_seed(0)).double()
    rows /= rows.sum(dim=1, keepdim=True)
    given, true = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.1, 0.0, 0.6, 0.3])
    found = adjust_to_shares(rows, given.double(), true.double(), strength=strength)
    expected = slow_adjustment(
        rows.tolist(), given.double().tolist(), true.double().tolist(), strength
    )
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-7, atol=1e-12)
    assert adjust_to_shares(rows.half(), given, true, strength=strength).dtype == torch.float32


def test_adjusting_makes_predictions_right_where_the_shares_moved():
    """Of a face, P(class) follows from the share of the class and what the face shows."""
    shown = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double()
    given, true = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.2, 0.3, 0.5]).double()

    def posterior(shares):
        rows = shown * shares
        return rows / rows.sum(dim=1, keepdim=True)

    torch.testing.assert_close(adjust_to_shares(posterior(given), given, true), posterior(true))


@pytest.mark.parametrize("equal", [0.3, 1.0])
def test_adjusting_goes_on_to_equal_shares(equal):
    rows = torch.rand(9, 3, generator=torch.Generator().manual_seed(0)).double()
    rows /= rows.sum(dim=1, keepdim=True)
    given, true = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.2, 0.8, 0.0]).double()
    between = torch.tensor([share ** (1 - equal) for share in true.tolist()]).double()
    expected = adjust_to_shares(rows, given, between / between.sum())
    torch.testing.assert_close(adjust_to_shares(rows, given, true, equal=equal), expected)


def test_adjusting_leaves_no_row_without_a_class():
    rows = torch.tensor([[1.0, 0.0]])
    found = adjust_to_shares(rows, torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]))
    assert found.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"given_shares": torch.tensor([1.0, 0.0])},
            "given_shares must be above 0 for each class, got 0 for class 1",
        ),
        (
            {"true_shares": torch.tensor([0.9, 0.9])},
            "rows of true_shares must be probabilities that sum to 1",
        ),
        ({"given_shares": torch.tensor([1.0])}, "given_shares has C=1 but probabilities has C=2"),
        ({"probabilities": torch.tensor([[3.0, 1.0]])}, "rows of probabilities must be"),
        ({"strength": -1.0}, r"strength must lie in \[0, inf\)"),
        ({"true_shares": torch.tensor([1, 0])}, "true_shares must have a floating-point dtype"),
    ],
)
def test_adjusting_refuses(changed, message):
    good = {
        "probabilities": torch.tensor([[0.5, 0.5]]),
        "given_shares": torch.tensor([0.5, 0.5]),
        "true_shares": torch.tensor([0.5, 0.5]),
    }
    with pytest.raises(ValueError, match=message):
        adjust_to_shares(**{**good, **changed})


def slow_correction(row, transition, shares, steps):
    size, found = len(row), list(shares)
    for _ in range(steps):
        told = [sum(found[j] * transition[j][label] for j in range(size)) for label in range(size)]
        found = [
            found[k]
            * sum(
                transition[k][label] * row[label] / told[label]
                for label in range(size)
                if told[label]
            )
            for k in range(size)
        ]
    return found


def rows_of(count, size, seed):
    drawn = torch.rand(count, size, generator=torch.Generator().manual_seed(seed)).double()
    return drawn / drawn.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("steps", [1, 5])
def test_correcting_is_the_loop(steps):
    rows, transition, shares = rows_of(9, 4, 0), rows_of(4, 4, 1), rows_of(1, 4, 2)[0]
    found = correct_predictions(rows, transition, shares, steps=steps)
    expected = [
        slow_correction(row, transition.tolist(), shares.tolist(), steps) for row in rows.tolist()
    ]
    torch.testing.assert_close(found, torch.tensor(expected).double())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(9).double())
    half = correct_predictions(rows.half(), transition.half(), shares.half(), steps=steps)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), found, atol=2e-3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        same = correct_predictions(rows.float(), transition, shares, steps=steps)
    torch.testing.assert_close(same.double(), found)
    if steps == 5:
        torch.testing.assert_close(found, correct_predictions(rows, transition, shares))


def test_many_steps_find_the_classes_that_the_labels_come_from():
    true, shares = rows_of(20, 3, 0), torch.tensor([0.5, 0.3, 0.2]).double()
    transition = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.0, 0.2, 0.8]]).double()
    found = correct_predictions(true @ transition, transition, shares, steps=20_000)
    torch.testing.assert_close(found, true, atol=1e-4, rtol=0)


def test_labels_that_do_not_go_wrong_need_no_correction():
    rows, shares = rows_of(9, 4, 0), rows_of(1, 4, 2)[0]
    torch.testing.assert_close(correct_predictions(rows, torch.eye(4).double(), shares), rows)


def test_even_noise_changes_no_decision():
    """With equal shares the most probable label is also the most probable class."""
    rows, even = rows_of(200, 4, 0), torch.full((4,), 0.25).double()
    transition = torch.full((4, 4), 0.1).double().fill_diagonal_(0.7)
    found = correct_predictions(rows, transition, even)
    assert torch.equal(found.argmax(dim=1), rows.argmax(dim=1))


def test_a_label_that_no_class_gives_tells_nothing():
    transition = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0]])
    shares = torch.tensor([0.5, 0.3, 0.2])
    rows = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0]])
    found = correct_predictions(rows, transition, shares)
    torch.testing.assert_close(found[0], shares)
    torch.testing.assert_close(found[1], found[2])
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"transition": torch.eye(3)}, "transition has C=3 but probabilities has C=2"),
        ({"transition": torch.ones(2, 2)}, "rows of transition must be probabilities"),
        ({"shares": torch.tensor([0.9, 0.9])}, "rows of shares must be probabilities"),
        ({"probabilities": torch.tensor([[3.0, 1.0]])}, "rows of probabilities must"),
        ({"transition": torch.eye(2).long()}, "transition must have a floating-point"),
        ({"steps": 0}, "steps must be a whole number from 1 on, got 0"),
        ({"steps": "5"}, "steps must be a whole number"),
    ],
)
def test_correcting_refuses(changed, message):
    good = {
        "probabilities": torch.tensor([[0.5, 0.5]]),
        "transition": torch.eye(2),
        "shares": torch.tensor([0.5, 0.5]),
    }
    with pytest.raises(ValueError, match=message):
        correct_predictions(**{**good, **changed})


@pytest.mark.parametrize("largest", ["false", 0, None])
def test_what_is_best_is_told_by_a_bool(largest):
    history = History()
    history.add({"loss": 0.5})
    with pytest.raises(TypeError, match="largest must be True or False"):
        history.summary("loss", largest=largest)
