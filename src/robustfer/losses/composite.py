"""Several losses as one, each given the tensors that its signature names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

from torch import Tensor, nn

from robustfer._checks import check_range
from robustfer._saved_state import load_whole
from robustfer.losses._terms import sum_of_terms
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

    A term that remembers its samples has ``propose`` and ``update``: what it will remember is
    asked for with :meth:`propose`, given to the loss, and written with :meth:`update` after the
    optimizer's step. Where no term has state, both do nothing, so that one loop serves all.

    Args:
        terms: the losses with their weights; ``weights`` may be changed in the loop.

    Attributes:
        weights: name of the term -> factor.
        accepts: names of all tensors that the terms take.
        proposes: those of them that :meth:`propose` makes; the loop brings the others.

    Shape:
        named tensors -> scalar.

    Raises:
        ValueError: no term, two of one name, an entry of ``inputs`` that names no parameter, two
            terms that propose a tensor of one name, or a term whose result is no scalar.
        TypeError: a term takes ``*args`` or ``**kwargs``, or has only one of ``propose`` and
            ``update``; at call, a tensor nobody takes or a missing one.

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
        self._routes = tuple(_routes(term, term.loss.forward) for term in terms)
        # Position of a term with state -> what it takes to propose a tensor, and the tensor's name.
        remembering = {i: term for i, term in enumerate(terms) if _has_state(term)}
        self._proposals = {i: _routes(term, term.loss.propose) for i, term in remembering.items()}
        self._proposed = {i: _proposed(term) for i, term in remembering.items()}
        for i, term in enumerate(terms):
            _check_inputs(term, (*self._routes[i], *self._proposals.get(i, ())))
        routes = (*self._routes, *self._proposals.values())
        self.accepts = frozenset(tensor for route in routes for _, tensor, _ in route)
        self.proposes = frozenset(self._proposed.values())
        if len(self.proposes) < len(self._proposed):
            raise ValueError(
                f"the terms {[names[i] for i in self._proposed]} propose "
                f"{list(self._proposed.values())}; tell them apart by inputs of their Term"
            )
        load_whole(self)
        warn_if_not_optimized(self)

    def propose(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return what the terms with state will remember of this batch, and write nothing.

        Tensors that they do not take are left aside, so that the loop can pass all it has.

        Raises:
            TypeError: a tensor nobody takes, or a missing one.
        """
        self._check_known(tensors)
        proposed = {}
        for i, name in self._proposed.items():
            given = _given(self.names[i], self._proposals[i], tensors)
            proposed[name] = self.losses[i].propose(**given)  # type: ignore[operator]
        return proposed

    def update(self, index: Tensor, proposed: Mapping[str, Tensor], *, gather: bool = True) -> None:
        """Have the terms with state remember what :meth:`propose` returned for these samples.

        Args:
            index: ``(B)`` rows of the samples in the data set.
            proposed: what ``propose`` returned, those very tensors.
            gather: join the rows of all processes, each of which must then call this at the same
                point; nothing to do without ``torch.distributed``.

        Raises:
            ValueError: ``proposed`` does not hold what the terms propose.
        """
        if proposed.keys() != self.proposes:
            raise ValueError(
                f"proposed must hold what propose() returned, {sorted(self.proposes)}, "
                f"got {sorted(proposed)}"
            )
        for i, name in self._proposed.items():
            self.losses[i].update(index, proposed[name], gather=gather)  # type: ignore[operator]

    def terms(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        self._check_known(tensors)
        if self.weights.keys() != set(self.names):
            raise ValueError(
                f"weights must be those of the terms {list(self.names)}, got {list(self.weights)}"
            )
        values = {}
        for name, loss, routes in zip(self.names, self.losses, self._routes, strict=True):
            value = loss(**_given(name, routes, tensors))
            if value.ndim:
                raise ValueError(
                    f"term {name!r} must give a scalar, got shape {tuple(value.shape)}; "
                    "choose its reduction"
                )
            values[name] = self.weights[name] * value
        return values

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={self.weights[name]:g}" for name in self.names)

    def _check_known(self, tensors: Mapping[str, Tensor]) -> None:
        unknown = sorted(tensors.keys() - self.accepts)
        if unknown:
            near = [match for name in unknown for match in get_close_matches(name, self.accepts, 1)]
            hint = f"; did you mean {near}?" if near else ""
            raise TypeError(f"no term takes {unknown}; the terms take {sorted(self.accepts)}{hint}")


# Parameter, name of its tensor, whether it must be given.
_Routes: TypeAlias = tuple[tuple[str, str, bool], ...]


def _given(name: str, routes: _Routes, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one call of a term, by its parameters."""
    given = {}
    for parameter, tensor, required in routes:
        if tensor in tensors:
            given[parameter] = tensors[tensor]
        elif required:
            raise TypeError(f"term {name!r} needs the tensor {tensor!r}; given {sorted(tensors)}")
    return given


def _routes(term: Term, method: Any) -> _Routes:
    """Where each parameter of a term's method comes from."""
    parameters = inspect.signature(method).parameters
    what = f"{method.__name__} of {type(term.loss).__name__}"
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"term {term.name!r}: {what} takes {parameter}; a term must name its tensors"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"term {term.name!r}: {what} takes {parameter.name!r} by position alone; "
                "a term must take tensors by name"
            )
    return tuple(
        (name, term.inputs.get(name, name), parameter.default is parameter.empty)
        for name, parameter in parameters.items()
    )


def _has_state(term: Term) -> bool:
    proposes, updates = (hasattr(term.loss, name) for name in ("propose", "update"))
    if proposes != updates:
        has, lacks = ("propose", "update") if proposes else ("update", "propose")
        raise TypeError(
            f"term {term.name!r}: {type(term.loss).__name__} has {has} but no {lacks}; a loss with "
            "state needs both"
        )
    return proposes


def _proposed(term: Term) -> str:
    """Name of the tensor that a term proposes: that of what its ``update`` writes."""
    update: Any = term.loss.update
    _, parameter, *_ = inspect.signature(update).parameters
    taken = list(inspect.signature(term.loss.forward).parameters)
    if parameter not in taken:
        raise TypeError(
            f"term {term.name!r}: {type(term.loss).__name__} updates {parameter!r}, which its "
            f"forward does not take; it takes {taken}"
        )
    return term.inputs.get(parameter, parameter)


def _check_inputs(term: Term, routes: _Routes) -> None:
    taken = dict.fromkeys(parameter for parameter, _, _ in routes)
    stray = sorted(term.inputs.keys() - taken)
    if stray:
        raise ValueError(
            f"inputs of term {term.name!r} name {stray}, but {type(term.loss).__name__} takes "
            f"{list(taken)}"
        )
