import copy
import csv
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

from robustfer.state import ChangeReason, LabelStore
from robustfer.state._rows import last_of_each

NAN = float("nan")
GIVEN = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 1, 2])


def make(device="cpu", given=GIVEN, **options):
    options = {"num_classes": 7, "journal_capacity": 20, **options}
    return LabelStore(given.to(device), **options)


def update(store, index, target, *, epoch=0, step=0, **options):
    device = store.label_given.device
    target = torch.as_tensor(target, device=device)
    index = torch.tensor(index, device=device, dtype=torch.int64)
    return store.update(index, target, step=step, epoch=epoch, **options)


def copy_of_state(store):
    return {name: value.clone() for name, value in store.state_dict().items()}


def assert_same_state(first, second):
    assert list(first) == list(second)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


# Looking up


def test_looks_labels_up_by_row(device):
    store, index = make(device), torch.tensor([9, 0, 9], device=device)
    assert update(store, [9], [6]) == 1
    assert store(index).tolist() == [6, 0, 6]
    assert store().tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 1, 6]
    assert store.given(index).tolist() == [2, 0, 2]
    assert store.changed_epoch(index).tolist() == [0, -1, 0]
    assert store(index).dtype == store.given().dtype == torch.int64
    assert store(index).device.type == device.type
    assert store(index[:0]).tolist() == []
    assert torch.equal(store.given().cpu(), GIVEN)


def test_an_index_from_the_loader_is_taken_wherever_the_store_is(device):
    store, index = make(device), torch.tensor([3, 1])
    assert store(index).device.type == device.type
    assert store(index).tolist() == [3, 1]
    assert store.update(index, torch.tensor([0, 0]), step=0, epoch=0) == 2


def test_looking_up_changes_nothing_and_keeps_nothing_of_the_store():
    store = make(soft_targets=True)
    before = copy_of_state(store)
    for look in (store, store.given, store.changed_epoch, store.soft_target):
        look(torch.tensor([1, 2])).zero_()
    for look in (store, store.given, store.changed_epoch, store.soft_target):
        look().zero_()
    store.transitions().zero_()
    store.changed().fill_(True)
    store.decided().fill_(True)
    store.decided(torch.tensor([1, 2])).fill_(True)
    assert_same_state(before, store.state_dict())


def test_the_store_shares_nothing_with_the_labels_it_was_made_of():
    for given in (GIVEN.clone(), GIVEN.to(torch.uint8)):
        store = make(given=given)
        update(store, [0, 1], [5, 5])
        assert torch.equal(given.long(), GIVEN)
        given.zero_()
        assert torch.equal(store.given(), GIVEN)
    rows = torch.eye(7, dtype=torch.float16)[GIVEN]
    store = make(given=rows, soft_targets=True)
    update(store, [0, 1], [5, 5])
    assert torch.equal(rows.argmax(1), GIVEN)


def test_compiles_whole():
    store, index = make(soft_targets=True), torch.tensor([4, 4, 0])
    for look in (store, store.soft_target):
        compiled = torch.compile(look, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(index), look(index))


class NoWaiting(TorchDispatchMode):
    """Refuse what would make a GPU wait."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.waits, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("soft", [False, True])
def test_a_look_up_never_waits_and_an_update_once(soft, monkeypatch):
    waits, index = [], torch.tensor([1, 2, 1])
    store, plain = make(soft_targets=soft), torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: waits.append(1) or plain(self))
    with NoWaiting():
        for look in (store, store.given, store.changed_epoch, store.soft_target):
            look(index)
        assert not waits
        store.update(index, torch.tensor([3, 3, 4]), step=0, epoch=0, confidence=torch.ones(3))
    assert len(waits) == 1
    assert store.counts()["changed"] == 2


# Size


@pytest.mark.parametrize(
    ("classes", "soft", "expected"),
    [(2, False, 5), (256, False, 5), (257, False, 7), (32_768, False, 7), (7, True, 5 + 14)],
)
def test_bytes_a_sample(classes, soft, expected):
    samples = 1000
    labels = torch.arange(samples) % classes
    labels[-1] = classes - 1
    small, large = (
        LabelStore(given, num_classes=classes, soft_targets=soft, journal_capacity=10)
        for given in (labels[-1:], labels)
    )
    sizes = [sum(b.nbytes for b in store.state_dict().values()) for store in (small, large)]
    assert sizes[1] - sizes[0] == expected * (samples - 1)
    assert torch.equal(large(), labels)
    assert large.update(torch.tensor([0]), labels[-1:], step=0, epoch=0) == 1
    assert large(torch.tensor([0])) == classes - 1
    assert large.journal()["to"].tolist() == [classes - 1]


def test_bytes_a_change_are_as_documented():
    def size(capacity, **options):
        store = make(journal_capacity=capacity, **options)
        return sum(buffer.nbytes for buffer in store.state_dict().values())

    assert size(11) - size(10) == 28
    assert size(11, num_classes=300) - size(10, num_classes=300) == 30
    assert size(11, soft_targets=True) - size(10, soft_targets=True) == 28 + 2 * 7


# Updating


def test_the_last_row_of_a_repeated_sample_wins(device):
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(7, (500,), generator=generator)
    store, expected = make(device, given, journal_capacity=4096), given.tolist()
    for step in range(5):
        index = torch.randint(100, (1024,), generator=generator)
        target = torch.randint(7, (1024,), generator=generator)
        store.update(index.to(device), target.to(device), step=step, epoch=0)
        for row, label in zip(index.tolist(), target.tolist(), strict=True):
            expected[row] = label
        assert store().tolist() == expected


def test_last_of_each(device):
    generator = torch.Generator().manual_seed(0)
    for size in (0, 1, 2, 3000):
        index = torch.randint(40, (size,), generator=generator)
        rows = index.tolist()
        expected = [row not in rows[place + 1 :] for place, row in enumerate(rows)]
        assert last_of_each(index.to(device)).tolist() == expected


def test_only_what_differs_is_a_change():
    store = make()
    assert update(store, [0, 1, 2], [0, 5, 2]) == 1
    assert update(store, [1, 1], [6, 5]) == 0  # comes back to what it is within the batch
    assert update(store, [], torch.zeros(0, dtype=torch.int64)) == 0
    assert store.counts()["journalled"] == 1


def test_soft_targets(device):
    store = make(device, soft_targets=True)
    rows = torch.softmax(torch.randn(2, 7, generator=torch.Generator().manual_seed(0)), 1)
    assert update(store, [4, 8], rows.to(device), confidence=rows.max(1).values) == 2
    found = store.soft_target(torch.tensor([4, 8], device=device)).cpu()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, rows, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(found.sum(1), torch.ones(2), rtol=0, atol=3e-7)
    assert store(torch.tensor([4, 8])).tolist() == rows.argmax(1).tolist()
    # A label makes the row one-hot again.
    assert update(store, [4], [2]) == 1
    assert store.soft_target(torch.tensor([4])).tolist() == [[0, 0, 1, 0, 0, 0, 0]]
    assert store.soft_target()[0].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_a_row_that_differs_is_journalled_but_does_not_change_its_label():
    store, first = make(soft_targets=True), torch.tensor([0])
    row = torch.tensor([[0.75, 0.25, 0, 0, 0, 0, 0]])
    assert update(store, [0], row, epoch=3) == 1
    assert update(store, [0], row, epoch=4) == 0
    assert not store.changed().any()
    journal = store.journal()
    assert (journal["from"].tolist(), journal["to"].tolist()) == ([0], [0])
    assert store.counts()["changed_back"] == 0
    assert store.changed_epoch(first).tolist() == [-1]
    assert store.revert_to_epoch(2) == 1
    assert store.soft_target(first).tolist() == [[1, 0, 0, 0, 0, 0, 0]]
    assert store.changed_epoch(first).tolist() == [-1]
    update(store, [0], row, epoch=3)
    assert store.revert(epoch=4) == 1
    assert store.changed_epoch(first).tolist() == [-1]
    assert store.counts()["changed_back"] == 0


def test_the_epoch_of_a_label_is_kept_while_its_row_moves_and_comes_back(device):
    store, after = make(device, soft_targets=True, journal_capacity=100), {}

    def rows(*shares):
        first = torch.tensor(shares)
        return torch.stack((first, 1 - first, *[0 * first] * 5), dim=1)

    # Of samples 0 and 1, of class 0 and 1, the first changes its label in epochs 2 and 5 only.
    for epoch, shares in enumerate([(0.9, 0.1), (0.4, 0.2), (0.3, 0.3), (0.2, 0.3), (0.6, 0.4)], 1):
        update(store, [0, 1], rows(*shares), epoch=epoch)
        after[epoch] = store(), store.changed_epoch(), store.soft_target()
    first = torch.tensor([0, 1], device=device)
    assert [after[epoch][1][first].tolist() for epoch in after] == [
        [-1, -1], [2, -1], [2, -1], [2, -1], [5, -1]
    ]  # fmt: skip
    assert store.counts()["changed_back"] == 1
    for epoch in (4, 3, 2, 1):
        store.revert_to_epoch(epoch)
        found = store(), store.changed_epoch(), store.soft_target()
        assert all(map(torch.equal, found, after[epoch]))


def test_a_label_that_stays_keeps_its_distribution(device):
    rows = torch.softmax(torch.randn(10, 7, generator=torch.Generator().manual_seed(0)), 1)
    store = make(device, given=rows, soft_targets=True)
    before = store.soft_target()
    target = rows.argmax(1)
    assert update(store, list(range(10)), target) == 0
    target[4] = (target[4] + 1) % 7
    assert update(store, list(range(10)), target) == 1
    before[4] = torch.eye(7)[target[4]]
    assert torch.equal(store.soft_target(), before)
    assert update(store, [0, 0], (target[0] + torch.tensor([1, 0])) % 7) == 0  # the last row wins


def test_given_distributions_come_back_exactly():
    rows = torch.softmax(torch.randn(10, 7, generator=torch.Generator().manual_seed(0)), 1)
    store = make(given=rows, soft_targets=True)
    before = store.soft_target()
    assert torch.equal(store.given(), rows.argmax(1))
    update(store, list(range(10)), (rows.argmax(1) + 1) % 7)
    assert store.revert(torch.tensor([0, 0, 4])) == 2
    assert torch.equal(store.soft_target()[[0, 4]], before[[0, 4]])
    assert store.revert() == 8
    assert torch.equal(store.soft_target(), before)
    assert torch.equal(store(), rows.argmax(1))


def test_a_network_in_half_precision_gives_rows_too():
    store = make(soft_targets=True)
    rows = torch.softmax(torch.randn(10, 7, generator=torch.Generator().manual_seed(0)), 1)
    rows = rows.bfloat16().requires_grad_()
    update(store, list(range(10)), rows, confidence=rows.max(1).values)
    assert torch.equal(store(), rows.argmax(1))
    assert not store.soft_target().requires_grad


def test_the_modules_dtype_does_not_touch_labels():
    store = nn.Sequential(make(soft_targets=True)).half().double()[0]
    update(store, [1], [6], confidence=torch.tensor([0.5]))
    assert store(torch.tensor([1])).tolist() == [6]
    assert store.revert_to_epoch(0) == 0
    assert store.revert() == 1
    assert torch.equal(store(), GIVEN)


# What people decided


def decisions(index, label, given=None):
    index = torch.tensor(index)
    given = GIVEN[index] if given is None else torch.tensor(given)
    return SimpleNamespace(index=index, label=torch.tensor(label), given=given)


def test_decided_rows_are_marked_confirmed_ones_too(device):
    store = make(device)
    assert not store.decided().any()
    # Row 0 is confirmed, row 1 is changed, and row 2 is ambiguous.
    assert store.apply_decisions(decisions([0, 1, 2], [0, 5, -1])) == 1
    assert store.decided().nonzero()[:, 0].tolist() == [0, 1]
    index = torch.tensor([1, 2, 0], device=device)
    assert store.decided(index).tolist() == [True, False, True]
    assert store.decided().dtype == torch.bool
    assert update(store, [3, 4], [3, 6], reason=ChangeReason.MANUAL) == 1
    update(store, [5], [0])
    assert store.decided().nonzero()[:, 0].tolist() == [0, 1, 3, 4]


def test_refused_decisions_mark_nothing():
    store = make()
    for wrong in (decisions([0, 10], [1, 1], [0, 1]), decisions([0, 1], [1, 7])):
        with pytest.raises((IndexError, ValueError), match="got"):
            store.apply_decisions(wrong)
    assert not store.decided().any()


def test_decisions_are_marked_where_warnings_are_errors():
    store = make(journal_capacity=1)
    with pytest.raises(UserWarning, match="is full"):
        store.apply_decisions(decisions([0, 1], [3, 3]))
    assert store.decided()[:3].tolist() == [True, True, False]


def test_a_revert_takes_the_marks_away():
    for index, left in ((torch.tensor([0, 2]), [False, True]), (None, [False, False])):
        store = make()
        store.apply_decisions(decisions([0, 1], [0, 5]))
        store.revert(index)
        assert store.decided()[:2].tolist() == left


def test_going_back_to_an_epoch_restores_the_marks_of_changed_labels():
    store, after = make(), {}
    update(store, [1, 3], [6, 6], epoch=1)
    after[1] = store.decided()
    store.apply_decisions(decisions([0, 1], [4, 5]), epoch=2)
    after[2] = store.decided()
    store.revert(torch.tensor([0, 1]), epoch=3)
    store.apply_decisions(decisions([3], [2]), epoch=4)
    for epoch in (2, 1):
        store.revert_to_epoch(epoch)
        assert torch.equal(store.decided(), after[epoch])


def test_marks_are_saved():
    store, other = make(), make()
    store.apply_decisions(decisions([0, 1], [0, 5]))
    other.load_state_dict(store.state_dict())
    assert other.decided().nonzero()[:, 0].tolist() == [0, 1]


# Going back


def test_reverts_what_the_journal_has_long_dropped():
    given = torch.arange(100) % 7
    store = make(given=given, journal_capacity=3)
    with pytest.warns(UserWarning, match=r"journal of label changes is full \(3\)"):
        assert update(store, list(range(100)), (given + 1) % 7) == 100
    assert store.counts()["dropped"] == 97
    assert store.revert(torch.tensor([5, 50])) == 2
    assert store(torch.tensor([5, 50])).tolist() == [5, 1]
    assert store.revert() == 98
    assert torch.equal(store(), given)
    assert store.revert() == 0


def test_goes_back_to_the_end_of_an_epoch():
    store, after = make(journal_capacity=100), {}
    update(store, [0, 1], [3, 3], epoch=1)
    update(store, [1, 2], [4, 4], epoch=1)
    after[1] = store(), store.changed_epoch()
    update(store, [0, 2], [0, 5], epoch=3)
    after[3] = store(), store.changed_epoch()
    update(store, [2, 9], [6, 6], epoch=4)
    assert store.revert_to_epoch(4) == 0
    assert store.revert_to_epoch(3) == 2
    for found, expected in zip((store(), store.changed_epoch()), after[3], strict=True):
        assert torch.equal(found, expected)
    # Training goes on from there, and what it would have done is no longer to be had.
    update(store, [5], [0], epoch=4)
    assert store.revert_to_epoch(3) == 1
    assert torch.equal(store(), after[3][0])
    assert store.revert_to_epoch(2) == 2
    for found, expected in zip((store(), store.changed_epoch()), after[1], strict=True):
        assert torch.equal(found, expected)
    assert store.revert_to_epoch(0) == 3
    assert torch.equal(store(), GIVEN)
    assert store.changed_epoch().tolist() == [-1] * 10


def test_a_revert_is_written_where_the_latest_change_was_unless_said():
    store = make()
    assert store.revert() == 0
    update(store, [0, 1], [3, 3], step=70, epoch=2)
    store.revert(torch.tensor([0]))
    store.revert(torch.tensor([1]), step=90, epoch=4)
    journal = store.journal()
    assert journal["step"].tolist() == [70, 70, 70, 90]
    assert journal["epoch"].tolist() == [2, 2, 2, 4]
    assert journal["reason"].tolist() == [1, 1, 3, 3]
    assert store.changed_epoch(torch.tensor([0, 1])).tolist() == [2, 4]


def test_an_epoch_that_is_no_longer_in_the_journal():
    store = make(journal_capacity=3)
    update(store, [0, 1], [3, 3], epoch=1)
    update(store, [2], [0], epoch=2)
    with pytest.warns(UserWarning, match="full"):
        update(store, [3, 4], [0, 0], epoch=3)
    before = copy_of_state(store)
    with pytest.raises(ValueError, match=r"epoch 1 is no longer in the journal.*back to epoch 2"):
        store.revert_to_epoch(1)
    assert_same_state(before, store.state_dict())
    assert store.revert_to_epoch(2) == 2
    assert store()[:5].tolist() == [3, 3, 0, 3, 4]


def test_warns_once_when_the_journal_is_full_and_not_again_after_a_resume():
    store = make(journal_capacity=2)
    update(store, [0, 1], [3, 3])
    with pytest.warns(UserWarning, match="drops the oldest from now on") as caught:
        update(store, [2, 3, 4], [6, 6, 6])
    assert len(caught) == 1
    resumed = make(journal_capacity=2)
    resumed.load_state_dict(store.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update(store, [5], [6])
        update(resumed, [5], [6])
    assert store.counts()["dropped"] == resumed.counts()["dropped"] == 4


def test_nothing_is_lost_where_warnings_are_errors():
    store = make(journal_capacity=2)
    with pytest.raises(UserWarning, match="is full"):  # pytest makes it one
        update(store, [2, 3, 4], [6, 6, 5])
    assert store(torch.tensor([2, 3, 4])).tolist() == [6, 6, 5]
    assert store.journal()["index"].tolist() == [3, 4]


# The journal


def test_the_journal_as_a_table(tmp_path):
    store = make(journal_capacity=4)
    update(store, [0], [6], step=1, epoch=1, confidence=torch.tensor([0.875]))
    update(store, [3], [4], step=2, epoch=1, reason=ChangeReason.MANUAL)
    update(store, [3], [5], step=3, epoch=2, reason=77)
    store.revert(torch.tensor([0]), step=4, epoch=2)
    with pytest.warns(UserWarning, match="full"):
        store.revert_to_epoch(1)
    file = tmp_path / "changes.csv"
    store.write_journal(file, classes=list("abcdefg"), ids=[f"face{i}" for i in range(10)])
    with file.open(newline="") as lines:
        assert list(csv.reader(lines)) == [
            ["step", "epoch", "index", "from", "to", "reason", "confidence", "id"],
            ["3", "2", "3", "e", "f", "77", "", "face3"],
            ["4", "2", "0", "g", "a", "reverted", "", "face0"],
            ["4", "1", "0", "a", "g", "rewound", "", "face0"],
            ["4", "1", "3", "f", "e", "rewound", "", "face3"],
        ]
    assert [path.name for path in tmp_path.iterdir()] == ["changes.csv"]
    store = make()
    update(store, [0], [6], step=1, epoch=1, confidence=torch.tensor([0.875]))
    store.write_journal(str(file))
    assert file.read_text().splitlines() == [
        "step,epoch,index,from,to,reason,confidence",
        "1,1,0,0,6,relabelled,0.875",
    ]
    journal = store.journal()
    assert journal.pop("confidence").dtype == torch.float32
    assert {column.dtype for column in journal.values()} == {torch.int64}


def test_the_journal_is_written_whole_or_not_at_all(tmp_path):
    store = make()
    update(store, [0], [6], step=1, epoch=1)
    file = tmp_path / "new" / "changes.csv"
    store.write_journal(file)
    before = file.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        store.write_journal(file, classes=["\ud800"] * 7)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_names_in_the_journal_are_no_formulas(tmp_path):
    store, file = make(), tmp_path / "changes.csv"
    update(store, [0, 3], [6, 4], step=1, epoch=1)
    ids = ["=cmd.png", *(f"face{i}\udcff" for i in range(1, 10))]  # a name that is not UTF-8
    store.write_journal(file, classes=["+a", "-b", "@c", "d", "e", "f", "=g"], ids=ids)
    with file.open(newline="", errors="surrogateescape") as lines:
        first, second = list(csv.reader(lines))[1:]
    assert first == ["1", "1", "0", "'+a", "'=g", "relabelled", "", "'=cmd.png"]
    assert second[4:] == ["e", "relabelled", "", "face3\udcff"]


def test_an_empty_journal(tmp_path):
    make().write_journal(tmp_path / "changes.csv")
    assert (tmp_path / "changes.csv").read_text().strip().count("\n") == 0
    assert all(column.shape == (0,) for column in make().journal().values())
    assert make().revert_to_epoch(0) == 0


# Saving and loading


def steps(store, first, last):
    generator = torch.Generator().manual_seed(first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(first, last):
            generator.manual_seed(step)
            index = torch.randint(10, (6,), generator=generator)
            target = torch.softmax(torch.randn(6, 7, generator=generator), 1)
            update(store, index.tolist(), target, step=step, epoch=step // 3)
            if step % 4 == 3:
                store.revert_to_epoch(step // 3 - 1)


@pytest.mark.parametrize("stop", [0, 4, 9])
def test_a_resumed_run_is_the_same_run(tmp_path, stop):
    whole, first, second = (make(soft_targets=True) for _ in range(3))
    steps(whole, 0, 12)
    steps(first, 0, stop)
    torch.save({"labels": first.state_dict()}, tmp_path / "resume.pt")
    second.load_state_dict(torch.load(tmp_path / "resume.pt", weights_only=True)["labels"])
    steps(second, stop, 12)
    assert_same_state(whole.state_dict(), second.state_dict())
    assert whole.counts()["dropped"] > 0


def test_is_saved_as_part_of_another_module_and_copied():
    outer = nn.ModuleDict({"labels": make()})
    update(outer["labels"], [1], [5])
    other = nn.ModuleDict({"labels": make()})
    other.load_state_dict(outer.state_dict())
    assert_same_state(outer.state_dict(), other.state_dict())
    copied = copy.deepcopy(outer)["labels"]
    update(copied, [2], [5])
    assert outer["labels"]()[2] == 2
    assert_same_state(outer.state_dict(), other.state_dict())


def test_follows_the_module_to_a_device(device):
    store = make(soft_targets=True).to(device)
    assert {buffer.device.type for buffer in store.buffers()} == {device.type}
    update(store, [1], [5])
    assert store.revert() == 1
    assert all(column.device.type == "cpu" for column in store.journal().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"given": GIVEN[:9]},
            r"label_given is torch.uint8 of shape \(10\) there and .*\(9\) here",
        ),
        ({"num_classes": 300}, "label_current is torch.uint8 .* there and torch.int16 "),
        ({"journal_capacity": 21}, r"history.index is torch.int64 of shape \(20\) there and"),
        ({"soft_targets": True}, r"soft_current is not there and torch.float16 of shape \(10, 7\)"),
        ({"given": GIVEN.flip(0)}, "label_given .*8 of 10 differ, the first at index 0"),
    ],
)
def test_refuses_a_state_that_does_not_fit(options, message):
    saved = make()
    update(saved, [1], [5])
    store = make(**options)
    before = copy_of_state(store)
    with pytest.raises(ValueError, match=message):
        store.load_state_dict(saved.state_dict())
    assert_same_state(before, store.state_dict())


def test_refuses_more_states_that_do_not_fit():
    saved = make(soft_targets=True).state_dict()
    with pytest.raises(ValueError, match="soft_current is .* there and not here"):
        make().load_state_dict(saved)
    rows = torch.eye(7)[GIVEN]
    softer = make(given=rows * 0.5 + 0.5 / 7, soft_targets=True).state_dict()
    with pytest.raises(ValueError, match="10 of 10 differ"):
        make(given=rows, soft_targets=True).load_state_dict(softer)
    # Seven classes and eight look the same but for the labels.
    eight = make(num_classes=8)
    update(eight, [1], [7])
    with pytest.raises(ValueError, match="label_current must hold class indices from 0 to 6"):
        make().load_state_dict(eight.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        make().load_state_dict({})


@pytest.mark.parametrize("classes", [2, 127, 128, 255, 256, 257, 32_767, 32_768])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_number_of_classes_takes_its_own_state_back(classes, dtype):
    last = min(classes, torch.iinfo(dtype).max + 1) - 1
    given = torch.tensor([0, 1, last], dtype=dtype)
    store = LabelStore(given, num_classes=classes)
    store.update(torch.tensor([0]), torch.tensor([classes - 1]), step=0, epoch=0)
    other = LabelStore(given, num_classes=classes)
    other.load_state_dict(store.state_dict())
    assert other().tolist() == [classes - 1, 1, last]
    with pytest.raises(ValueError, match=f"from 0 to {classes - 1}, got {classes} at position 0"):
        store.update(torch.tensor([1]), torch.tensor([classes]), step=0, epoch=0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label_current", 7, "label_current must hold class indices from 0 to 6, got 7"),
        ("label_epoch", -2, "label_epoch must lie in .* got -2"),
        ("history.written", -1, "written must lie in .* got -1"),
        ("history.index", 10, r"index must lie in \[0, 9\], got 10"),
        ("history.index", -1, r"index must lie in \[0, 9\], got -1"),
        ("history.label_from", 7, "label_from must hold class indices from 0 to 6, got 7"),
        ("history.label_to", 200, "label_to must hold class indices from 0 to 6, got 200"),
        ("history.step", -1, "step must lie in"),
        ("history.epoch", -1, "epoch must lie in"),
        ("history.epoch_before", -2, "epoch_before must lie in"),
        ("history.confidence", 2.0, "confidence must lie in"),
        ("soft_current", NAN, "rows of soft_current must be probabilities"),
        ("soft_current", 0.5, "rows of soft_current must be probabilities"),
        ("history.soft_before", NAN, "soft_before must be finite"),
    ],
)
def test_a_state_that_cannot_be_is_refused(name, value, message):
    store = make(soft_targets=True)
    update(store, [3], [0])
    before = copy_of_state(store)
    saved = copy_of_state(store)
    saved[name].view(-1)[0] = value
    with pytest.raises(ValueError, match=message):
        store.load_state_dict(saved)
    assert_same_state(before, store.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounded_rows_are_taken_back(dtype):
    generator = torch.Generator().manual_seed(0)
    store = LabelStore(torch.arange(50) % 7, num_classes=7, soft_targets=True)
    rows = torch.rand(50, 7, generator=generator).softmax(1).to(dtype)
    store.update(torch.arange(50), rows, step=0, epoch=0)
    other = LabelStore(torch.arange(50) % 7, num_classes=7, soft_targets=True)
    other.load_state_dict(store.state_dict())
    assert_same_state(store.state_dict(), other.state_dict())


def test_switches_are_no_words():
    with pytest.raises(TypeError, match="soft_targets must be True or False, got 'no'"):
        make(soft_targets="no")
    one = torch.tensor([1])
    with pytest.raises(TypeError, match="gather must be True or False, got 'no'"):
        make().update(one, one, step=0, epoch=0, gather="no")


def test_no_rows_are_nothing_to_revert():
    store = make(soft_targets=True)
    update(store, [3], [0])
    before = copy_of_state(store)
    assert store.revert(torch.zeros(0, dtype=torch.int64)) == 0
    assert_same_state(before, store.state_dict())


# What is refused


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (
            GIVEN,
            {"num_classes": 6},
            r"given must hold class indices from 0 to 5, got 6 at position 6",
        ),
        (-GIVEN, {}, "given must hold class indices from 0 to 6, got -1 at position 1"),
        (GIVEN[:0], {}, r"given must be integers of shape \(N\), got torch.int64 of shape \(0\)"),
        (GIVEN.float(), {}, "given must be integers .*, got torch.float32"),
        (GIVEN > 0, {}, "given must be integers .*, got torch.bool"),
        (torch.eye(7), {}, "given must be integers .*; soft_targets=True keeps distributions"),
        (torch.eye(6), {"soft_targets": True}, r"given must have shape \(N, 7\), got .*\(6, 6\)"),
        (torch.ones(2, 7), {"soft_targets": True}, "rows of given must be probabilities"),
        (torch.eye(7).long(), {"soft_targets": True}, "given must have a floating-point dtype"),
        (GIVEN, {"num_classes": 1}, "num_classes must be a whole number from 2 to 32768, got 1"),
        (GIVEN, {"num_classes": 32_769}, "num_classes must be a whole number from 2 to 32768"),
        (GIVEN, {"num_classes": 7.0}, "num_classes must be a whole number .*, got 7.0"),
        (GIVEN, {"journal_capacity": 0}, "journal_capacity must be a whole number from 1"),
    ],
)
def test_refuses_at_construction(given, options, message):
    with pytest.raises(ValueError, match=message):
        make(given=given, **options)


def test_refuses_what_is_no_tensor():
    with pytest.raises(TypeError, match="given must be a torch.Tensor, got list"):
        LabelStore([0, 1], num_classes=2)
    store, one = make(), torch.tensor([1])
    with pytest.raises(TypeError, match="index must be a torch.Tensor, got int"):
        store(3)
    with pytest.raises(TypeError, match="index must be a torch.Tensor, got list"):
        store.update([1], one, step=0, epoch=0)
    with pytest.raises(TypeError, match="target must be a torch.Tensor, got int"):
        store.update(one, 1, step=0, epoch=0)
    with pytest.raises(TypeError, match="confidence must be a torch.Tensor, got float"):
        store.update(one, one, step=0, epoch=0, confidence=0.5)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"index": torch.tensor([0, 10])},
            "index must hold rows from 0 to 9, got 10 at position 1",
        ),
        (
            {"index": torch.tensor([-1, 3])},
            "index must hold rows from 0 to 9, got -1 at position 0",
        ),
        (
            {"index": torch.tensor([0.0, 1.0])},
            r"index must be int64 of shape \(B\), got torch.floa",
        ),
        ({"index": torch.tensor([[0, 1]])}, r"index must be int64 .* of shape \(1, 2\)"),
        ({"index": torch.tensor([0, 1, 2])}, r"target must be int64 of shape \(3\)"),
        (
            {"target": torch.tensor([1, 7])},
            "target must hold class indices from 0 to 6, got 7 at po",
        ),
        ({"target": torch.tensor([-1, 1])}, "target must hold class indices from 0 to 6, got -1"),
        ({"target": torch.tensor([256, 1])}, "target must hold class indices from 0 to 6, got 256"),
        ({"target": torch.tensor([1, 2]).int()}, "target must be int64 .*, got torch.int32"),
        ({"target": torch.ones(2, 6)}, r"target must be int64 .* of shape \(2, 6\)"),
        ({"confidence": torch.tensor([0.5, 1.5])}, r"lie in \[0, 1\].* got 1.5 at position 1"),
        ({"confidence": torch.tensor([NAN, -0.5])}, r"lie in \[0, 1\].* got -0.5 at position 1"),
        ({"confidence": torch.tensor([1, 1])}, "confidence must be floating point .* torch.int64"),
        ({"confidence": torch.ones(3)}, r"confidence must be floating point of shape \(2\)"),
        ({"epoch": -1}, "epoch must be a whole number from 0 to 32767, got -1"),
        ({"epoch": 32_768}, "epoch must be a whole number from 0 to 32767, got 32768"),
        ({"step": 1.5}, "step must be a whole number from 0 to .*, got 1.5"),
        ({"step": True}, "step must be a whole number from 0 to .*, got True"),
        ({"reason": 256}, "reason must be a whole number from 0 to 255, got 256"),
    ],
)
def test_refuses_an_update_whole(soft, change, message):
    store = make(soft_targets=soft)
    update(store, [3], [0])
    before = copy_of_state(store)
    arguments = {"index": torch.tensor([0, 1]), "target": torch.tensor([5, 5]), "step": 1}
    with pytest.raises((ValueError, IndexError), match=message):
        store.update(**{**arguments, "epoch": 1, **change})
    assert_same_state(before, store.state_dict())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.6, 0, 0, 0, 0, 0], "rows of target must be probabilities .* row 1 sums to 1.1"),
        ([1.5, -0.5, 0, 0, 0, 0, 0], "its least value is -0.5"),
        ([NAN, 1, 0, 0, 0, 0, 0], "rows of target must be probabilities"),
    ],
)
def test_refuses_rows_that_are_no_distribution(row, message):
    store = make(soft_targets=True)
    before = copy_of_state(store)
    with pytest.raises(ValueError, match=message):
        update(store, [0, 1], [[0, 1.0, 0, 0, 0, 0, 0], row])
    assert_same_state(before, store.state_dict())


def test_hard_stores_say_how_to_keep_distributions():
    with pytest.raises(ValueError, match="soft_targets=True keeps distributions"):
        update(make(), [0, 1], torch.eye(7)[:2])


@pytest.mark.parametrize("row", [-1, 10])
def test_refuses_rows_outside_when_looking_up_and_reverting(row):
    store, index = make(soft_targets=True), torch.tensor([3, row])
    for look in (store, store.given, store.soft_target, store.changed_epoch):
        with pytest.raises(IndexError, match=f"rows from 0 to 9, got {row} at position 1"):
            look(index)
    with pytest.raises(IndexError, match=f"rows from 0 to 9, got {row} at position 1"):
        store.revert(index)
    with pytest.raises(ValueError, match="index must be int64"):
        store(index.int())


def test_refuses_an_index_on_a_device_that_the_store_is_not_on():
    with pytest.raises(ValueError, match="index is on meta but the store is on cpu"):
        make()(torch.tensor([1], device="meta"))


def test_refuses_other_options(tmp_path):
    store = make()
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        store.revert_to_epoch(-1)
    with pytest.raises(ValueError, match="epoch must be a whole number"):
        store.revert(epoch=-1)
    with pytest.raises(ValueError, match="classes must hold 7 names, got 2"):
        store.write_journal(tmp_path / "changes.csv", classes=["a", "b"])
    with pytest.raises(ValueError, match="ids must hold 10 names, got 1"):
        store.write_journal(tmp_path / "changes.csv", ids=["a"])
    assert not list(tmp_path.iterdir())


def test_says_what_it_is():
    assert repr(make()).startswith(
        "LabelStore(\n  10 samples, num_classes=7, soft_targets=False, journal_capacity=20\n"
    )


# With the loader


class Samples(Dataset):
    """Hands out what a data set with labels of its own would: workers hold a copy of it."""

    targets = GIVEN

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return {"target": self.targets[index], "index": index}


def test_persistent_workers_see_a_change_at_once():
    data = Samples()
    store = LabelStore(data.targets, num_classes=7)
    loader = DataLoader(
        data, batch_size=3, num_workers=1, persistent_workers=True, prefetch_factor=4
    )
    for epoch in range(3):
        for step, batch in enumerate(loader):
            # The other batches of the epoch lie ready in the worker by now.
            expected = (batch["target"] + epoch) % 7 if step == 0 else (batch["target"] + epoch + 1)
            assert torch.equal(store(batch["index"]), expected % 7)
            if step == 0:
                everyone = torch.arange(len(data))
                store.update(everyone, (store() + 1) % 7, step=step, epoch=epoch)
    assert torch.equal(store(), (GIVEN + 3) % 7)
