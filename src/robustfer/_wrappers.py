"""Take a model out of wrappers, which rename its weights."""

from __future__ import annotations

from torch import nn

# The module of a wrapper's class -> the name of the model in it. Names spare the import of
# each wrapper's library.
_WRAPPERS = {
    "torch.nn.parallel.data_parallel": "module",
    "torch.nn.parallel.distributed": "module",
    "torch.optim.swa_utils": "module",
    "torch._dynamo.eval_frame": "_orig_mod",
    "lightning_fabric.wrappers": "_original_module",
    "lightning.fabric.wrappers": "_original_module",
    "timm.utils.model_ema": "module",
    "robustfer.state.model_ema": "module",
}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside of data parallelism, weight averaging, ``torch.compile`` and Fabric.

    >>> model = nn.Linear(4, 2)
    >>> unwrapped(nn.DataParallel(model)) is model
    True
    """
    while (inner := _inner(model)) is not None:
        model = inner
    return model


def _inner(model: nn.Module) -> nn.Module | None:
    for kind in type(model).__mro__:
        if kind.__module__ in _WRAPPERS:
            return model._modules.get(_WRAPPERS[kind.__module__])
    return None
