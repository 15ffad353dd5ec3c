"""Refuse a second derivative where the gradient is computed together with the value.

``once_differentiable`` of torch does not: the gradient would only count as a constant, and a
gradient penalty or a step of meta-learning would silently miss a part.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def only_once(ctx: Any) -> None:
    """Prepare a context whose saved gradients are outputs too, for :func:`check_first`."""
    if not torch.compiler.is_compiling():
        ctx.set_materialize_grads(False)


def check_first(loss: str, *second: Tensor | None) -> None:
    """Require a first derivative.

    Args:
        loss: name of the loss in the error.
        second: gradients by the saved gradients; all ``None`` in a first derivative.

    Raises:
        RuntimeError: the derivative is a second one.
    """
    # Compiled code has zeros instead of None, and torch refuses its second derivative.
    if not torch.compiler.is_compiling() and any(each is not None for each in second):
        raise RuntimeError(
            f"{loss} has no second derivative, got one from a gradient with create_graph=True; "
            "leave this loss out of what you differentiate twice"
        )
