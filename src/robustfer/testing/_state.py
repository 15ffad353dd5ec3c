"""Read the whole state of a module, to compare it before and after."""

from __future__ import annotations

import random
from collections import ChainMap
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_STATELESS = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type)


def state_of(module: nn.Module) -> dict[str, object]:
    """Copy the state of a module, by path: parameters, buffers and plain attributes."""
    registered = (*module.named_parameters(), *module.named_buffers())
    return {path: _copied(leaf) for path, leaf in (*registered, *_plain_leaves(module))}


def plain_tensors(module: nn.Module) -> list[str]:
    """Return the paths of tensors that are neither parameters nor buffers."""
    return [path for path, leaf in _plain_leaves(module) if isinstance(leaf, Tensor)]


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return where two states differ: paths, with both values except for tensors."""
    found = []
    for path in dict(before) | dict(after):
        one, other = before.get(path, "nothing"), after.get(path, "nothing")
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            if not same(one, other):
                found.append(path)
        elif isinstance(one, Tensor) or isinstance(other, Tensor):
            found.append(path)
        elif one != other:
            found.append(f"{path} ({one} -> {other})")
    return found


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal. NaN equals NaN here."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def random_state() -> list[object]:
    """Return the state of torch's, numpy's and Python's global random generators."""
    _, words, *position = np.random.get_state()  # noqa: NPY002 - the global one
    return [torch.get_rng_state().tolist(), list(words), position, random.getstate()]


def _plain_leaves(module: nn.Module) -> Iterator[tuple[str, object]]:
    seen = {id(part) for part in module.modules()}
    for prefix, part in module.named_modules():
        # An attribute of the class is state of every module of the class.
        classes = [dict(vars(one)) for one in type(part).__mro__ if one not in nn.Module.__mro__]
        for name, value in ChainMap(vars(part), *classes).items():
            if name not in _OF_EVERY_MODULE and not name.startswith("__"):
                yield from _leaves(f"{prefix}.{name}" if prefix else name, value, seen)


def _leaves(path: str, value: object, seen: set[int]) -> Iterator[tuple[str, object]]:
    """Yield the path of each tensor in a value, and of everything else as text."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, torch.Generator):
        yield path, str(value.get_state().tolist())
    elif isinstance(value, np.random.Generator):
        yield path, str(value.bit_generator.state)
    elif isinstance(value, random.Random):
        yield path, str(value.getstate())
    elif isinstance(value, np.ndarray):
        yield path, str(value.tolist())
    elif isinstance(value, (set, frozenset)):
        yield path, str(sorted(value, key=repr))
    elif isinstance(value, (Mapping, list, tuple)) or hasattr(value, "__dict__"):
        if id(value) not in seen and not isinstance(value, _STATELESS):
            seen.add(id(value))
            for inner, item in _items(value):
                yield from _leaves(path + inner, item, seen)
    # An address in memory is not state.
    elif " at 0x" not in repr(value):
        yield path, repr(value)


def _items(value: object) -> Iterator[tuple[str, object]]:
    """Yield the items of a container or an object, with the code that reads each."""
    if isinstance(value, nn.Module):
        yield from ((f".{path}", leaf) for path, leaf in state_of(value).items())
    elif isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{position}]", item) for position, item in enumerate(value))
    else:
        yield from ((f".{name}", item) for name, item in vars(value).items())


def _copied(leaf: object) -> object:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
