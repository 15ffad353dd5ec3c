import copy
import inspect
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.functional import UNFILLED
from robustfer.losses import ExpressionLandmarkContrastiveLoss, LANetLoss, check_values
from robustfer.state import FeatureQueue
from robustfer.testing._host_synchronisation import refused_host_synchronisation
from robustfer.testing._write_order import writing_backwards

DIM = 3


def batch(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(2, size, DIM, generator=generator)
    return keys[0], keys[1], torch.randint(-3, 7, (size,), generator=generator)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6), capacity=st.integers(1, 9))
def test_holds_the_latest_rows(sizes, capacity):
    """Against a list of all rows that ever came."""
    queue, came = FeatureQueue(DIM, capacity=capacity), []
    for seed, size in enumerate(sizes):
        rows = batch(size, seed)
        queue.update(*rows)
        came += list(zip(*rows, strict=True))
    filled = min(len(came), capacity)
    assert int(queue.count) == filled
    assert int(queue.cursor) == len(came) % capacity
    for place, (expression, landmark, label) in list(enumerate(came))[-capacity:]:
        slot = place % capacity
        assert torch.equal(queue.expression[slot], expression)
        assert torch.equal(queue.landmark[slot], landmark)
        assert queue.label[slot] == label
    assert int((queue.label == UNFILLED).sum()) == capacity - filled


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(st.lists(st.booleans(), max_size=9), min_size=1, max_size=5),
    capacity=st.integers(1, 7),
    bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    space=st.sampled_from([0, 1]),
)
def test_a_row_that_is_not_finite_is_as_if_it_had_not_come(steps, capacity, bad, space):
    generator = torch.Generator().manual_seed(1)
    queue = FeatureQueue(DIM, capacity=capacity, generator=generator)
    expected = copy.deepcopy(queue)
    for seed, finite in enumerate(steps):
        rows, chosen = batch(len(finite), seed), torch.tensor(finite, dtype=torch.bool)
        expected.update(*(row[chosen] for row in rows))
        rows[space][~chosen, -1] = bad
        with check_values(False), refused_host_synchronisation():
            queue.update(*rows)
    for name, value in expected.state_dict().items():
        assert torch.equal(queue.state_dict()[name], value), name


@pytest.mark.parametrize("capacity", [1, 2, 5, 64])
def test_rows_may_be_written_in_any_order_as_a_gpu_does(capacity):
    queue = FeatureQueue(DIM, capacity=capacity, generator=torch.Generator().manual_seed(1))
    turned = copy.deepcopy(queue)
    for seed in range(3):
        rows = batch(50, seed)
        rows[0][seed::7] = float("nan")
        queue.update(*rows)
        with writing_backwards():
            turned.update(*rows)
    for name, value in queue.state_dict().items():
        assert torch.equal(turned.state_dict()[name], value), name


def test_a_key_that_half_precision_cannot_hold_is_skipped():
    queue, (expression, landmark, label) = FeatureQueue(DIM, capacity=4, dtype=torch.half), batch(2)
    expression[0, 0] = 1e6
    queue.update(expression, landmark, label)
    assert queue.expression.isfinite().all()
    assert int(queue.count) == 1


def test_a_key_that_is_not_finite_is_refused_when_asked_for():
    for space, name in enumerate(("expression_key", "landmark_key")):
        queue, rows = FeatureQueue(DIM, capacity=4), batch(2)
        before = copy.deepcopy(queue.state_dict())
        rows[space][1, 0] = float("nan")
        with check_values(), pytest.raises(ValueError, match=f"{name} must be finite, got 1 NaN"):
            queue.update(*rows)
        assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("cursor", 3, r"cursor must lie in \[0, 2\], got 3"),
        ("cursor", -1, "got -1"),
        ("count", 4, r"count must lie in \[0, 3\], got 4"),
        ("count", -4, "got -4"),
        ("expression", float("nan"), "expression must be finite"),
        ("landmark", float("inf"), "landmark must be finite"),
    ],
)
def test_a_state_that_cannot_be_is_refused(name, value, message):
    queue = FeatureQueue(DIM, capacity=3)
    before = copy.deepcopy(queue.state_dict())
    saved = FeatureQueue(DIM, capacity=3).state_dict()
    saved[name] = torch.full_like(saved[name], value)
    with pytest.raises(ValueError, match=message):
        queue.load_state_dict(saved)
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


def test_a_generator_draws_on_its_own_device(device):
    generator = torch.Generator(device).manual_seed(0)
    assert FeatureQueue(DIM, capacity=3, generator=generator).expression.device.type == "cpu"


def test_starts_with_unit_vectors_that_the_loss_leaves_out():
    queue = FeatureQueue(DIM, capacity=5, generator=torch.Generator().manual_seed(3))
    again = FeatureQueue(DIM, capacity=5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(queue.expression, again.expression)
    assert not torch.equal(queue.expression, queue.landmark)
    torch.testing.assert_close(queue.landmark.norm(dim=1), torch.ones(5))
    expression, landmark, label = batch(4)
    given = dict.fromkeys(("expression_query", "expression_key"), expression)
    given |= dict.fromkeys(("landmark_query", "landmark_key"), landmark)
    given |= {"pseudo_label": label, **queue.negatives()}
    assert ExpressionLandmarkContrastiveLoss()(**given) == 0
    assert ExpressionLandmarkContrastiveLoss(variant="official")(**given) > 0


@pytest.mark.parametrize("loss", [ExpressionLandmarkContrastiveLoss, LANetLoss])
def test_hands_out_its_tensors_by_the_names_of_the_loss(loss):
    queue = FeatureQueue(DIM, capacity=5)
    queue.update(*batch(4))
    handed = queue.negatives()
    assert handed.keys() == {n for n in inspect.signature(loss.forward).parameters if "queue" in n}
    assert torch.equal(handed["expression_queue"], queue.expression)
    assert torch.equal(handed["landmark_queue"], queue.landmark)
    assert torch.equal(handed["queue_label"], queue.label)


def test_is_restored_in_the_middle_of_a_round():
    queue, restored, file = (
        FeatureQueue(DIM, capacity=7),
        FeatureQueue(DIM, capacity=7),
        io.BytesIO(),
    )
    queue.update(*batch(5))
    torch.save(queue.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for one in (queue, restored):
        one.update(*batch(4, seed=1))
    for name, value in queue.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name])
    assert set(queue.state_dict()) == {"expression", "landmark", "label", "cursor", "count"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_keys_are_kept_in_the_dtype_of_the_queue(dtype):
    queue = FeatureQueue(DIM, capacity=4, dtype=dtype)
    rows = batch(2)
    queue.update(*rows)
    assert torch.equal(queue.expression[:2], rows[0].to(dtype))
    assert queue.label.dtype == torch.int64


def test_no_host_waits_and_no_gradient_is_kept():
    queue = FeatureQueue(DIM, capacity=4)
    expression, landmark, label = batch(3)
    with refused_host_synchronisation():
        queue.update(expression.requires_grad_(), landmark, pseudo_label=label)
    assert not queue.expression.requires_grad


def test_says_its_size():
    assert repr(FeatureQueue(DIM, capacity=4)) == "FeatureQueue(dim=3, capacity=4)"


def bad_rows():
    expression, landmark, label = batch(4)
    yield (expression[:, :2], landmark, label), r"expression_key must have shape \(B, 3\)"
    yield (expression, landmark[:1], label), "landmark_key has B=1 but expression_key has B=4"
    yield (expression, landmark[:0], label), "landmark_key has B=0 but expression_key has B=4"
    yield (expression, landmark, label[:2]), "pseudo_label has B=2 but expression_key has B=4"
    yield (expression, landmark, label.int()), "pseudo_label must be int64, got torch.int32"
    yield (expression.int(), landmark, label), "expression_key must have a floating-point dtype"
    yield tuple(rows.to("meta") for rows in batch(4)), "the batch is on meta but the queue is on"


@pytest.mark.parametrize(("rows", "message"), list(bad_rows()))
def test_refuses_what_does_not_fit(rows, message):
    queue = FeatureQueue(DIM, capacity=4)
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        queue.update(*rows)
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "dim must be a whole number from 1 to"),
        ({"capacity": 0}, "capacity must be a whole number from 1 to"),
        ({"capacity": 2.5}, "capacity must be a whole number from 1 to"),
        ({"dtype": torch.int64}, "dtype must be a floating-point dtype, got torch.int64"),
        ({"dtype": "float16"}, "dtype must be a floating-point dtype, got 'float16'"),
        ({"capacity": True}, "capacity must be a whole number .* got True"),
        ({"capacity": 10**5000}, "capacity must be a whole number .* of thousands of digits"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureQueue(**{"dim": 2, **options})


def test_gather_is_no_word():
    with pytest.raises(TypeError, match="gather must be True or False, got 'no'"):
        FeatureQueue(DIM, capacity=3).update(*batch(1), gather="no")
