"""A ring buffer of label changes: what changed, when and why, and the value before."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

import torch
from torch import Tensor, nn

from robustfer._files import write_csv


class ChangeReason(IntEnum):
    """Why a label changed.

    ``RELABELLED`` by a method, ``MANUAL`` by a person. The store writes ``REVERTED`` and
    ``REWOUND`` when it undoes changes. Your own method may use any other code up to 255.
    """

    OTHER = 0
    RELABELLED = 1
    MANUAL = 2
    REVERTED = 3
    REWOUND = 4


class ChangeJournal(nn.Module):
    """Hold the latest ``capacity`` changes. A new change replaces the oldest.

    ``written`` counts all changes ever written. Cursor, filled slots and dropped changes follow
    from it.
    """

    written: Tensor
    step: Tensor
    epoch: Tensor
    index: Tensor
    label_from: Tensor
    label_to: Tensor
    reason: Tensor
    confidence: Tensor
    epoch_before: Tensor
    decided_before: Tensor
    soft_before: Tensor | None

    def __init__(self, capacity: int, labels: Tensor, soft_classes: int = 0) -> None:
        super().__init__()
        self.capacity = capacity
        device = labels.device
        self.register_buffer("written", torch.zeros((), dtype=torch.int64, device=device))
        dtypes = {
            "step": torch.int64,
            "epoch": torch.int16,
            "index": torch.int64,
            "label_from": labels.dtype,
            "label_to": labels.dtype,
            "reason": torch.uint8,
            "confidence": torch.float32,
            "epoch_before": torch.int16,
            "decided_before": torch.bool,
        }
        for name, dtype in dtypes.items():
            self.register_buffer(name, torch.zeros(capacity, dtype=dtype, device=device))
        soft = torch.zeros(capacity, soft_classes, dtype=torch.float16, device=device)
        self.register_buffer("soft_before", soft if soft_classes else None)

    @property
    def dropped(self) -> int:
        """Number of changes that later ones have replaced."""
        return max(int(self.written) - self.capacity, 0)

    def append(self, written: int, count: int, **columns: Tensor | int) -> None:
        """Write ``count`` changes; ``written`` is the number so far, already on the host."""
        kept = min(count, self.capacity)
        first = written + count - kept
        slots = torch.arange(first, first + kept, device=self.index.device) % self.capacity
        for name, values in columns.items():
            buffer = getattr(self, name)
            buffer[slots] = values if isinstance(values, int) else values[-kept:].to(buffer.dtype)
        self.written += count
        # The condition uses saved numbers only, so a resumed run does not warn a second time.
        if written <= self.capacity < written + count:
            warnings.warn(
                f"the journal of label changes is full ({self.capacity}) and drops the oldest "
                "from now on; revert() stays exact, but revert_to_epoch() cannot go back beyond "
                "the journal; use a larger journal_capacity, or call write_journal() each epoch",
                stacklevel=5,
            )

    def latest(self) -> tuple[int, int]:
        """Return step and epoch of the latest change, zeros before the first."""
        slot = (int(self.written) - 1) % self.capacity
        return int(self.step[slot]), int(self.epoch[slot])

    def slots_after(self, epoch: int) -> Tensor:
        """Return the slots to undo, newest first, to go back to the end of ``epoch``.

        Raises:
            ValueError: the journal may have dropped changes later than ``epoch``.
        """
        slots = self._slots()
        not_later = (self.epoch[slots] <= epoch).nonzero()
        if not len(not_later) and self.dropped:
            raise ValueError(
                f"epoch {epoch} is no longer in the journal, which goes back to epoch "
                f"{int(self.epoch[slots[0]])} (it holds {self.capacity} changes and dropped "
                f"{self.dropped}); use a larger journal_capacity, or revert() to the given labels"
            )
        first = int(not_later[-1]) + 1 if len(not_later) else 0
        return slots[first:].flip(0)

    def table(self) -> dict[str, Tensor]:
        """Return the changes as columns on the CPU, oldest first."""
        slots = self._slots()
        columns = {
            "step": self.step,
            "epoch": self.epoch,
            "index": self.index,
            "from": self.label_from,
            "to": self.label_to,
            "reason": self.reason,
        }
        table = {name: buffer[slots].to("cpu", torch.int64) for name, buffer in columns.items()}
        return {**table, "confidence": self.confidence[slots].to("cpu", torch.float32)}

    def write(
        self, path: str | Path, classes: Sequence[str] | None, ids: Sequence[str] | None
    ) -> None:
        """Write :meth:`table` as csv, whole or not at all."""
        table, rows = self.table(), []
        for row in zip(*(values.tolist() for values in table.values()), strict=True):
            step, epoch, index, before, after, reason, confidence = row
            names = [before, after] if classes is None else [classes[before], classes[after]]
            line = [step, epoch, index, *names, _reason_name(reason)]
            line.append("" if math.isnan(confidence) else f"{confidence:.6g}")
            rows.append(line if ids is None else [*line, ids[index]])
        write_csv(Path(path), table if ids is None else [*table, "id"], rows)

    def _slots(self) -> Tensor:
        written = int(self.written)
        held = min(written, self.capacity)
        return torch.arange(written - held, written, device=self.index.device) % self.capacity


def _reason_name(code: int) -> str:
    try:
        return ChangeReason(code).name.lower()
    except ValueError:
        return str(code)
