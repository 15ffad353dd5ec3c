import copy
import io

import pytest
import torch

from robustfer.losses import check_values
from robustfer.state import LabelDistributionBank
from robustfer.testing._host_synchronisation import refused_host_synchronisation

GIVEN = torch.tensor([2, 0, 1, 1, 2, 0])


def make(given=GIVEN, **options):
    return LabelDistributionBank(given, **{"num_classes": 3, **options})


def estimates(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=generator).softmax(1)


def test_starts_with_the_labels_given():
    assert torch.equal(make().distribution, torch.eye(3)[GIVEN])


def test_moves_towards_the_estimate_and_only_when_told():
    bank, index, estimate = make(decay=0.75), torch.tensor([4, 1]), estimates(2)
    for _ in range(2):
        target = bank(index, estimate)
        torch.testing.assert_close(target, 0.75 * torch.eye(3)[[2, 0]] + 0.25 * estimate)
    bank.update(index, target)
    assert torch.equal(bank.distribution[index], target)
    assert torch.equal(bank.distribution[0], torch.eye(3)[2])
    torch.testing.assert_close(bank(index, estimate), 0.75 * target + 0.25 * estimate)


def test_rows_that_are_not_known_stay_to_the_bit():
    bank, index = make(decay=0.7), torch.tensor([4, 1, 0])
    bank.update(index, estimates(3, seed=1))
    estimate, known = estimates(3).requires_grad_(), torch.tensor([True, False, True])
    target = bank(index, estimate, known=known)
    assert torch.equal(target[~known], bank.distribution[index][~known])
    assert torch.equal(target[known], bank(index, estimate)[known])
    target.sum().backward()
    assert torch.equal(estimate.grad.any(dim=1), known)
    with pytest.raises(ValueError, match=r"known has B=2 but estimate has B=3"):
        bank(index, estimate, known[:2])
    with pytest.raises(ValueError, match="known must be bool, got torch.int64"):
        bank(index, estimate, known.long())


def test_the_gradient_is_that_of_the_estimate():
    bank, estimate = make(), estimates(2).requires_grad_()
    target = bank(torch.tensor([0, 5]), estimate)
    target.sum().backward()
    torch.testing.assert_close(estimate.grad, torch.full((2, 3), 0.1))
    bank.update(torch.tensor([0, 5]), soft_target=target)
    assert not bank.distribution.requires_grad


def test_the_last_row_of_a_sample_wins(device):
    bank = make().to(device)
    index, rows = torch.tensor([3, 0, 3, 3, 0, 1], device=device), estimates(6).to(device)
    bank.update(index, rows)
    expected = make().distribution.to(device)
    for place, row in zip(index.tolist(), rows, strict=True):
        expected[place] = row
    assert torch.equal(bank.distribution, expected)


def test_no_host_waits():
    bank, index, estimate = make(), torch.tensor([3, 3]), estimates(2)
    with refused_host_synchronisation():
        bank.update(index, bank(index, estimate))


def test_a_batch_of_no_rows_changes_nothing():
    bank, none = make(), torch.zeros(0, dtype=torch.int64)
    bank.update(none, bank(none, estimates(0)))
    assert torch.equal(bank.distribution, make().distribution)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_sums_of_one(dtype):
    bank, exact = make(dtype=dtype), make()
    index = torch.arange(6)
    for seed in range(20):
        for one in (bank, exact):
            one.update(index, one(index, estimates(6, seed)))
    assert bank.distribution.dtype == dtype
    target = bank(index, estimates(6))
    assert target.dtype == torch.float32
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    torch.testing.assert_close(target, exact(index, estimates(6)), rtol=0.05, atol=0.02)
    half = bank(index, estimates(6).to(dtype))
    assert half.dtype == torch.float32


def test_is_restored():
    bank, restored, file = make(), make(), io.BytesIO()
    bank.update(torch.tensor([1]), estimates(1))
    torch.save(bank.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored.distribution, bank.distribution)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_labels_of_any_integer_are_kept_narrow(dtype):
    bank = LabelDistributionBank(GIVEN.to(dtype), num_classes=300)
    assert bank.label_given.dtype == torch.int16
    assert torch.equal(bank.distribution.argmax(1), GIVEN)
    assert make(given=GIVEN.to(dtype)).label_given.dtype == torch.uint8


def test_the_bank_of_other_labels_is_refused():
    saved = make()
    saved.update(torch.arange(6), torch.full((6, 3), 1 / 3))
    bank = make(given=GIVEN.flip(0))
    before = copy.deepcopy(bank.state_dict())
    with pytest.raises(ValueError, match="label_given .*4 of 6 differ, the first at index 0"):
        bank.load_state_dict(saved.state_dict())
    with pytest.raises(ValueError, match=r"distribution is .* \(6, 4\) here"):
        make(num_classes=4).load_state_dict(saved.state_dict())
    state = saved.state_dict()
    state["distribution"][2, 1] = float("nan")
    with pytest.raises(ValueError, match="distribution must be finite, got 1 NaN"):
        make().load_state_dict(state)
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())


def test_a_prediction_that_is_not_finite_is_not_kept():
    bank, index, estimate = make(), torch.tensor([0, 3]), estimates(2)
    estimate[0, 1] = float("nan")
    target = bank(index, estimate)
    assert target[0].isnan().any()  # the loss is to show it
    bank.update(index, target)
    assert torch.equal(bank.distribution[0], torch.eye(3)[2])
    assert torch.equal(bank.distribution[3], target[1])


def test_says_its_size():
    expected = "LabelDistributionBank(6 samples, num_classes=3, decay=0.9)"
    assert repr(make()) == expected


@pytest.mark.parametrize("method", ["forward", "update"])
@pytest.mark.parametrize(
    ("index", "rows", "message"),
    [
        (torch.tensor([0, 1]), torch.ones(3, 3), "index has B=2 but"),
        (torch.tensor([0]), torch.ones(1, 4), r"must have shape \(B, 3\), got \(1, 4\)"),
        (torch.tensor([0]).int(), torch.ones(1, 3), r"index must be int64 of shape \(B\)"),
        (torch.tensor([0]), torch.ones(1, 3).int(), "must have a floating-point dtype"),
        (
            torch.tensor([0], device="meta"),
            torch.ones(1, 3, device="meta"),
            "index is on meta but the bank is on cpu",
        ),
    ],
)
def test_refuses_what_does_not_fit(method, index, rows, message):
    with pytest.raises(ValueError, match=message):
        getattr(make(), method)(index, rows)


@pytest.mark.parametrize("method", ["forward", "update"])
@pytest.mark.parametrize("row", [-1, 6])
def test_refuses_rows_outside(method, row):
    bank = make()
    for asked in (False, True):
        message = f"index must hold rows from 0 to 5, got {row} at position 1"
        with check_values(asked), pytest.raises(IndexError, match=message):
            getattr(bank, method)(torch.tensor([0, row]), estimates(2))
    assert torch.equal(bank.distribution, make().distribution)


def test_values_are_looked_at_when_asked_for():
    with check_values(), pytest.raises(ValueError, match="rows of estimate must be probabilities"):
        make()(torch.tensor([0]), torch.ones(1, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 2}, "given must hold class indices from 0 to 1, got 2 at position 0"),
        ({"num_classes": 1}, "num_classes must be a whole number from 2 to"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"decay": 10**400}, r"decay must lie in \[0, 1\), got 1000"),
        ({"num_classes": True}, "num_classes must be a whole number .* got True"),
        ({"dtype": torch.int64}, "dtype must be a floating-point dtype, got torch.int64"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_refuses_what_is_no_tensor():
    with pytest.raises(TypeError, match="given must be a torch.Tensor, got list"):
        LabelDistributionBank([0, 1], num_classes=2)
    with pytest.raises(ValueError, match=r"given must be integers .* of shape \(2, 2\)$"):
        LabelDistributionBank(torch.eye(2), num_classes=2)
