"""Find code that would make the host wait for a GPU, on a machine without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


@contextmanager
def refused_host_synchronisation() -> Iterator[None]:
    """Raise an AssertionError at an operation that would make the host wait for a GPU.

    On a CPU nothing waits. So it refuses operations that need a value (``.item()``, ``if tensor``),
    or a size that depends on values (``nonzero``, a boolean index).
    """
    with _RefusedCopies(), _RefusedValues():  # type: ignore[no-untyped-call]
        yield


class _RefusedValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuse operations whose result, or its size, the host knows only after waiting."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not _waits(func, args), (
            f"{func} makes the host wait for a value on a GPU; replace .item(), `if tensor` and "
            "boolean indices by torch.where, masks and sums"
        )
        return func(*args, **(kwargs or {}))


class _RefusedCopies(TorchFunctionMode):
    """Refuse copies to the host. On a CPU they run no operation that could be seen."""

    _copies = (Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in self._copies, (
            f"Tensor.{func.__name__} copies to the host and waits for a GPU; stay on the device"
        )
        named = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, str)]
        assert func is not Tensor.to or "cpu" not in named, (
            'Tensor.to("cpu") copies to the host and waits for a GPU; stay on the device'
        )
        if func is F.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    # On a CPU torch reads the values to check them. On a GPU it does so only to count the classes.
    assert num_classes > 0, "F.one_hot without num_classes waits for the largest value; pass it"
    return (tensor[..., None] == torch.arange(num_classes, device=tensor.device)).long()


def _waits(func: Any, args: tuple[Any, ...]) -> bool:
    if func is torch.ops.aten.index.Tensor:
        return _any_mask(args[1])
    if func in (torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default):
        # A single value is a masked fill.
        return _any_mask(args[1]) and args[2].numel() > 1
    tags: set[torch.Tag] = set(func.tags)
    return bool(tags & {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


def _any_mask(indices: list[Tensor | None]) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
