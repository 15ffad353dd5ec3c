"""A device that has no float64, as MPS has none, imitated on the CPU.

torch knows the device ``lazy`` by name and needs no driver to name it. Tensors that say they are
there compute on the CPU; one in float64 is an error.
"""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("lazy")
_WIDE = (torch.float64, torch.complex128)


class _OnDevice(torch.Tensor):
    """A tensor that says it is on the device, around one on the CPU."""

    @staticmethod
    def __new__(cls, content):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            content.size(),
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=DEVICE,
            requires_grad=content.requires_grad,
        )
        made.content = content
        return made

    def tolist(self):
        return self.content.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """Within it tensors can be moved to ``DEVICE``, and made there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    name, wanted = func._schema.name.removeprefix("aten::"), kwargs.get("device")
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in given if isinstance(tensor, _OnDevice)]
    here = bool(ours) if wanted is None else torch.device(wanted) == DEVICE
    if wanted is not None and here:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain, options = tree_map_only(_OnDevice, lambda tensor: tensor.content, (args, kwargs))
    result = func(*plain, **options)
    if func._schema.is_mutable:  # in place: what came is what goes
        return kwargs.get("out", args[0]) if func._schema.returns else None
    # Indices and numbers may come from the CPU, as on any device; so does what is copied.
    mixed = ours and any(each.ndim and not isinstance(each, _OnDevice) for each in given)
    if mixed and not name.startswith(("index", "_index", "_to_copy")):
        raise RuntimeError(f"{name} got tensors of two devices")
    return (
        tree_map_only(torch.Tensor, lambda tensor: _moved(name, tensor), result) if here else result
    )


def _moved(name, tensor):
    if tensor.dtype in _WIDE:
        raise TypeError(f"{name} makes a {tensor.dtype} on a device that has none")
    return _OnDevice(tensor)
