"""Keep a running average of the predictions for each sample, the state of both losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robustfer.authoring import (
    NeverHalf,
    check_range,
    check_shapes,
    check_whole_number,
    load_whole,
    read_rows,
    write_rows,
)
from robustfer_elr.functional import moved_early_target

# How far the sum of a row can be above 1 after many steps in float32.
_ROUNDING = 1e-4


class EarlyTargets(NeverHalf):
    """Hold averages that start at 0. See :func:`~robustfer_elr.functional.moved_early_target`."""

    early_targets: Tensor

    def __init__(self, *, num_samples: int, num_classes: int, decay: float) -> None:
        super().__init__()
        self.num_samples = check_whole_number("num_samples", num_samples, 1)
        self.num_classes = check_whole_number("num_classes", num_classes, 2)
        self.decay = check_range("decay", decay, 0.0, 1.0, open_high=True)
        averages = torch.zeros(
            self.num_samples, self.num_classes, dtype=torch.float32, device="cpu"
        )
        self.register_buffer("early_targets", averages)
        load_whole(self, _check_saved)

    def propose(self, logits: Tensor, index: Tensor) -> Tensor:
        """Return the averages with the new predictions of a batch. This writes nothing.

        Args:
            logits: scores of the classes, ``(B, C)``.
            index: rows of the samples in the data set, ``(B)`` int64.

        Raises:
            IndexError: an index is outside the data set (on CUDA a device-side assertion).
            ValueError: an argument does not fit.
        """
        check_shapes(logits=(logits, f"B* {self.num_classes}"), index=(index, "B*"))
        old = read_rows(self.early_targets, index)
        return moved_early_target(old, logits, decay=self.decay)

    def update(self, index: Tensor, early_target: Tensor, *, gather: bool = True) -> None:
        """Write the result of :meth:`propose`. Call it after the optimizer's step.

        It does not synchronise with the GPU.

        Args:
            index: rows of the samples in the data set, ``(B)`` int64. If a sample comes twice, its
                last row wins.
            early_target: the result of ``propose`` for them, ``(B, C)``.
            gather: join the rows of all processes. Each must then call this at the same point. With
                one process it has no effect.

        Raises:
            IndexError: an index is outside the data set (on CUDA a device-side assertion).
            TypeError: ``gather`` is not a bool.
            ValueError: an argument does not fit.
        """
        write_rows(self.early_targets, index, early_target, name="early_target", gather=gather)

    def extra_repr(self) -> str:
        return f"{self.num_samples} samples, num_classes={self.num_classes}, decay={self.decay}"


def _check_saved(loss: EarlyTargets, saved: Mapping[str, Tensor]) -> None:
    rows = saved["early_targets"]
    # NaN is neither.
    fits = (rows >= 0).all(dim=1) & (rows.sum(dim=1) <= 1 + _ROUNDING)
    if not bool(fits.all()):
        row = int(fits.logical_not().nonzero()[0])
        raise ValueError(
            "early_targets must be averages of probabilities, at least 0 with a sum of at most 1, "
            f"got {rows[row].tolist()} for sample {row}"
        )
