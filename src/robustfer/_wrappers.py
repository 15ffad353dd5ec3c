"""Take a model out of torch's wrappers, which rename its weights."""

from __future__ import annotations

from torch import nn
from torch.optim.swa_utils import AveragedModel


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside of data parallelism, weight averaging and ``torch.compile``.

    >>> model = nn.Linear(4, 2)
    >>> unwrapped(nn.DataParallel(model)) is model
    True
    """
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)):
            inner = model.module
        else:
            # torch.compile keeps the model under this name.
            inner = model._modules.get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return model
        model = inner
