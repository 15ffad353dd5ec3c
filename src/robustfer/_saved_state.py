"""Load saved state whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)
_Check = Callable[[_Module, Mapping[str, Tensor]], None]


def load_whole(module: _Module, check: _Check[_Module] | None = None) -> None:
    """Make a module load its ``state_dict`` whole or not at all. Call it in the constructor.

    torch copies the tensors that fit before it raises for the others, which leaves a mixture. With
    this, the module raises before anything is copied, if names, shapes or dtypes differ or if
    ``check`` raises. Only floating-point dtypes may differ from each other. It holds under
    ``strict=False`` and inside another module too. If nothing was saved for the module, torch
    decides.

    Args:
        module: the module with state; its submodules are checked too.
        check: takes the module and the saved tensors by name, and raises a ValueError for
            impossible values. Give a function at module level: a lambda or a method cannot be
            pickled.

    >>> import torch
    >>> class Counts(nn.Module):
    ...     def __init__(self, num_samples):
    ...         super().__init__()
    ...         self.register_buffer("seen", torch.zeros(num_samples, dtype=torch.int64))
    ...         load_whole(self)
    >>> Counts(3).load_state_dict(Counts(5).state_dict())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: the saved Counts does not fit this one, and nothing of it is loaded: seen is ...
    """
    register: Any = module.register_load_state_dict_pre_hook
    register(partial(_look_first, check=check))


def _look_first(
    module: Any,
    state_dict: Mapping[str, Any],
    prefix: str,
    *others: Any,
    check: _Check[Any] | None,
) -> None:
    start = len(prefix)
    saved = {key[start:]: state_dict[key] for key in state_dict if key.startswith(prefix)}
    if not saved:
        return
    try:
        _check_fit(saved, module.state_dict())
        if check is not None:
            check(module, saved)
    except ValueError as error:
        raise ValueError(
            f"the saved {type(module).__name__} does not fit this one, and nothing of it is "
            f"loaded: {error}"
        ) from error


def _check_fit(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Require the module's own names, shapes and dtypes."""
    wrong = [
        f"{name} is {_kind(saved, name)} there and {_kind(own, name)} here"
        for name in {**own, **saved}
        if name not in saved or name not in own or not _alike(saved[name], own[name])
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"{'; '.join(wrong[:3])}{more}; construct it with the options and data of the saved one"
        )


def _alike(one: Any, other: Any) -> bool:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return type(one) is type(other)
    both_floating = one.is_floating_point() and other.is_floating_point()
    return one.shape == other.shape and (one.dtype == other.dtype or both_floating)


def _kind(state: Mapping[str, Any], name: str) -> str:
    value = state.get(name)
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape ({', '.join(map(str, value.shape))})"
    return f"a {type(value).__name__}" if name in state else "not"
