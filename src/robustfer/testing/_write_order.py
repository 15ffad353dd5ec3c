"""Write rows in another order, as a GPU can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_INDEX_PUT = (_aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default)
_INDEX_COPY = (_aten.index_copy.default, _aten.index_copy_.default)
_SCATTER = (_aten.scatter.src, _aten.scatter_.src)


@contextmanager
def writing_backwards() -> Iterator[None]:
    """Write the rows of indexed writes from the last to the first.

    A CPU writes them in order: the last row of a repeated index stays. A GPU writes in any order.
    """
    with _Backwards():  # type: ignore[no-untyped-call]
        yield


class _Backwards(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Reverse the rows of writes, except of writes that add."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _INDEX_COPY:
            tensor, dim, index, source = args
            args = (tensor, dim, index.flip(0), source.flip(dim))
        elif func in _SCATTER:
            tensor, dim, index, source = args
            # scatter ignores rows beyond the index.
            source = source.narrow(dim, 0, index.shape[dim])
            args = (tensor, dim, index.flip(dim), source.flip(dim))
        elif func in _INDEX_PUT and not any(args[3:4]):
            args = (args[0], *_turned(*args[1:3]), *args[3:])
        return func(*args, **(kwargs or {}))


def _turned(indices: list[Tensor | None], values: Tensor) -> tuple[list[Tensor | None], Tensor]:
    """Return a write by one index of rows reversed, and any other write unchanged."""
    index = indices[0]
    single = index is not None and all(other is None for other in indices[1:])
    if not single or index is None or index.ndim != 1 or index.dtype == torch.bool:
        return indices, values
    spread = values.ndim == 0 or len(values) != len(index)
    return [index.flip(0), *indices[1:]], values if spread else values.flip(0)
