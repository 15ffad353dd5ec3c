import pytest
import torch

from robustfer.state import LabelStore
from robustfer.state._distributed import gather_in_rank_order
from tests.state.processes import run_in_processes

N, C = 12, 5
# What each of two processes brings, step by step: uneven, repeated within and across, none.
STEPS = (
    (([0, 1, 0], [1, 2, 3]), ([1, 5], [4, 4])),
    (([], []), ([2, 2, 3], [0, 1, 0])),
    (([7], [3]), ([], [])),
    (([], []), ([], [])),
    (([5, 1, 9, 9], [0, 0, 2, 4]), ([9], [1])),
)
GIVEN = torch.arange(N) % C


def confidence_of(labels):
    return labels.float() / C


def soft_rows(labels):
    return torch.eye(C)[labels] * 0.5 + 0.1


def joined(step):
    index, labels = (torch.tensor(first + last) for first, last in zip(*step, strict=True))
    return index.long(), labels.long()


def make_store(soft):
    return LabelStore(GIVEN, num_classes=C, soft_targets=soft, journal_capacity=100)


def apply(store, number, index, labels, soft):
    target = soft_rows(labels) if soft else labels
    return store.update(
        index, target, step=number, epoch=number // 2, confidence=confidence_of(labels)
    )


def in_each_process(rank):
    result = {"kinds": gather_kinds(rank), "refused": refused(rank)}
    for soft in (False, True):
        store = make_store(soft)
        changed = []
        for number, step in enumerate(STEPS):
            index, labels = (torch.tensor(values, dtype=torch.int64) for values in step[rank])
            changed.append(apply(store, number, index, labels, soft))
        store.revert(torch.tensor([9]), epoch=3)
        store.revert_to_epoch(1)
        result[soft] = {"changed": changed, "state": store.state_dict()}
    return result


def gather_kinds(rank):
    rows = torch.arange(rank + 2)
    (slices,) = gather_in_rank_order(
        torch.arange(12).reshape(4, 3)[rank : rank + 1, rank :: 2 - rank]
    )
    return slices, *gather_in_rank_order(
        rows + 10 * rank,
        rows.half()[:, None, None].expand(-1, 2, 3),
        rows > 0,
        rows.to(torch.int16),
        rows.bfloat16(),
    )


def refused(rank):
    """A value that does not fit comes from process 1 alone, and stops both of them."""
    store = make_store(soft=False)
    before = {name: value.clone() for name, value in store.state_dict().items()}
    messages = []
    for bad in ({"index": N}, {"label": C}, {"confidence": 2.0}):
        index = torch.tensor([bad.get("index", 1) if rank else 0])
        labels = torch.tensor([bad.get("label", 2) if rank else 3])
        confidence = torch.tensor([bad.get("confidence", 0.5) if rank else 0.5])
        try:
            store.update(index, labels, step=0, epoch=0, confidence=confidence)
        except (ValueError, IndexError) as error:
            messages.append(str(error))
    try:
        gather_in_rank_order(torch.zeros(2, 3 + rank))
    except ValueError as error:
        messages.append(str(error))
    same = all(torch.equal(before[name], value) for name, value in store.state_dict().items())
    own = store.update(torch.tensor([rank]), torch.tensor([4]), step=0, epoch=0, gather=False)
    return {"messages": messages, "unchanged": same, "alone": (own, store())}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_processes(in_each_process, tmp_path_factory.mktemp("gloo"))


@pytest.mark.parametrize("soft", [False, True])
def test_each_process_holds_what_one_process_holds_on_the_joined_batch(results, soft):
    alone = make_store(soft)
    changed = [apply(alone, n, *joined(step), soft) for n, step in enumerate(STEPS)]
    assert sum(changed) > 5
    alone.revert(torch.tensor([9]), epoch=3)
    alone.revert_to_epoch(1)
    expected = alone.state_dict()
    for result in results:
        assert result[soft]["changed"] == changed
        state = result[soft]["state"]
        assert list(state) == list(expected)
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, equal_nan=True, msg=name)


def test_rows_of_any_kind_come_in_the_order_of_the_processes(results):
    rows = torch.tensor([0, 1, 0, 1, 2])
    for result in results:
        slices, integers, halves, truths, short, brain = result["kinds"]
        assert slices.tolist() == [[0, 2], [4, 5]]
        assert integers.tolist() == [0, 1, 10, 11, 12]
        assert torch.equal(halves, rows.half()[:, None, None].expand(-1, 2, 3))
        assert torch.equal(truths, rows > 0)
        assert torch.equal(short, rows.to(torch.int16))
        assert torch.equal(brain, rows.bfloat16())


def test_what_one_process_does_wrong_stops_all_and_writes_nothing(results):
    assert results[0]["refused"]["messages"] == results[1]["refused"]["messages"]
    index, label, confidence, rows = results[0]["refused"]["messages"]
    assert "index must hold rows from 0 to 11, got 12 at position 1" in index
    assert "target must hold class indices from 0 to 4, got 5 at position 1" in label
    assert "got 2 at position 1" in confidence
    assert "rows of 12, 16 bytes from process 0 on" in rows
    assert all(result["refused"]["unchanged"] for result in results)


def test_without_gathering_each_process_writes_its_own_rows(results):
    for rank, result in enumerate(results):
        changed, labels = result["refused"]["alone"]
        expected = GIVEN.clone()
        expected[rank] = 4
        assert changed == 1
        assert torch.equal(labels, expected)


def test_without_processes_the_tensors_come_back_as_they_are():
    rows = torch.arange(3)
    assert gather_in_rank_order(rows)[0] is rows
