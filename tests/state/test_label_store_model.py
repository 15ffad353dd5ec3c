"""The label store against a plain-Python model that keeps the whole history."""

import io
import warnings
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from robustfer.state import ChangeReason, LabelStore

N, C, CAPACITY = 6, 3, 8
# In quarters, which float16 holds exactly; the greatest of each is its label.
ROWS = ((1.0, 0.0, 0.0), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.0, 1.0, 0.0), (0.0, 0.25, 0.75))


def label_of(row):
    return row.index(max(row))


@dataclass
class Change:
    step: int
    epoch: int
    index: int
    before: tuple
    after: tuple
    reason: int
    confidence: float | None
    epoch_before: int


@dataclass
class Model:
    """Rows and the whole history; a label is a one-hot row."""

    given: list
    rows: list = field(init=False)
    epochs: list = field(init=False)
    history: list = field(default_factory=list)

    def __post_init__(self):
        self.rows, self.epochs = list(self.given), [-1] * len(self.given)

    def update(self, changes, *, step, epoch, reason):
        last = {index: (place, row, sure) for place, (index, row, sure) in enumerate(changes)}
        count = 0
        for index, (_, row, sure) in sorted(last.items(), key=lambda item: item[1][0]):
            if row != self.rows[index]:
                # A new row with the same label leaves the epoch of the label as it is.
                moves = label_of(row) != label_of(self.rows[index])
                changed = epoch if moves else self.epochs[index]
                self.write(index, row, changed, step, epoch, reason, sure)
                count += 1
        return count

    def with_label(self, index, label):
        now = self.rows[index]
        return now if label_of(now) == label else tuple(float(c == label) for c in range(C))

    def write(self, index, row, changed, step, epoch, reason, sure=None):
        before = self.rows[index], self.epochs[index]
        change = Change(step, epoch, index, before[0], row, reason, sure, before[1])
        self.history.append(change)
        self.rows[index], self.epochs[index] = row, changed

    def rewind(self, epoch, step):
        """Undo one change after the other; None where a change needed was dropped."""
        undone, target = [], {}
        for place in range(len(self.history) - 1, -1, -1):
            change = self.history[place]
            if change.epoch <= epoch:
                break
            if place < len(self.history) - CAPACITY:
                return None
            undone.append(change)
        if len(undone) == CAPACITY < len(self.history):
            return None  # the next one is dropped, and nobody knows its epoch any more
        for change in undone:
            target.pop(change.index, None)  # in the order of the oldest change
            target[change.index] = change
        count = 0
        for change in target.values():
            i, row, before = change.index, change.before, change.epoch_before
            if (row, before) != (self.rows[i], self.epochs[i]):
                self.write(i, row, before, step, epoch, ChangeReason.REWOUND)
                count += 1
        return count

    def latest(self):
        return (self.history[-1].step, self.history[-1].epoch) if self.history else (0, 0)


class HardStore(RuleBasedStateMachine):
    soft = False
    choices = tuple(tuple(float(c == label) for c in range(C)) for label in range(C))

    @initialize(data=st.data())
    def make(self, data):
        self.rows = st.sampled_from(self.choices)
        given = data.draw(st.lists(self.rows, min_size=N, max_size=N))
        self.given = torch.tensor(given)
        self.model, self.store = Model(given), self.fresh()
        self.step, self.epoch, self.warned = 0, 0, 0

    def fresh(self):
        given = self.given if self.soft else self.given.argmax(1)
        return LabelStore(given, num_classes=C, soft_targets=self.soft, journal_capacity=CAPACITY)

    def warns(self, function, *arguments, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = function(*arguments, **options)
        assert all("journal of label changes is full" in str(w.message) for w in caught)
        self.warned += len(caught)
        return result

    @rule(data=st.data(), reason=st.sampled_from([1, 2, 200]), known=st.booleans())
    def update(self, data, reason, known):
        sure = st.sampled_from([0.0, 0.25, 1.0]) if known else st.none()
        batch = st.lists(st.tuples(st.integers(0, N - 1), self.rows, sure), max_size=14)
        changes = data.draw(batch)
        index, rows, confidence = zip(*changes, strict=True) if changes else ((), (), ())
        target = torch.tensor(rows).reshape(-1, C)
        if not self.soft or data.draw(st.booleans()):
            # Labels, in a store of soft targets too: there new ones become one-hot rows.
            target = target.argmax(1)
            changes = [(i, self.model.with_label(i, label_of(row)), s) for i, row, s in changes]
        self.step += 1
        time = {"step": self.step, "epoch": self.epoch, "reason": reason}
        changed = self.warns(
            self.store.update,
            torch.tensor(index, dtype=torch.int64),
            target,
            confidence=torch.tensor(confidence) if known and changes else None,
            **time,
        )
        assert changed == self.model.update(changes, **time)

    @rule()
    def next_epoch(self):
        self.epoch += 1

    @rule(chosen=st.none() | st.lists(st.integers(0, N - 1), max_size=8), now=st.booleans())
    def revert(self, chosen, now):
        index = None if chosen is None else torch.tensor(chosen, dtype=torch.int64)
        time = {"step": self.step, "epoch": self.epoch} if now else {}
        step, epoch = (self.step, self.epoch) if now else self.model.latest()
        rows = [(i, self.model.given[i], None) for i in (range(N) if chosen is None else chosen)]
        expected = self.model.update(rows, step=step, epoch=epoch, reason=ChangeReason.REVERTED)
        assert self.warns(self.store.revert, index, **time) == expected

    @rule(back=st.integers(0, 3))
    def revert_to_epoch(self, back):
        epoch = max(self.epoch - back, 0)
        expected = self.model.rewind(epoch, self.model.latest()[0])
        if expected is None:
            with pytest.raises(ValueError, match=f"epoch {epoch} is no longer in the journal"):
                self.store.revert_to_epoch(epoch)
            return
        assert self.warns(self.store.revert_to_epoch, epoch) == expected
        self.epoch = epoch

    @rule()
    def save_and_load(self):
        file = io.BytesIO()
        torch.save(self.store.state_dict(), file)
        file.seek(0)
        self.store = self.fresh()
        self.store.load_state_dict(torch.load(file, weights_only=True))

    @invariant()
    def agree(self):
        model, store = self.model, self.store
        labels, given = [label_of(row) for row in model.rows], [label_of(r) for r in model.given]
        assert store().tolist() == labels
        assert store.given().tolist() == given
        assert store.soft_target().tolist() == [list(row) for row in model.rows]
        assert store.changed_epoch().tolist() == model.epochs
        assert store.changed().tolist() == [a != b for a, b in zip(labels, given, strict=True)]
        dropped = max(len(model.history) - CAPACITY, 0)
        assert self.warned == (dropped > 0)
        assert store.counts() == {
            "samples": N,
            "changed": sum(a != b for a, b in zip(labels, given, strict=True)),
            "changed_back": sum(
                a == b and e >= 0 for a, b, e in zip(labels, given, model.epochs, strict=True)
            ),
            "journalled": len(model.history),
            "dropped": dropped,
        }
        transitions = torch.zeros(C, C, dtype=torch.int64)
        for pair in zip(given, labels, strict=True):
            transitions[pair] += 1
        assert torch.equal(store.transitions(), transitions)

    @invariant()
    def journals_agree(self):
        table = {name: column.tolist() for name, column in self.store.journal().items()}
        table["confidence"] = [None if sure != sure else sure for sure in table["confidence"]]
        held = self.model.history[-CAPACITY:]
        assert table == {
            "step": [change.step for change in held],
            "epoch": [change.epoch for change in held],
            "index": [change.index for change in held],
            "from": [label_of(change.before) for change in held],
            "to": [label_of(change.after) for change in held],
            "reason": [change.reason for change in held],
            "confidence": [change.confidence for change in held],
        }


class SoftStore(HardStore):
    soft = True
    choices = ROWS


for machine in (HardStore, SoftStore):
    machine.TestCase.settings = settings(deadline=None, max_examples=25, stateful_step_count=30)
TestHardStore = HardStore.TestCase
TestSoftStore = SoftStore.TestCase
