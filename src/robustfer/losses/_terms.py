"""Make ``forward`` of a loss with several terms from its method ``terms``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from torch import Tensor

_Inputs = ParamSpec("_Inputs")


def sum_of_terms(
    terms: Callable[Concatenate[Any, _Inputs], dict[str, Tensor]],
) -> Callable[Concatenate[Any, _Inputs], Tensor]:
    r"""Make ``forward``, the sum of the terms, from the method ``terms``.

    .. math:: L = \sum_i L_i

    Args:
        terms: the method that returns the weighted terms by name, at least one.

    Returns:
        The method ``forward``, with the signature of ``terms``.

    >>> import torch
    >>> from torch import nn
    >>> class Elastic(nn.Module):
    ...     def terms(self, weight):
    ...         return {"l1": weight.abs().sum(), "l2": weight.square().sum()}
    ...
    ...     forward = sum_of_terms(terms)
    >>> Elastic()(torch.tensor([1.0, -3.0]))
    tensor(14.)
    >>> list(inspect.signature(Elastic().forward).parameters)
    ['weight']
    """

    def forward(self: Any, /, *inputs: _Inputs.args, **named: _Inputs.kwargs) -> Tensor:
        total: Tensor
        # Through self, because a subclass may override terms.
        total, *others = self.terms(*inputs, **named).values()
        for term in others:
            total = total + term
        return total

    # torch.compile counts recompilations per code object, so each loss needs its own.
    forward.__code__ = forward.__code__.replace()
    functools.update_wrapper(forward, terms)
    forward.__name__ = "forward"
    forward.__qualname__ = terms.__qualname__.removesuffix(terms.__name__) + "forward"
    forward.__doc__ = "Return the sum of the terms."
    forward.__annotations__ = {**terms.__annotations__, "return": Tensor}
    signature = inspect.signature(terms).replace(return_annotation=Tensor)
    forward.__signature__ = signature  # type: ignore[attr-defined]
    return forward
