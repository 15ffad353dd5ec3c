import re
from fractions import Fraction

import numpy as np
import pytest
import torch

from robustfer._checks import (
    check_bool,
    check_class_index,
    check_distribution,
    check_finite,
    check_int64,
    check_range,
    check_shapes,
    check_target,
    check_values,
    check_whole_number,
    check_within,
    values_are_checked,
)
from robustfer._inputs import to_probabilities
from robustfer.losses import EACLoss, ForwardCorrectionLoss
from robustfer.metrics import adjust_to_shares
from robustfer.models import CAMOutput
from robustfer.noise import transition_from_verified


def test_letters_bind_across_arguments():
    sizes = check_shapes(a=(torch.zeros(2, 3), "B C"), b=(torch.zeros(3, 5, 2), "C D B"))
    assert sizes == {"B": 2, "C": 3, "D": 5}


def test_digits_are_exact():
    assert check_shapes(points=(torch.zeros(4, 5, 2), "B K 2")) == {"B": 4, "K": 5}
    with pytest.raises(ValueError, match=r"points must have shape \(B, K, 2\), got \(4, 5, 3\)"):
        check_shapes(points=(torch.zeros(4, 5, 3), "B K 2"))


def test_an_axis_is_empty_only_with_a_star():
    assert check_shapes(rows=(torch.zeros(0, 2), "B* C"), index=(torch.zeros(0), "B*")) == {
        "B": 0,
        "C": 2,
    }
    with pytest.raises(ValueError, match="rows is empty along B"):
        check_shapes(rows=(torch.zeros(0, 2), "B C"))
    with pytest.raises(ValueError, match="rows is empty along C"):
        check_shapes(rows=(torch.zeros(3, 0), "B* C"))
    with pytest.raises(
        ValueError, match=r"index has B=2 but rows has B=0; index must have .* \(B\)"
    ):
        check_shapes(rows=(torch.zeros(0, 2), "B* C"), index=(torch.zeros(2), "B*"))


def test_the_first_owner_of_a_letter_is_named():
    with pytest.raises(ValueError, match=r"c has W=4 but b has W=5; c must have shape \(W\)"):
        check_shapes(a=(torch.zeros(2), "B"), b=(torch.zeros(2, 5), "B W"), c=(torch.zeros(4), "W"))


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (torch.tensor([[0], [1]]), ValueError, r"got \(2, 1\); use target\.squeeze\(1\)"),
        (torch.tensor([0, 1]).int(), ValueError, r"for classes use target\.long\(\)"),
        (
            torch.tensor([1, 3]),
            IndexError,
            "from 0 to 2, got 3 at position 1. If your labels count from 1, subtract 1",
        ),
    ],
)
def test_labels_as_they_often_come_say_what_to_do(target, error, message):
    for class_weights in (None, torch.ones(3)):
        with pytest.raises(error, match=message):
            EACLoss(class_weights=class_weights)(
                torch.zeros(2, 3), target, *torch.zeros(2, 2, 3, 4, 4)
            )


def test_what_holds_tensors_says_which():
    output = CAMOutput(*torch.zeros(4, 1))
    message = r"got CAMOutput; pass its \.logits, \.attention, \.features or \.embeddings$"
    with pytest.raises(TypeError, match=message):
        check_shapes(logits=(output, "B C"))
    estimate = transition_from_verified([0, 1], [0, 0], num_classes=2)
    with pytest.raises(TypeError, match=r"transition must .* TransitionEstimate; .*\.matrix"):
        ForwardCorrectionLoss(transition=estimate)
    with pytest.raises(TypeError, match=r"got TransitionEstimate; .*\.shares"):
        adjust_to_shares(torch.full((1, 2), 0.5), torch.full((2,), 0.5), estimate)
    with pytest.raises(TypeError, match=r"got list$"):
        check_shapes(logits=([], "B C"))


def test_values_are_looked_at_only_when_asked(monkeypatch):
    monkeypatch.delenv("ROBUSTFER_CHECK_VALUES", raising=False)
    logits, target = torch.zeros(2, 3), torch.tensor([0, 5])
    check_target(logits, target)
    with check_values(), pytest.raises(ValueError, match="from 0 to 2, got 5 at position 1"):
        check_target(logits, target)
    assert not values_are_checked()


def test_the_environment_asks_too_and_the_context_overrides_it(monkeypatch):
    monkeypatch.setenv("ROBUSTFER_CHECK_VALUES", "1")
    assert values_are_checked()
    with check_values(False):
        assert not values_are_checked()
    monkeypatch.setenv("ROBUSTFER_CHECK_VALUES", "0")
    assert not values_are_checked()


@pytest.mark.parametrize("soft", [False, True])
def test_values_are_not_looked_at_while_compiling(soft):
    def loss(logits, target):
        check_target(logits, target)
        check_finite(logits=logits) if values_are_checked() else None
        return torch.nn.functional.cross_entropy(logits, target)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    logits = torch.tensor([[0.0, float("inf")]])
    target = torch.tensor([[2.0, 3.0]]) if soft else torch.tensor([0])
    with check_values():
        assert not compiled(logits, target).isfinite()
        with pytest.raises(ValueError, match="must be"):
            loss(logits, target)


@pytest.mark.parametrize("word", ["1", "true", "True", "yes", " on ", "ON"])
def test_words_that_switch_on(monkeypatch, word):
    monkeypatch.setenv("ROBUSTFER_CHECK_VALUES", word)
    assert values_are_checked()


@pytest.mark.parametrize("word", ["", "0", "false", "FALSE", "no", "off", " "])
def test_words_that_switch_off(monkeypatch, word):
    monkeypatch.setenv("ROBUSTFER_CHECK_VALUES", word)
    assert not values_are_checked()


def test_another_word_is_refused_with_the_name_of_the_variable(monkeypatch):
    monkeypatch.setenv("ROBUSTFER_CHECK_VALUES", "flase")
    with pytest.raises(ValueError, match="VALUES must be one of true, .* got 'flase'"):
        values_are_checked()
    with check_values(False):
        assert not values_are_checked()


@pytest.mark.parametrize("bad", ["false", "", 0, 1, None, torch.tensor(True), np.True_])
def test_a_switch_is_a_bool(bad):
    with pytest.raises(
        TypeError, match=f"gather must be True or False, got {re.escape(repr(bad))}"
    ):
        check_bool("gather", bad)
    with pytest.raises(TypeError, match="enabled must be True or False"), check_values(bad):
        pass
    assert check_bool("gather", True) is True
    assert check_bool("gather", False) is False


NARROW = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("num_classes", [5, 127, 128, 256, 300, 32_768, 2**31, 2**40])
def test_narrow_labels_are_compared_with_any_number_of_classes(dtype, num_classes):
    """Against Python's own comparison; in its own dtype the number of classes would wrap."""
    info = torch.iinfo(dtype)
    labels = [0, 4, info.max, info.min]
    for label in labels:
        index = torch.tensor([0, label], dtype=dtype)
        if 0 <= label < num_classes:
            check_class_index(num_classes, target=index)
        else:
            with pytest.raises(
                ValueError, match=f"to {num_classes - 1}, got {label} at position 1"
            ):
                check_class_index(num_classes, target=index)


def test_values_within_bounds():
    check_within(0, 1, share=torch.tensor([[0.0, 1.0], [float("nan"), 0.5]]), none=torch.zeros(0))
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 1.5 at position 1, 0"):
        check_within(0, 1, share=torch.tensor([[0.0, 1.0], [1.5, 0.5]]))
    with pytest.raises(ValueError, match=r"count must lie in \[0, inf\), got -4$"):
        check_within(0, float("inf"), count=torch.tensor(-4, dtype=torch.int8))
    with pytest.raises(ValueError, match=r"count must lie in \[0, 300\], got 301 at position 0"):
        check_within(0, 300, count=torch.tensor([301], dtype=torch.int16))


def test_numbers_too_large_are_named():
    for number in (10**400, 10**5000, -(10**5000)):
        with pytest.raises(ValueError, match=r"weight must lie in \(-inf, inf\), got "):
            check_range("weight", number)
        with pytest.raises(ValueError, match="size must be a whole number from 1 "):
            check_whole_number("size", number, 1)
    with pytest.raises(ValueError, match=r"size must .* from 1 to 9223372036854775807, got 9223"):
        check_whole_number("size", 2**63, 1)
    with pytest.raises(TypeError, match=r"weight must be a number, got 'aaa.*\(1002 characters\)"):
        check_range("weight", "a" * 1000)
    with pytest.raises(TypeError, match="must be True or False, got <int of thousands of digits"):
        check_bool("gather", 10**5000)


def test_a_number_comes_back_as_torch_can_use_it():
    assert type(check_range("weight", Fraction(1, 2))) is float
    assert type(check_range("weight", np.float32(0.5))) is float
    assert type(check_range("weight", 3)) is int


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="logits must be finite, got 2 NaN or infinite of 3"):
        check_finite(logits=torch.tensor([1.0, float("nan"), float("inf")]))
    with pytest.raises(ValueError, match="target must hold class indices from 0 to 6, got -1"):
        check_class_index(7, target=torch.tensor([3, -1]))
    with pytest.raises(ValueError, match="row 1 sums to 0.9"):
        check_distribution(target=torch.tensor([[0.5, 0.5], [0.5, 0.4]]))
    with pytest.raises(ValueError, match="its least value is -0.5"):
        check_distribution(target=torch.tensor([[1.5, -0.5]]))
    with pytest.raises(ValueError, match="row 0 sums to nan"):
        check_distribution(target=torch.tensor([[float("nan"), 0.5]]))


def test_integers_of_other_sizes_are_named():
    check_int64(index=torch.tensor([3]))
    with pytest.raises(ValueError, match="target must be int64, got torch.uint8"):
        check_int64(index=torch.tensor([3]), target=torch.tensor([3], dtype=torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 7, 200])
def test_rounded_distributions_pass(dtype, classes):
    rows = torch.rand(50, classes, generator=torch.Generator().manual_seed(0)).softmax(1)
    check_distribution(target=rows.to(dtype))
    with check_values():
        check_target(torch.zeros(50, classes), rows.to(dtype))


@pytest.mark.parametrize(
    ("check", "tolerance"),
    [
        (lambda rows: check_distribution(target=rows), 1e-6),
        (lambda rows: check_distribution(0.125, target=rows), 0.125),
        (lambda rows: ForwardCorrectionLoss(transition=rows), 1e-4),
        (lambda rows: to_probabilities("probabilities", rows), 0.01),
    ],
)
def test_how_far_the_sum_of_a_row_may_be_from_1(check, tolerance):
    for share in (-0.9, 0.9):
        check(torch.tensor([[0.5, 0.5 + share * tolerance], [0.5, 0.5]], dtype=torch.float64))
    for share in (-1.1, 1.1):
        with pytest.raises(ValueError, match="row 1 sums to "):
            check(torch.tensor([[0.5, 0.5], [0.5, 0.5 + share * tolerance]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("bounds", "open_ends", "bad", "shown"),
    [
        ((0.0, 1.0), {}, 1.5, r"\[0, 1\]"),
        ((0.0, 1.0), {"open_low": True}, 0.0, r"\(0, 1\]"),
        ((0.0, 1.0), {"open_high": True}, 1.0, r"\[0, 1\)"),
        ((), {}, float("nan"), r"\(-inf, inf\)"),
    ],
)
def test_ranges(bounds, open_ends, bad, shown):
    with pytest.raises(ValueError, match=rf"rate must lie in {shown}, got {bad}"):
        check_range("rate", bad, *bounds, **open_ends)
    assert check_range("rate", 0.5, *bounds, **open_ends) == 0.5


@pytest.mark.parametrize("bad", ["5", None, True, 1j, torch.tensor(0.5)])
def test_a_range_is_of_numbers(bad):
    with pytest.raises(TypeError, match=f"weight must be a number, got {re.escape(repr(bad))}"):
        check_range("weight", bad, 0.0)


@pytest.mark.parametrize("good", [3, 0.5, np.float32(0.5), np.int64(3), Fraction(1, 2)])
def test_a_range_takes_any_real_number(good):
    assert check_range("weight", good, 0.0) == good


@pytest.mark.parametrize(
    "bad", [1, 9, 3.0, "3", None, True, np.True_, torch.tensor(True), torch.tensor([2, 3])]
)
def test_whole_numbers(bad):
    with pytest.raises(ValueError, match="count must be a whole number from 2 to 8, got"):
        check_whole_number("count", bad, 2, 8)
    for good in (2, 8, torch.tensor(5)):
        assert type(check_whole_number("count", good, 2, 8)) is int
    with pytest.raises(ValueError, match="count must be a whole number from 2 on, got 1"):
        check_whole_number("count", 1, 2)
    assert check_whole_number("count", 2**62, 2) == 2**62
