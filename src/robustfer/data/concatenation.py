"""The row of a sample where torch's ``ConcatDataset`` puts data sets end to end."""

from __future__ import annotations

import sys

from torch.utils.data import ConcatDataset

_ASKED_BY_CONCATENATION = ConcatDataset.__getitem__.__code__


def row_in_concatenation(row: int) -> int:
    """Return the row that a data set was asked for, counted as the outermost ``ConcatDataset`` does.

    To be called by ``__getitem__`` of a data set. A ``ConcatDataset`` asks each of its data sets for
    rows from 0 on, and tells it nothing of those before it: only the call itself knows. Without
    this, ``index`` of two samples would be the same, and a ``LabelStore`` would give one the label
    of the other.

    Raises:
        TypeError: something between the two asks for other rows, as torch's ``Subset`` does.
    """  # noqa: E501 - the first line
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_name == "__getitem__":
        if frame.f_code is _ASKED_BY_CONCATENATION:
            asked = frame.f_locals
            if asked.get("sample_idx") != row or "idx" not in asked:
                raise TypeError(
                    "index cannot be told where torch's ConcatDataset holds a Subset or another "
                    "selection of rows; concatenate dataset.subset(rows)"
                )
            row = asked["idx"]
        if frame.f_back is None:
            break
        frame = frame.f_back
    return row
