"""Labels that training may change: given labels, current labels, and a journal to undo changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor

from robustfer._checks import check_bool, check_distribution, check_whole_number
from robustfer._dtypes import NeverHalf
from robustfer._saved_state import load_whole
from robustfer.state import _label_checks as checks
from robustfer.state._change_journal import ChangeJournal, ChangeReason
from robustfer.state._distributed import gather_in_rank_order
from robustfer.state._rows import last_of_each, one_hot, select_rows


class LabelDecisions(Protocol):
    """What :meth:`LabelStore.apply_decisions` takes: tensors of one length, one row per sample."""

    @property
    def index(self) -> Tensor:
        """Rows of the samples in the data set, int64."""

    @property
    def label(self) -> Tensor:
        """The decided labels, int64; -1 keeps the current label."""

    @property
    def given(self) -> Tensor:
        """The given labels of the data set, int64."""


class LabelStore(NeverHalf):
    """Keep the current label of each sample, which a method may change.

    A label changed in the data set itself would be seen late or never: the workers of a data loader
    hold copies. The store stays in the main process. Begin each step with
    ``batch["target"] = labels(batch["index"])``. Call :meth:`update` after the optimizer's step.

    Call the store with rows to get their current labels, ``(B)`` int64, or without rows to get all
    labels.

    Labels that a person decided are marked: all rows of :meth:`apply_decisions`, confirmed ones
    too, and all rows of an :meth:`update` with reason ``MANUAL``. A :class:`Relabeler` never
    changes them. :meth:`revert` removes the marks.

    A sample takes 5 bytes (7 with more than 256 classes), and with ``soft_targets`` 2 more per
    class (4 if distributions were given). A change in the journal takes 28 bytes (30), and with
    ``soft_targets`` 2 more per class. All of it is in the ``state_dict``.

    With several processes each holds the whole store, outside ``DistributedDataParallel``.
    :meth:`update` joins the rows of all in rank order. Each store equals that of one process on the
    joined batch.

    Args:
        given: labels of the data set, ``(N)`` integers; with ``soft_targets`` also ``(N, C)``
            probabilities, whose greatest is the given label.
        num_classes: number of classes, 2 to 32,768.
        soft_targets: also keep a distribution per sample, in float16.
        journal_capacity: number of changes that the journal can hold.

    Shape:
        index ``(B)`` int64, on the store's device or on the CPU -> labels ``(B)`` int64.

    Raises:
        TypeError: ``given`` or ``index`` is not a tensor.
        ValueError: a label is not a class, or an argument does not fit.
        IndexError: an index is outside the data set (on CUDA a device-side assertion).

    >>> labels = LabelStore(torch.tensor([0, 4, 4, 6]), num_classes=7)
    >>> index = torch.tensor([1, 3])
    >>> labels(index)
    tensor([4, 6])
    >>> labels.update(index, torch.tensor([2, 6]), step=10, epoch=1)  # how many changed
    1
    >>> labels(index), labels.given(index)
    (tensor([2, 6]), tensor([4, 6]))
    >>> labels.revert()
    1
    >>> labels.counts()
    {'samples': 4, 'changed': 0, 'changed_back': 1, 'journalled': 2, 'dropped': 0}
    """

    __call__: Callable[..., Tensor]
    label_given: Tensor
    label_current: Tensor
    label_epoch: Tensor
    label_decided: Tensor
    soft_given: Tensor | None
    soft_current: Tensor | None

    def __init__(
        self,
        given: Tensor,
        *,
        num_classes: int,
        soft_targets: bool = False,
        journal_capacity: int = 65_536,
    ) -> None:
        super().__init__()
        self.num_classes = check_whole_number("num_classes", num_classes, 2, 2**15)
        check_bool("soft_targets", soft_targets)
        capacity = check_whole_number("journal_capacity", journal_capacity, 1, 2**40)
        labels, rows = checks.given_labels(given, self.num_classes, soft_targets)
        self.num_samples = len(labels)
        self.register_buffer("label_given", labels)
        self.register_buffer("label_current", self.label_given.clone())
        self.register_buffer("label_epoch", torch.full_like(labels, -1, dtype=torch.int16))
        self.register_buffer("label_decided", torch.zeros_like(labels, dtype=torch.bool))
        # None for hard labels, whose distributions are one-hot.
        self.register_buffer("soft_given", rows)
        self.register_buffer("soft_current", self._given_rows().clone() if soft_targets else None)
        journal = ChangeJournal(capacity, labels, self.num_classes if soft_targets else 0)
        # "history" in saved states, because journal() is a public method.
        self.add_module("history", journal)
        load_whole(self, _check_saved)

    @property
    def _journal(self) -> ChangeJournal:
        return cast("ChangeJournal", self._modules["history"])

    def forward(self, index: Tensor | None = None) -> Tensor:
        return self._look_up(self.label_current, index).to(torch.int64)

    def given(self, index: Tensor | None = None) -> Tensor:
        """Return the given labels, of all samples or of the rows in ``index``."""
        return self._look_up(self.label_given, index).to(torch.int64)

    def changed_epoch(self, index: Tensor | None = None) -> Tensor:
        """Return the epoch in which each label last changed, of all samples or of ``index``.

        It is -1 for a label that never changed. A new soft target with the same label is not a
        change of the label.
        """
        return self._look_up(self.label_epoch, index).to(torch.int64)

    def decided(self, index: Tensor | None = None) -> Tensor:
        """Return which labels a person decided, bool, of all samples or of the rows in ``index``.

        A label that a person confirmed is decided too.
        """
        return self._look_up(self.label_decided, index).clone()

    def soft_target(self, index: Tensor | None = None) -> Tensor:
        """Return the current distributions, ``(B, C)`` float32, of all samples or of ``index``.

        Rows sum to 1. They are one-hot if the store was made without ``soft_targets``.
        """
        if self.soft_current is None:
            return one_hot(self(index), self.num_classes, torch.float32)
        rows = self._look_up(self.soft_current, index).float()
        # float16 has rounded the rows.
        return rows / rows.sum(dim=1, keepdim=True)

    @torch.no_grad()
    def update(
        self,
        index: Tensor,
        target: Tensor,
        *,
        step: int,
        epoch: int,
        reason: int = ChangeReason.RELABELLED,
        confidence: Tensor | None = None,
        gather: bool = True,
    ) -> int:
        """Set labels, and write changes into the journal. Call it after the optimizer's step.

        Setting a label to its current value is a no-op: nothing is journalled and the soft target
        is kept. If a sample comes twice, its last row wins. Everything is checked before anything
        is written. That costs one synchronisation, one more for soft rows, and one more to join
        processes.

        Args:
            index: rows of the data set ``(B)`` int64; may be empty.
            target: new labels ``(B)`` int64; with ``soft_targets`` also ``(B, C)`` probabilities,
                whose greatest becomes the label.
            step: number of the optimizer's step, for the journal.
            epoch: number of the epoch, 0 to 32,767.
            reason: a :class:`ChangeReason`, or your own code up to 255. ``MANUAL`` marks all rows
                as decided by a person, also unchanged ones.
            confidence: ``(B)`` in [0, 1], for the journal; NaN if unknown.
            gather: join the rows of all processes. Each must then call this at the same point. With
                one process it has no effect.

        Returns:
            Number of changed samples, also of those whose soft target changed only.

        Raises:
            IndexError: an index is outside the data set.
            TypeError: an argument is not a tensor, or ``gather`` is not a bool.
            ValueError: a label is not a class, or an argument does not fit.
        """
        check_bool("gather", gather)
        step, epoch, reason = checks.when_and_why(step, epoch, reason)
        checks.check_index(index)
        checks.check_labels(target, len(index), self.num_classes, self.soft_current is not None)
        if confidence is None:
            confidence = _unknown(index)
        checks.check_confidence(confidence, len(index))
        device = self.label_current.device
        index, target = index.to(device), target.to(device)
        confidence = confidence.to(device, torch.float32)
        if gather:
            # Values are checked after joining, so a bad one stops every process and none hangs.
            index, target, confidence = gather_in_rank_order(index, target, confidence)
        labels, rows = target, None
        if target.ndim == 2:
            check_distribution(target=target)
            labels, rows = target.argmax(dim=1), target.to(torch.float16)
        elif self.soft_current is not None:
            rows = one_hot(target, self.num_classes, torch.float16)
            inside = index.clamp(0, self.num_samples - 1)
            # An unchanged label keeps its distribution.
            keeps = target == self.label_current[inside]
            rows = torch.where(keeps[:, None], self.soft_current[inside], rows)
        decided = True if reason == ChangeReason.MANUAL else None
        return self._change(
            index,
            labels,
            rows,
            confidence,
            step=step,
            epoch=epoch,
            reason=reason,
            decided=decided,
        )

    def apply_decisions(
        self, decisions: LabelDecisions, *, step: int | None = None, epoch: int | None = None
    ) -> int:
        """Set the labels that people decided on, such as :class:`robustfer.audit.Decisions`.

        A :class:`Relabeler` keeps decided labels, confirmed ones too. An ambiguous sample keeps its
        label and stays undecided. The changes are written into the journal with reason ``MANUAL``.
        ``revert(decisions.index)`` undoes them. With several processes call it in each.

        Args:
            decisions: rows of the data set, the decided labels, and the given labels at the review.
            step: the step, for the journal; default: that of the latest change.
            epoch: the epoch, for the journal; default: that of the latest change.

        Returns:
            Number of changed samples.

        Raises:
            IndexError: an index is outside the data set.
            ValueError: the given labels of the decisions differ, or an argument does not fit.
        """
        given = self.given(decisions.index)
        differ = (given != decisions.given.to(given.device)).nonzero()
        if len(differ):
            # The rows may be on another device than the store.
            first = int(decisions.index[int(differ[0])])
            raise ValueError(
                f"decisions must have the given labels of the store, but {len(differ)} of "
                f"{len(given)} differ, the first at index {first}; apply them to the data set, "
                "split and label noise that were reviewed"
            )
        latest_step, latest_epoch = self._journal.latest()
        decided = decisions.label >= 0
        return self.update(
            decisions.index[decided],
            decisions.label[decided],
            step=latest_step if step is None else step,
            epoch=latest_epoch if epoch is None else epoch,
            reason=ChangeReason.MANUAL,
            gather=False,
        )

    @torch.no_grad()
    def revert(
        self, index: Tensor | None = None, *, step: int | None = None, epoch: int | None = None
    ) -> int:
        """Go back to the given labels, even if the journal has dropped their changes.

        The rows count as undecided from then on. The journal gets one row per reverted label, with
        reason ``REVERTED``. With several processes call it in each, for the same rows.

        Args:
            index: rows of the data set ``(B)`` int64; default: all.
            step: the step, for the journal; default: that of the latest change.
            epoch: the epoch, for the journal; default: that of the latest change.

        Returns:
            Number of changed samples.

        Raises:
            IndexError: an index is outside the data set.
            ValueError: an argument does not fit.
        """
        latest_step, latest_epoch = self._journal.latest()
        step, epoch, reason = checks.when_and_why(
            latest_step if step is None else step,
            latest_epoch if epoch is None else epoch,
            ChangeReason.REVERTED,
        )
        if index is None:
            changed = self.changed() | self.label_decided
            if self.soft_current is not None:
                changed |= (self.soft_current != self._given_rows()).any(dim=1)
            index = changed.nonzero()[:, 0]
        checks.check_index(index)
        index = index.to(self.label_given.device)
        inside = index.clamp(0, self.num_samples - 1)
        labels = self.label_given[inside].to(torch.int64)
        rows = None if self.soft_current is None else self._given_rows(inside)
        return self._change(
            index,
            labels,
            rows,
            _unknown(index),
            step=step,
            epoch=epoch,
            reason=reason,
            decided=False,
        )

    @torch.no_grad()
    def revert_to_epoch(self, epoch: int) -> int:
        """Go back to the end of ``epoch``, as if training had stopped there.

        This undoes changes from the newest back to the last one not later than ``epoch``, and
        restores :meth:`changed_epoch`, and :meth:`decided` of the samples it changes. The changes
        stay in the journal, which gets one row per changed sample with reason ``REWOUND`` and that
        epoch. With several processes call it in each.

        Returns:
            Number of changed samples.

        Raises:
            ValueError: the epoch is no longer in the journal; nothing is changed.
        """
        journal = self._journal
        step, epoch, reason = checks.when_and_why(journal.latest()[0], epoch, ChangeReason.REWOUND)
        # Newest first: the last row of a sample wins, and holds its oldest label.
        slots = journal.slots_after(epoch)
        index = journal.index[slots]
        return self._change(
            index,
            journal.label_from[slots].to(torch.int64),
            None if journal.soft_before is None else journal.soft_before[slots],
            _unknown(index),
            step=step,
            epoch=epoch,
            reason=reason,
            changed_epoch=journal.epoch_before[slots],
            decided=journal.decided_before[slots],
        )

    def changed(self) -> Tensor:
        """Return which current labels differ from the given ones, ``(N)`` bool."""
        return self.label_current != self.label_given

    def transitions(self) -> Tensor:
        """Return counts of given (row) and current (column) labels, ``(C, C)``."""
        pairs = self.label_given.to(torch.int32) * self.num_classes + self.label_current
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes)

    def counts(self) -> dict[str, int]:
        """Return counts for a log.

        ``changed`` labels differ from the given ones. ``changed_back`` labels had changed and are
        the given ones again. Of all ``journalled`` changes, also those of soft targets only, the
        journal has ``dropped`` the oldest.
        """
        changed = self.changed()
        return {
            "samples": self.num_samples,
            "changed": int(changed.sum()),
            "changed_back": int((~changed & (self.label_epoch >= 0)).sum()),
            "journalled": int(self._journal.written),
            "dropped": self._journal.dropped,
        }

    def journal(self) -> dict[str, Tensor]:
        """Return the changes that the journal holds, oldest first, as columns on the CPU.

        ``step``, ``epoch``, ``index``, ``from``, ``to`` and ``reason`` are int64. ``confidence`` is
        float32, NaN if unknown. If only the soft target changed, ``from`` equals ``to``.
        """
        return self._journal.table()

    def write_journal(
        self,
        path: str | Path,
        *,
        classes: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Write :meth:`journal` as a csv file, whole or not at all.

        A name that a spreadsheet would run as a formula (``=2+3.png``) gets an apostrophe in front.

        Args:
            path: the file, which is replaced if it exists. Its folder is made if needed.
            classes: names to write instead of class numbers.
            ids: names of the samples, for a column ``id``.

        Raises:
            ValueError: there is not one name per class, or not one per sample.
        """
        checks.check_names("classes", classes, self.num_classes)
        checks.check_names("ids", ids, self.num_samples)
        self._journal.write(path, classes, ids)

    def extra_repr(self) -> str:
        return (
            f"{self.num_samples} samples, num_classes={self.num_classes}, "
            f"soft_targets={self.soft_current is not None}, "
            f"journal_capacity={self._journal.capacity}"
        )

    def _change(
        self,
        index: Tensor,
        labels: Tensor,
        rows: Tensor | None,
        confidence: Tensor,
        *,
        step: int,
        epoch: int,
        reason: int,
        changed_epoch: Tensor | None = None,
        decided: bool | Tensor | None = None,
    ) -> int:
        # The only place that writes. Everything is checked before the first write, and the only
        # wait is `tolist`. `changed_epoch`, if given, replaces the epoch of the change. `decided`,
        # if given, marks all rows, also unchanged ones.
        inside = index.clamp(0, self.num_samples - 1)
        before = {
            "label_from": self.label_current[inside],
            "epoch_before": self.label_epoch[inside],
            "decided_before": self.label_decided[inside],
        }
        writes = labels != before["label_from"]
        if rows is not None and self.soft_current is not None:
            before["soft_before"] = self.soft_current[inside]
            writes |= (rows != before["soft_before"]).any(dim=1)
        if changed_epoch is not None:
            writes |= changed_epoch != before["epoch_before"]
        last = last_of_each(index)
        writes &= last
        bad = (inside != index) | (labels < 0) | (labels >= self.num_classes)
        bad |= (confidence < 0) | (confidence > 1)
        findings = torch.stack((bad.any(), writes.sum(), self._journal.written))
        any_bad, count, written = map(int, findings.tolist())
        if any_bad:
            checks.check_change(index, labels, confidence, self.num_samples, self.num_classes)
        if isinstance(decided, Tensor):
            self.label_decided[index[last]] = decided[last]
        elif decided is not None:
            self.label_decided[index] = decided
        if not count:
            return 0
        # The rows to write, in the order of the batch. `nonzero` would wait once more.
        order = (~writes).to(torch.uint8).argsort(stable=True)[:count]
        index, labels = index[order], labels[order].to(self.label_current.dtype)
        before = {name: values[order] for name, values in before.items()}
        if changed_epoch is None:
            # A new soft target with the same label is not a change of the label.
            moves = labels != before["label_from"]
            epochs = torch.where(moves, epoch, before["epoch_before"])
        else:
            epochs = changed_epoch[order]
        self.label_current[index] = labels
        self.label_epoch[index] = epochs
        if rows is not None and self.soft_current is not None:
            self.soft_current[index] = rows[order].to(self.soft_current.dtype)
        self._journal.append(
            written,
            count,
            step=step,
            epoch=epoch,
            index=index,
            label_to=labels,
            reason=reason,
            confidence=confidence[order],
            **before,
        )
        return count

    def _look_up(self, buffer: Tensor, index: Tensor | None) -> Tensor:
        if index is None:
            return buffer
        checks.check_index(index)
        if index.device != buffer.device:
            if index.device.type != "cpu":
                raise ValueError(
                    f"index is on {index.device} but the store is on {buffer.device}; look up "
                    "labels before moving the batch, or move the store"
                )
            index = index.to(buffer.device, non_blocking=True)
        return select_rows(buffer, index)

    def _given_rows(self, index: Tensor | None = None) -> Tensor:
        if self.soft_given is not None:
            return self.soft_given if index is None else self.soft_given[index]
        labels = self.label_given if index is None else self.label_given[index]
        return one_hot(labels, self.num_classes, torch.float16)


def _check_saved(store: LabelStore, saved: Mapping[str, Tensor]) -> None:
    for name, own in (("label_given", store.label_given), ("soft_given", store.soft_given)):
        if own is not None:
            checks.check_same_given(name, saved, own)
    checks.check_saved(saved, store.num_samples, store.num_classes)


def _unknown(index: Tensor) -> Tensor:
    return torch.full(index.shape, float("nan"), device=index.device)
