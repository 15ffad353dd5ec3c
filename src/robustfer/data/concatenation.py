"""The row of a sample where torch's ``ConcatDataset`` puts data sets end to end."""

from __future__ import annotations

import sys
from types import FrameType

from torch.utils.data import ConcatDataset

_CONCATENATION = ConcatDataset.__getitem__.__code__


def row_in_concatenation(row: int) -> int:
    """Return a row as the outermost ``ConcatDataset`` counts it, for a data set's ``__getitem__``.

    A ``ConcatDataset`` asks each of its data sets for rows from 0 on; only its own call knows the
    row of the whole. Else two samples would have one ``index``, and one label in a ``LabelStore``.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__getitem__":
        if frame.f_code is _CONCATENATION:
            asked = frame.f_locals
            if asked.get("sample_idx") != row or "idx" not in asked:
                raise TypeError(
                    "index cannot be told where torch's ConcatDataset holds a Subset or a wrapper "
                    "that reorders rows; concatenate dataset.subset(rows), and wrap the whole"
                )
            row = asked["idx"]
        frame = frame.f_back
    return row
