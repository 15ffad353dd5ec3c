"""Run a module as on a GPU, on a machine without one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode, resolve_name

from robustfer._checks import check_values
from robustfer.testing import _require as require

_NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)


def follows_to_gpu(
    module: nn.Module, tensors: Mapping[str, Tensor], mend: str, *, method: str = "forward"
) -> None:
    """Require that a method makes every tensor on a GPU if the module and its inputs are there.

    Args:
        module: a loss. Its state does not change.
        tensors: the arguments of the method.
        mend: the start of the message.
        method: the method to call.
    """
    with require.explained(mend):
        try:
            _run(module, tensors, method, _RefusedHostTensors(mend))
        except _NEEDS_VALUES:
            return  # the check of host synchronisation reports this


def views_follow_to_gpu(augmentation: nn.Module, images: Tensor, mend: str) -> None:
    """Require views on a GPU for images there. Random numbers may come from the CPU."""
    try:
        views = _run(augmentation, {"images": images}, "forward", nullcontext())
    except Exception as error:
        if "devices" in str(error):  # two of them met
            raise AssertionError(f"{mend}: {error}") from error
        return  # the imitation has no values and no generator
    for view in views if isinstance(views, tuple) else (views,):
        assert view.device.type == "cuda", f"{mend}: a view is on {view.device}"


def _run(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    method: str,
    within: AbstractContextManager[object],
) -> Any:
    """Call a method, within a context, as if the module and the tensors were on a GPU."""
    called = _Called(module, method)
    own = {**dict(called.named_parameters()), **dict(called.named_buffers())}
    # Fake tensors have a device and a shape, but no values.
    with FakeTensorMode() as mode, warnings.catch_warnings(), check_values(False):
        warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")

        def sent(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: mode.from_tensor(tensor).to("cuda") for name, tensor in given.items()}

        state, inputs = sent(own), sent(tensors)
        with within:
            return torch.func.functional_call(called, state, (), inputs)


class _Called(nn.Module):
    """Call a method of a module as ``forward``, which ``functional_call`` needs."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, **tensors: Tensor) -> Any:
        return getattr(self.module, self.method)(**tensors)


class _RefusedHostTensors(TorchFunctionMode):
    """Refuse tensors on the CPU. All inputs are on a GPU, so code put them there by name."""

    def __init__(self, mend: str) -> None:
        super().__init__()
        self.mend = mend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else (result,)
        for tensor in made:
            on_host = isinstance(tensor, Tensor) and tensor.device.type == "cpu"
            assert not on_host, (
                f"{self.mend}: {resolve_name(func) or func} gives a tensor on the CPU"
            )
        return result
