"""Several losses as one, each given the tensors that its signature names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from torch import Tensor, nn

from robustfer._checks import check_range
from robustfer.losses.parameters import warn_if_not_optimized


class Term:
    """One loss of a :class:`CompositeLoss`.

    Args:
        name: what the term is called in logs and errors; an identifier.
        loss: any module whose ``forward`` names its tensors and returns one scalar.
        weight: factor of the term in the sum.
        inputs: parameter of ``forward`` -> name of the tensor, where the two differ.

    Raises:
        ValueError: the name is no identifier, the weight not finite.
        TypeError: ``loss`` is no module.

    >>> Term("ce", nn.CrossEntropyLoss(), inputs={"input": "logits"})
    Term('ce', CrossEntropyLoss(), weight=1.0, inputs={'input': 'logits'})
    """

    def __init__(
        self,
        name: str,
        loss: nn.Module,
        *,
        weight: float = 1.0,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        if not name.isidentifier():
            raise ValueError(f"name of a term must be an identifier, got {name!r}")
        if not isinstance(loss, nn.Module):
            raise TypeError(f"loss of term {name!r} must be an nn.Module, got {loss!r}")
        self.name = name
        self.loss = loss
        self.weight = check_range(f"weight of term {name!r}", weight)
        self.inputs = dict(inputs or {})

    def __repr__(self) -> str:
        inputs = f", inputs={self.inputs}" if self.inputs else ""
        return f"Term({self.name!r}, {self.loss!r}, weight={self.weight}{inputs})"


class CompositeLoss(nn.Module):
    r"""Weighted sum of losses, tensors routed to each by the names in its ``forward``.

    .. math:: L = \sum_i w_i L_i

    The routes are worked out once, here. A tensor that no term takes is an error and so is one
    that is missing: a misspelt name never passes silently. A parameter with a default is filled
    only when its tensor is given. Should a term have parameters of its own and no optimizer hold
    them, a warning says so once.

    Args:
        terms: the losses with their weights; ``weights`` may be changed in the loop.

    Attributes:
        weights: name of the term -> factor.
        accepts: names of all tensors that the terms take.

    Shape:
        named tensors -> scalar.

    Raises:
        ValueError: no term, two of one name, an entry of ``inputs`` that names no parameter, or a
            term whose result is no scalar.
        TypeError: a term takes ``*args`` or ``**kwargs``; at call, a tensor nobody takes or a
            missing one.

    >>> import torch
    >>> from robustfer.losses import AttentionConsistencyLoss
    >>> criterion = CompositeLoss(
    ...     Term("ce", nn.CrossEntropyLoss(), inputs={"input": "logits"}),
    ...     Term("attention", AttentionConsistencyLoss(), weight=5.0),
    ... )
    >>> sorted(criterion.accepts)
    ['attention', 'attention_flipped', 'logits', 'target']
    >>> logits, maps = torch.zeros(2, 7), torch.ones(2, 7, 6, 6)
    >>> target = torch.tensor([3, 0])
    >>> criterion(logits=logits, target=target, attention=maps, attention_flipped=maps)
    tensor(1.9459)
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *terms: Term) -> None:
        super().__init__()
        if not terms:
            raise ValueError("CompositeLoss needs at least one Term")
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(f"names of the terms must differ, got {names}")
        # A ModuleDict would refuse names such as "values"; a list with names beside it does not.
        self.losses = nn.ModuleList(term.loss for term in terms)
        self.names = tuple(names)
        self.weights = {term.name: term.weight for term in terms}
        self._routes = tuple(_routes(term) for term in terms)
        self.accepts = frozenset(tensor for routes in self._routes for _, tensor, _ in routes)
        warn_if_not_optimized(self)

    def terms(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        unknown = tensors.keys() - self.accepts
        if unknown:
            raise TypeError(self._unknown(sorted(unknown)))
        values = {}
        for name, loss, routes in zip(self.names, self.losses, self._routes, strict=True):
            given = {}
            for parameter, tensor, required in routes:
                if tensor in tensors:
                    given[parameter] = tensors[tensor]
                elif required:
                    raise TypeError(
                        f"term {name!r} needs the tensor {tensor!r}; given {sorted(tensors)}"
                    )
            value = loss(**given)
            if value.ndim:
                raise ValueError(
                    f"term {name!r} must give a scalar, got shape {tuple(value.shape)}; "
                    "choose its reduction"
                )
            values[name] = self.weights[name] * value
        return values

    def forward(self, **tensors: Tensor) -> Tensor:
        first, *others = self.terms(**tensors).values()
        total = first
        for value in others:
            total = total + value
        return total

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={self.weights[name]:g}" for name in self.names)

    def _unknown(self, names: list[str]) -> str:
        near = [match for name in names for match in get_close_matches(name, self.accepts, 1)]
        hint = f"; did you mean {near}?" if near else ""
        return f"no term takes {names}; the terms take {sorted(self.accepts)}{hint}"


def _routes(term: Term) -> tuple[tuple[str, str, bool], ...]:
    """Parameter, name of its tensor and whether it must be given, for each parameter."""
    parameters = inspect.signature(term.loss.forward).parameters
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"term {term.name!r}: forward of {type(term.loss).__name__} takes {parameter}; "
                "a term must name its tensors"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"term {term.name!r}: forward of {type(term.loss).__name__} takes "
                f"{parameter.name!r} by position alone; a term must take tensors by name"
            )
    stray = sorted(term.inputs.keys() - parameters.keys())
    if stray:
        raise ValueError(
            f"inputs of term {term.name!r} name {stray}, but forward of "
            f"{type(term.loss).__name__} takes {list(parameters)}"
        )
    return tuple(
        (name, term.inputs.get(name, name), parameter.default is parameter.empty)
        for name, parameter in parameters.items()
    )
