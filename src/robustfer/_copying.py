"""Copies of networks that have run before."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def independent_copy(module: _Module) -> _Module:
    """Return a deep copy, also where a forward has left results on the module.

    torch copies no tensor that a gradient flows through, and some of timm's networks (LeViT,
    TinyViT) keep such ones: the attention biases of the last evaluation. The copy has their values.
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
