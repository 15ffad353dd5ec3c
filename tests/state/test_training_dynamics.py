import copy
import io
import math

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from robustfer.losses import check_values
from robustfer.state import TrainingDynamics
from robustfer.testing._host_synchronisation import refused_host_synchronisation
from robustfer.testing._write_order import writing_backwards
from tests.reference.training_dynamics import SlowDynamics
from tests.state.processes import run_in_processes

N, C, EARLY = 6, 3, (1, 3)
GIVEN = torch.tensor([2, 0, 1, 1, 2, 0])


def make(given=GIVEN, **options):
    return TrainingDynamics(N, num_classes=C, given=given, **{"early": EARLY, **options})


def scores(rows, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, C, generator=generator).to(dtype)


def batches(count, seed=0):
    """Batches of random sizes, with repeated samples and batches of no rows."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(count):
        size = int(torch.randint(0, 9, (), generator=generator))
        yield torch.randint(N, (size,), generator=generator), scores(size, seed=100 + step)


def check(dynamics, slow, *, tolerance=1e-5, early_tolerance=1e-3):
    def close(found, expected, tolerance):
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(
            found.double(), expected, rtol=tolerance, atol=tolerance, equal_nan=True
        )

    assert dynamics.visits.tolist() == slow.visits()
    assert dynamics.forgotten.tolist() == slow.forgotten()
    assert dynamics.last_prediction.tolist() == slow.last_prediction()
    close(dynamics.area_under_margin(), slow.margins(), 1e-5)
    close(dynamics.probabilities(), slow.probabilities("all"), tolerance)
    close(dynamics.probabilities(window="early"), slow.probabilities("early"), early_tolerance)


def same(one, other):
    return all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


def test_it_records_what_a_slow_loop_does(device):
    dynamics, slow = make().to(device), SlowDynamics(GIVEN.tolist(), C, EARLY)
    for index, logits in batches(30):
        with refused_host_synchronisation(), writing_backwards():
            dynamics.update(index.to(device), logits.to(device))
        slow.update(index.tolist(), logits.tolist())
    assert min(slow.visits()) > 3
    assert sum(slow.forgotten()) > 3
    check(dynamics.cpu(), slow)


@pytest.mark.filterwarnings("ignore:.* never visited")
@settings(deadline=None, max_examples=80)
@drawn(
    rows=st.lists(st.tuples(st.integers(0, N - 1), st.booleans()), max_size=12),
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
    cut=st.integers(0, 12),
)
def test_a_row_that_is_not_finite_is_as_if_it_had_not_come(rows, bad, cut):
    """However its sample is repeated, and wherever the rows are cut into batches."""
    dynamics, slow = make(), SlowDynamics(GIVEN.tolist(), C, EARLY)
    index = torch.tensor([place for place, _ in rows], dtype=torch.int64)
    logits = scores(len(rows))
    for row, (_, finite) in enumerate(rows):
        if not finite:
            logits[row, row % C] = bad
    with check_values(False), refused_host_synchronisation(), writing_backwards():
        dynamics.update(index[:cut], logits[:cut])
        dynamics.update(index[cut:], logits[cut:])
    slow.update(index.tolist(), logits.tolist())
    check(dynamics, slow)


def test_values_are_looked_at_where_asked_for():
    dynamics, logits = make(), scores(2)
    logits[1, 0] = math.nan
    with check_values(), pytest.raises(ValueError, match="logits must be finite, got 1 NaN"):
        dynamics.update(torch.tensor([0, 1]), logits)
    assert same(dynamics, make())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_other_dtypes(dtype):
    dynamics, slow = make(), SlowDynamics(GIVEN.tolist(), C, EARLY)
    for index, logits in batches(20):
        dynamics.update(index, logits.to(dtype))
        slow.update(index.tolist(), logits.to(dtype).double().tolist())
    check(dynamics, slow)
    assert dynamics.probabilities().dtype == torch.float32


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.float64, 1e-6)])
def test_the_mean_has_the_dtype_asked_for(dtype, tolerance):
    dynamics, slow = make(dtype=dtype), SlowDynamics(GIVEN.tolist(), C, EARLY)
    for index, logits in batches(40):
        dynamics.update(index, logits)
        slow.update(index.tolist(), logits.tolist())
    assert dynamics.mean.dtype == dtype
    check(dynamics, slow, tolerance=tolerance)


def test_huge_logits_leave_the_record_finite():
    dynamics = make()
    dynamics.update(torch.tensor([2, 2]), torch.tensor([[3e38, -3e38, 0.0], [3e38, -3e38, 0.0]]))
    dynamics.update(torch.tensor([0]), torch.tensor([[1e300, -1e300, 0.0]], dtype=torch.float64))
    assert all(value.isfinite().all() for value in dynamics.state_dict().values())
    make().load_state_dict(dynamics.state_dict())


def test_a_sample_without_a_visit_in_the_window_is_known_as_nothing():
    dynamics = make()
    dynamics.update(torch.tensor([0]), scores(1))
    with pytest.warns(UserWarning, match="5 of 6 samples were never visited"):
        early = dynamics.probabilities(window="early")
    assert torch.equal(early, torch.full((N, C), 1 / 3))
    with pytest.warns(UserWarning, match="5 of 6 samples were never visited"):
        known = dynamics.probabilities()
    assert torch.equal(known[1:], torch.full((N - 1, C), 1 / 3))
    assert dynamics.area_under_margin().isnan().tolist() == [False, *[True] * (N - 1)]


def test_counts_stop_at_their_most():
    dynamics, slow = make(early=(0, 32767)), SlowDynamics(GIVEN.tolist(), C, EARLY)
    dynamics.visits.fill_(32766)
    dynamics.forgotten.fill_(32767)
    right, wrong = torch.eye(3)[GIVEN[:1]], torch.eye(3)[GIVEN[:1] - 1]
    for _ in range(3):
        dynamics.update(torch.tensor([0, 0]), 9 * torch.cat((right, wrong)))
    assert dynamics.visits[0] == dynamics.forgotten[0] == 32767
    assert slow.visits()[0] == 0


def test_without_given_labels_there_are_no_margins():
    dynamics = make(given=None)
    dynamics.update(torch.arange(N), scores(N))
    torch.testing.assert_close(dynamics.probabilities(), scores(N).softmax(1))
    assert dynamics.forgotten is None
    with pytest.raises(ValueError, match="given labels, got none; .* given="):
        dynamics.area_under_margin()
    made = TrainingDynamics(N, num_classes=C)
    made.load_state_dict(dynamics.state_dict())
    with pytest.raises(ValueError, match="label_given is not there"):
        make().load_state_dict(dynamics.state_dict())


@pytest.mark.parametrize(("classes", "size_of_one"), [(7, 52), (300, 1812)])
def test_bytes_of_a_sample(classes, size_of_one):
    dynamics = TrainingDynamics(
        1000, num_classes=classes, given=torch.arange(1000, dtype=torch.int64) % classes
    )
    size = sum(value.numel() * value.element_size() for value in dynamics.state_dict().values())
    assert size == size_of_one * 1000
    dynamics.update(torch.arange(1000), 9 * torch.eye(classes)[torch.arange(1000) % classes])
    assert dynamics.last_prediction.long().equal(torch.arange(1000) % classes)
    assert (dynamics.area_under_margin() == 9).all()


def test_is_restored_and_goes_on_as_without_a_break():
    whole, first, file = make(), make(), io.BytesIO()
    steps = list(batches(20))
    for index, logits in steps:
        whole.update(index, logits)
    for index, logits in steps[:9]:
        first.update(index, logits)
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = make()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for index, logits in steps[9:]:
        resumed.update(index, logits)
    assert same(resumed, whole)


def damaged(name, value):
    def change(state):
        state[name][1] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged("label_given", 1), "label_given .*1 of 6 differ, the first at index 1"),
        (damaged("visits", -1), r"visits must lie in \[0, 32767\], got -1 at position 1"),
        (damaged("forgotten", -1), "forgotten must lie in"),
        (damaged("mean", math.nan), "mean must be finite"),
        (damaged("mean", 1.5), r"mean must lie in \[0, 1\]"),
        (damaged("early_mean", -0.5), r"early_mean must lie in \[0, 1\]"),
        (damaged("margin_sum", math.inf), "margin_sum must be finite"),
        (damaged("last_prediction", 3), "last_prediction must hold class indices from 0 to 2"),
        (lambda state: state.pop("margin_sum"), "margin_sum is not there"),
    ],
)
def test_is_loaded_whole_or_not_at_all(change, message):
    saved, dynamics = make(), make()
    saved.update(torch.arange(N), scores(N))
    state = saved.state_dict()
    change(state)
    before = copy.deepcopy(dynamics)
    with pytest.raises(ValueError, match=message):
        dynamics.load_state_dict(state, strict=False)
    assert same(dynamics, before)


@pytest.mark.parametrize(
    ("index", "logits", "error", "message"),
    [
        (torch.tensor([0, 6]), scores(2), IndexError, "index must hold rows from 0 to 5, got 6"),
        (torch.tensor([1, 0, -1]), scores(3), IndexError, "got -1 at position 2"),
        (torch.tensor([6, 1, 2]), scores(3), IndexError, "got 6 at position 0"),
        (torch.tensor([0, 1]), scores(3), ValueError, "index has B=2 but"),
        (torch.tensor([0]), torch.ones(1, 4), ValueError, r"logits must have shape \(B, 3\)"),
        (torch.tensor([0]).int(), scores(1), ValueError, r"index must be int64 of shape \(B\)"),
        (torch.tensor([0]), torch.ones(1, 3).int(), ValueError, "logits must have a floating"),
        ([0], scores(1), TypeError, r"index must be a torch.Tensor, got list"),
        (torch.tensor([0], device="meta"), scores(1), ValueError, "index is on meta but"),
    ],
)
def test_a_refused_batch_changes_nothing(index, logits, error, message):
    dynamics = make()
    for asked in (False, True):
        with check_values(asked), pytest.raises(error, match=message):
            dynamics.update(index, logits)
    assert same(dynamics, make())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"given": GIVEN[:4]}, ValueError, "given must have N=6 labels, got 4"),
        ({"given": GIVEN + 1}, ValueError, "given must hold class indices from 0 to 2, got 3"),
        ({"given": [0]}, TypeError, "given must be a torch.Tensor, got list"),
        ({"early": (3, 3)}, ValueError, "the last visit of early must be a whole number from 4"),
        ({"early": (-1, 3)}, ValueError, "the first visit of early must be a whole number from 0"),
        ({"early": 3}, ValueError, "early must be a first and a last visit, got 3"),
        ({"dtype": torch.int64}, ValueError, "dtype must be a floating-point dtype"),
    ],
)
def test_refuses_options(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_refuses_an_unknown_window_and_a_word_for_gather():
    with pytest.raises(ValueError, match="window must be 'all' or 'early', got 'late'"):
        make().probabilities(window="late")
    with pytest.raises(TypeError, match="gather must be True or False, got 'no'"):
        make().update(torch.tensor([0]), scores(1), gather="no")


def test_says_its_size():
    assert repr(make()) == "TrainingDynamics(6 samples, num_classes=3, early=(1, 3), given=True)"


# What each of two processes brings, step by step: uneven, repeated within and across, none.
STEPS = (([0, 1, 0], [1, 5]), ([], [2, 2, 3]), ([4], []), ([], []), ([5, 1, 5, 5], [5, 0, 1]))


def rows_of(rank, step):
    index = torch.tensor(STEPS[step][rank], dtype=torch.int64)
    return index, scores(len(index), seed=10 * step + rank)


def in_each_process(rank):
    dynamics, own = make(), make()
    for round_ in range(3):
        for step in range(len(STEPS)):
            dynamics.update(*rows_of(rank, step))
            if not round_:
                own.update(*rows_of(rank, step), gather=False)
    return dynamics.state_dict(), own.visits


def test_each_process_holds_what_one_process_holds_on_the_joined_batch(tmp_path):
    alone = make()
    for _ in range(3):
        for step in range(len(STEPS)):
            index, logits = zip(rows_of(0, step), rows_of(1, step), strict=True)
            alone.update(torch.cat(index), torch.cat(logits))
    assert int(alone.visits.sum()) == 3 * 16
    for rank, (state, visits) in enumerate(run_in_processes(in_each_process, tmp_path)):
        for name, value in alone.state_dict().items():
            assert torch.equal(state[name], value), name
        expected = torch.zeros(N, dtype=torch.int16)
        for step in STEPS:
            for row in step[rank]:
                expected[row] += 1
        assert torch.equal(visits, expected)
