"""Find the row of a sample in torch's ``ConcatDataset``."""

from __future__ import annotations

import sys
from types import FrameType

from torch.utils.data import ConcatDataset

_CONCATENATION = ConcatDataset.__getitem__.__code__


def row_in_concatenation(row: int) -> int:
    """Return the row in the outermost ``ConcatDataset``. Call it in a data set's ``__getitem__``.

    A ``ConcatDataset`` passes each of its data sets a row of that data set. Only the frame of its
    own call has the row of the whole. Without it two samples would share an ``index``, and a label
    in a ``LabelStore``.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__getitem__":
        if frame.f_code is _CONCATENATION:
            asked = frame.f_locals
            if asked.get("sample_idx") != row or "idx" not in asked:
                raise TypeError(
                    "index is unknown: torch's ConcatDataset contains a Subset, or a wrapper that "
                    "changes rows; concatenate dataset.subset(rows), and wrap the result"
                )
            row = asked["idx"]
        frame = frame.f_back
    return row
