"""Labels and rows as users have them: tensors, numpy arrays or lists."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def to_tensor(name: str, values: Tensor | ArrayLike) -> Tensor:
    """Return numbers as a tensor on the CPU, in memory of its own; whole numbers as int64.

    >>> to_tensor("targets", np.arange(3, dtype=">i2")[::-1])
    tensor([2, 1, 0])
    >>> to_tensor("targets", ["happy", "sad"])
    Traceback (most recent call last):
    ...
    TypeError: targets must be a torch.Tensor, a numpy array or a list of numbers, got list of str
    """
    if isinstance(values, Tensor):
        tensor = values.detach().to("cpu", copy=True)
    else:
        try:
            array = np.asarray(values)
        except ValueError:  # rows of several lengths
            array = np.empty(0, dtype=object)
        if array.dtype.kind not in "biuf":
            first = f" of {type(values[0]).__name__}" if isinstance(values, list) and values else ""
            raise TypeError(
                f"{name} must be a torch.Tensor, a numpy array or a list of numbers, got "
                f"{type(values).__name__}{first}"
            )
        native = array.dtype.newbyteorder("=")
        tensor = torch.from_numpy(np.array(array, dtype=native, order="C"))
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    return tensor.to(torch.int64) if whole else tensor
