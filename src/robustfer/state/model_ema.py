"""The slow average of a model, for a teacher (GSMC) or for evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from robustfer._checks import (
    check_bool,
    check_choice,
    check_finite,
    check_range,
    check_within,
    values_are_checked,
)
from robustfer._copying import independent_copy
from robustfer._saved_state import load_whole
from robustfer._wrappers import unwrapped
from robustfer.functional._precision import full_precision

Buffers = Literal["copy", "ema", "keep"]
Kind = Literal["parameters", "buffers"]
Pairs = list[tuple[Tensor, Tensor]]


class ModelEMA(nn.Module):
    r"""A copy of a model whose parameters follow it slowly; the loop calls :meth:`update`.

    .. math::
        \xi \leftarrow a\, \xi + (1 - a)\, \theta, \qquad
        a = \min\Bigl(1 - \frac{1}{k + 1},\; d\Bigr)

    at the k-th update, from 1. Until the warm-up reaches the decay :math:`d` the copy is the plain
    mean of the model it began as and of all since. ``k`` is in the ``state_dict``: a resumed run
    that began to warm up anew would throw half of the teacher away in one step.

    The copy needs no gradient, and its forward makes none. It begins in the mode, train or eval, of
    the model it is made of, and :meth:`train` and :meth:`eval` are its own. The public program of
    GSMC leaves its teacher in train mode, where batch norm takes the statistics of the batch.

    The copy follows the model wherever it goes: once a weight of the model is NaN, that of the copy
    is too. Under :func:`robustfer.losses.check_values` such a model is refused.

    A model in half precision has a copy in float32: a thousandth of a weight is less than half
    precision can add to it.

    With several processes each has its own copy, outside ``DistributedDataParallel``. It stays
    the same in all of them as long as the model does, which DDP sees to for parameters; buffers
    are those of each process.

    Args:
        model: what to follow. Of a model that is wrapped for data parallelism or by
            ``torch.compile`` the copy is the plain model, whose weights load anywhere.
        decay: :math:`d` in [0, 1); the copy looks back over about ``1 / (1 - decay)`` updates.
        warmup: begin with smaller decays, as above; without it :math:`a = d` from the start.
        buffers: what an update does with buffers, such as the running statistics of batch norm:
            ``"copy"`` takes them over from the model, ``"ema"`` averages those of floating point
            and copies the rest, ``"keep"`` leaves them to the copy's own forward (the public
            program; only sensible in train mode).

    Attributes:
        module: the copy.
        step: number of updates, an int64 scalar.

    Shape:
        positional inputs of the model -> its outputs, from the copy and without gradient.

    Raises:
        ValueError: an option does not fit, or :meth:`update` is given another kind of model.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> teacher = ModelEMA(model, decay=0.999)
    >>> for value in (3.0, 5.0):  # what an optimizer would do
    ...     _ = nn.init.constant_(model.weight, value)
    ...     teacher.update(model)
    >>> teacher.module.weight.item()  # the mean of 1, 3 and 5
    3.0
    """

    step: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        decay: float = 0.999,
        warmup: bool = True,
        buffers: Buffers = "copy",
    ) -> None:
        super().__init__()
        self.decay = check_range("decay", decay, 0.0, 1.0, open_high=True)
        self.warmup = check_bool("warmup", warmup)
        self.buffer_rule = check_choice("buffers", buffers, get_args(Buffers))
        self.module = independent_copy(unwrapped(model)).requires_grad_(False)
        self.module._apply(full_precision)  # type: ignore[no-untyped-call]
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device="cpu"))
        self._updates = 0  # the step on the host: reading the buffer would wait for a GPU
        load_whole(self, _check_saved)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    @torch.no_grad()
    def update(self, model: nn.Module, *, skipped: bool = False) -> None:
        """Follow ``model`` by one step; after ``optimizer.step()``, not after each micro-batch.

        Args:
            model: the one this was made of, by now wrapped, compiled or neither.
            skipped: the optimizer's step did not take place, as where a gradient scaler found an
                infinity (its ``get_scale()`` is smaller after ``update()``): nothing is done, nor
                counted.

        Raises:
            TypeError: ``skipped`` is not a bool.
            ValueError: the tensors of ``model`` are not those of the copy, or not finite under
                :func:`robustfer.losses.check_values`; nothing is changed.
        """
        if check_bool("skipped", skipped):
            return
        model = unwrapped(model)
        if values_are_checked():
            check_finite(**dict(model.named_parameters()), **dict(model.named_buffers()))
        averaged = _pairs("parameters", self.module, model)
        copied: Pairs = []
        if self.buffer_rule != "keep":
            for pair in _pairs("buffers", self.module, model):
                floating = self.buffer_rule == "ema" and pair[0].is_floating_point()
                (averaged if floating else copied).append(pair)
        self._updates += 1
        self.step.add_(1)
        weight = 1.0 - self.decay
        if self.warmup:
            weight = max(weight, 1.0 / (self._updates + 1))
        if averaged:
            own, new = zip(*averaged, strict=True)
            torch._foreach_lerp_(own, new, weight)
        if copied:
            own, new = zip(*copied, strict=True)
            torch._foreach_copy_(own, new)

    def extra_repr(self) -> str:
        return f"decay={self.decay}, warmup={self.warmup}, buffers={self.buffer_rule!r}"

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._updates = int(self.step)


def _check_saved(ema: ModelEMA, saved: Mapping[str, Tensor]) -> None:
    check_within(0, 2**63 - 1, step=saved["step"])


def _pairs(kind: Kind, own: nn.Module, new: nn.Module) -> Pairs:
    """Tensors of the copy with those of the model, these as the copy keeps them."""
    owns, news = _tensors(kind, own), _tensors(kind, new)
    if [tensor.shape for tensor in owns] != [tensor.shape for tensor in news]:
        wanted, found = (
            [f"{name} {list(tensor.shape)}" for name, tensor in getattr(module, f"named_{kind}")()]
            for module in (own, new)
        )
        unlike = sorted(set(wanted) ^ set(found))[:3] or ["their order"]
        raise ValueError(
            f"model must have the {len(wanted)} {kind} of the one that was averaged, got "
            f"{len(found)}; they differ in {', '.join(unlike)}"
        )
    return [(mine, its.to(mine)) for mine, its in zip(owns, news, strict=True)]


def _tensors(kind: Kind, module: nn.Module) -> list[Tensor]:
    """What ``parameters()`` or ``buffers()`` lists, in a third of the time: it makes no names."""
    found = dict.fromkeys(_registered(f"_{kind}", module))  # one that modules share is there once
    found.pop(None, None)
    return cast(list[Tensor], list(found))


def _registered(attribute: str, module: nn.Module) -> list[Tensor | None]:
    found = list(getattr(module, attribute).values())
    for child in module._modules.values():
        if child is not None:
            found += _registered(attribute, child)
    return found
