"""Copy networks, also after a forward."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def independent_copy(module: _Module) -> _Module:
    """Return a deep copy, even if a forward has left tensors with gradients on the module.

    torch cannot deep-copy such tensors, and some of timm's networks (LeViT, TinyViT) keep the
    attention biases of the last evaluation. The copy has their values.
    """
    kept = (each for part in module.modules() for each in _tensors(vars(part)))
    memo: dict[int, object] = {id(each): each.detach().clone() for each in kept if not each.is_leaf}
    return copy.deepcopy(module, memo)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
