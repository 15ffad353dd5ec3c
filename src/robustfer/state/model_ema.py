"""A slow average of a model, as a teacher (GSMC) or for evaluation."""

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
from robustfer._dtypes import NeverHalf
from robustfer._saved_state import load_whole
from robustfer._wrappers import unwrapped
from robustfer.functional._precision import full_precision

Buffers = Literal["copy", "ema", "keep"]
Kind = Literal["parameters", "buffers"]
Pairs = list[tuple[Tensor, Tensor]]


class ModelEMA(NeverHalf):
    r"""Keep a copy of a model whose parameters follow it slowly.

    .. math::
        \xi \leftarrow a\, \xi + (1 - a)\, \theta, \qquad
        a = \min\Bigl(1 - \frac{1}{k + 1},\; d\Bigr)

    at the k-th update, from 1, with the copy's parameters :math:`\xi` and the model's
    :math:`\theta`. Call :meth:`update` after each optimizer's step. During the warm-up
    the copy is the plain mean of the first model and all models since. ``k`` is in the
    ``state_dict``, so a resumed run does not warm up again.

    The copy gets no gradient. It starts in the mode of the model, train or eval, and keeps its own
    mode after that. To predict with it, call :meth:`eval` once, as for any model. The authors' code
    of GSMC and of LA-Net leaves the teacher in train mode, where batch norm uses the statistics of
    the batch.

    A NaN in the model's weights reaches the copy. Under :func:`robustfer.losses.check_values`
    :meth:`update` raises instead. The copy of a half-precision model is float32, because half
    precision rounds small updates away. It stays float32 if a parent module is cast.

    With several processes each has its own copy, outside ``DistributedDataParallel``. The copies
    stay equal as long as the models do. DDP keeps parameters equal; each process has its own
    buffers.

    Args:
        model: the model to follow. If it is wrapped for data parallelism or by ``torch.compile``,
            the copy is the plain model, whose weights load anywhere.
        decay: :math:`d` in [0, 1); the copy averages about the last ``1 / (1 - decay)`` updates.
        warmup: start with smaller decays, as above; without it :math:`a = d` from the start.
        buffers: what an update does with buffers, such as the running statistics of batch norm.
            ``"copy"`` copies them from the model. ``"ema"`` averages floating-point buffers and
            copies the rest. The statistics then fit the averaged weights. ``"keep"`` leaves them
            to the copy's own forward, as the authors' code does in train mode.

    Attributes:
        module: the copy.
        step: number of updates, an int64 scalar.

    Shape:
        positional inputs of the model -> its outputs, from the copy and without gradient.

    Raises:
        TypeError: ``warmup`` is not a bool.
        ValueError: an option does not fit, or :meth:`update` gets a model with other tensors.

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
        # The step on the host, because reading the buffer would wait for a GPU.
        self._updates = 0
        load_whole(self, _check_saved)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    @torch.no_grad()
    def update(self, model: nn.Module, *, skipped: bool = False) -> None:
        """Follow ``model`` by one step. Call it after ``optimizer.step()``, not per micro-batch.

        Args:
            model: the followed model; it may be wrapped or compiled now.
            skipped: True if the optimizer's step was skipped; then this does nothing. A gradient
                scaler that found an infinity has a smaller ``get_scale()`` after ``update()``.

        Raises:
            TypeError: ``skipped`` is not a bool.
            ValueError: the tensors of ``model`` do not match the copy, or are not finite under
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
    """Return each tensor of the copy with that of the model, in the copy's dtype and device."""
    owns, news = _tensors(kind, own), _tensors(kind, new)
    if [tensor.shape for tensor in owns] != [tensor.shape for tensor in news]:
        wanted, found = (
            [f"{name} {list(tensor.shape)}" for name, tensor in getattr(module, f"named_{kind}")()]
            for module in (own, new)
        )
        unlike = sorted(set(wanted) ^ set(found))[:3] or ["their order"]
        raise ValueError(
            f"model must have the {len(wanted)} {kind} of the averaged model, got {len(found)}; "
            f"they differ in {', '.join(unlike)}"
        )
    return [(mine, its.to(mine)) for mine, its in zip(owns, news, strict=True)]


def _tensors(kind: Kind, module: nn.Module) -> list[Tensor]:
    """Return what ``parameters()`` or ``buffers()`` lists, but faster: it builds no names."""
    # A dict, because modules may share a tensor.
    found = dict.fromkeys(_registered(f"_{kind}", module))
    found.pop(None, None)
    return cast(list[Tensor], list(found))


def _registered(attribute: str, module: nn.Module) -> list[Tensor | None]:
    found = list(getattr(module, attribute).values())
    for child in module._modules.values():
        if child is not None:
            found += _registered(attribute, child)
    return found
