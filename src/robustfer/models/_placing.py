"""Place new heads where a given network is."""

from __future__ import annotations

from torch import nn


def fit_to(network: nn.Module, *heads: nn.Module) -> None:
    """Move heads to the device and the dtype of a network.

    >>> import torch
    >>> head = nn.Linear(2, 2)
    >>> fit_to(nn.Linear(4, 2, dtype=torch.bfloat16), head)
    >>> head.weight.dtype
    torch.bfloat16
    """
    for parameter in network.parameters():
        # Quantised weights have integer dtypes.
        if parameter.is_floating_point():
            for head in heads:
                head.to(parameter.device, parameter.dtype)
            return
