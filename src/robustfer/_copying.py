"""Copy networks, also after a forward and with compiled methods."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any, TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def independent_copy(module: _Module) -> _Module:
    """Return a deep copy that shares nothing with the module.

    A forward may leave tensors with gradients on the module, which torch cannot deep-copy: some of
    timm's networks (LeViT, TinyViT) keep the attention biases of the last evaluation. The copy has
    their values.

    A deep copy shares functions, so after ``model.forward = torch.compile(model.forward)`` it would
    run the weights of the model. This copy has the plain method instead.

    Raises:
        ValueError: a method is replaced by another function that runs the model.
    """
    kept = (each for part in module.modules() for each in _tensors(vars(part)))
    memo: dict[int, Any] = {id(each): each.detach().clone() for each in kept if not each.is_leaf}
    copied = copy.deepcopy(module, memo)
    for part in module.modules():
        # Some modules, such as those of TorchScript, copy their parts by themselves.
        own = vars(memo[id(part)]) if id(part) in memo else {}
        for name, function in vars(part).items():
            if own.get(name) is function and isinstance(function, FunctionType):
                _replace(own, name, function, type(part), memo)
    return copied


def _replace(
    own: dict[str, Any], name: str, function: FunctionType, kind: type, memo: dict[int, Any]
) -> None:
    """Give the copy its own method for a function that it shares with the original."""
    method = _uncompiled(function)
    if isinstance(method, MethodType) and id(method.__self__) in memo:
        del own[name]
        if method.__func__ is not getattr(kind, name, None):
            own[name] = MethodType(method.__func__, memo[id(method.__self__)])
    elif hasattr(kind, name) and any(id(each) in memo for each in _held(method)):
        raise ValueError(
            f"{name} of the {kind.__name__} is a function that runs the original model, so a copy "
            "must not use it; copy the model before you replace the method, or compile it by "
            "model.compile()"
        )


def _uncompiled(function: Any) -> Any:
    """Return what ``torch.compile`` compiled. Its wrappers look like the compiled function."""
    while isinstance(function, FunctionType):
        if not str(function.__globals__.get("__name__")).startswith("torch._dynamo."):
            break
        inner = getattr(function, "_torchdynamo_orig_callable", None)
        inner = getattr(function, "__wrapped__", None) if inner is None else inner
        if inner is None:
            break
        function = inner
    return function


def _held(function: Any) -> Iterator[nn.Module | Tensor]:
    """Return modules and tensors that a function has in its closure or defaults."""
    waiting, seen = [function], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (nn.Module, Tensor)):
            yield value
        elif isinstance(value, MethodType):
            waiting += [value.__self__, value.__func__]
        elif isinstance(value, FunctionType):
            waiting += value.__defaults__ or ()
            for cell in value.__closure__ or ():
                # A cell may be empty.
                with suppress(ValueError):
                    waiting.append(cell.cell_contents)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
