"""Combine several losses. Each gets the tensors that its signature names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from robustfer._checks import check_bool, check_range, kind_of
from robustfer._saved_state import load_whole
from robustfer._shown import near
from robustfer.losses._routes import Routes, routes_of
from robustfer.losses._terms import sum_of_terms
from robustfer.losses.parameters import warn_if_not_optimized


@dataclass(eq=False)
class Term:
    """One loss of a :class:`CompositeLoss`.

    Args:
        name: name of the term in logs and errors; an identifier.
        loss: any module whose ``forward`` names its tensors and returns one scalar.
        weight: factor of the term in the sum.
        inputs: parameter of ``forward`` -> name of its tensor, where the names differ.

    Raises:
        ValueError: the name is not an identifier, or the weight is not finite.
        TypeError: ``loss`` is not a module.

    >>> Term("ce", nn.CrossEntropyLoss(), inputs={"input": "logits"})
    Term(name='ce', loss=CrossEntropyLoss(), weight=1.0, inputs={'input': 'logits'})
    """

    name: str
    loss: nn.Module
    weight: float = field(default=1.0, kw_only=True)
    inputs: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name of a term must be an identifier, got {self.name!r}")
        if not isinstance(self.loss, nn.Module):
            raise TypeError(f"loss of term {self.name!r} must be an nn.Module, got {self.loss!r}")
        self.weight = check_range(f"weight of term {self.name!r}", self.weight)


class CompositeLoss(nn.Module):
    r"""Add weighted losses, and give each the tensors that its ``forward`` names.

    .. math:: L = \sum_i w_i L_i

    A tensor that no term takes is an error, and so is a missing tensor. A parameter with a default
    may be left out. A warning says once if no optimizer holds the parameters of a term.

    A term that remembers its samples has ``propose`` and ``update``. Call :meth:`propose`, pass its
    result to the loss, and call :meth:`update` after the optimizer's step. Without such a term both
    do nothing.

    Args:
        terms: the losses with their names and weights.

    Attributes:
        weights: name of the term -> factor; the loop may change it.
        accepts: names of all tensors that the terms take.
        requires: those without a default.
        proposes: names of the tensors that :meth:`propose` returns.

    Shape:
        named tensors -> scalar.

    Raises:
        ValueError: there is no term, two terms share a name or propose the same tensor, an entry
            of ``inputs`` is not a parameter, or a term does not return a scalar.
        TypeError: a term takes ``*args`` or ``**kwargs``, or has only one of ``propose`` and
            ``update``; at call, a tensor is missing or no term takes it.

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
            raise ValueError("terms must hold at least one Term, got none")
        for term in terms:
            if not isinstance(term, Term):
                raise TypeError(
                    f'terms must be Terms, got {type(term).__name__}; write Term("name", loss)'
                )
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(f"names of the terms must differ, got {names}; rename one")
        # Not a ModuleDict, which refuses names such as "values".
        self.losses = nn.ModuleList(term.loss for term in terms)
        self.names = tuple(names)
        self.weights = {term.name: term.weight for term in terms}
        self._routes = tuple(routes_of(term.name, term.loss, term.inputs) for term in terms)
        taken = [route for term in self._routes for route in (*term.forward, *term.propose)]
        self.accepts = frozenset(tensor for _, tensor, _ in taken)
        self.requires = frozenset(tensor for _, tensor, required in taken if required)
        with_state = {term.name: term.proposed for term in self._routes if term.proposed}
        self.proposes = frozenset(with_state.values())
        if len(self.proposes) < len(with_state):
            raise ValueError(
                f"terms must propose tensors of different names, got {list(with_state.values())} "
                f"from {list(with_state)}; rename one by inputs of its Term"
            )
        load_whole(self)
        warn_if_not_optimized(self)

    def propose(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return what the terms with state will remember of this batch, without writing it.

        Pass all tensors of the loss that exist at this point.

        Raises:
            TypeError: a tensor is missing, or no term takes it.
        """
        self._check_known(tensors)
        return {
            routes.proposed: loss.propose(**routes.given("propose", tensors))
            for routes, loss in self._with_state()
        }

    def update(self, index: Tensor, proposed: Mapping[str, Tensor], *, gather: bool = True) -> None:
        """Write what :meth:`propose` returned into the state of the terms.

        Args:
            index: ``(B)`` rows of the samples in the data set.
            proposed: the tensors that :meth:`propose` returned.
            gather: join the rows of all processes. Each must then call this at the same point.
                With one process it has no effect.

        Raises:
            TypeError: ``gather`` is not a bool.
            ValueError: ``proposed`` does not hold what the terms propose.
        """
        check_bool("gather", gather)
        if proposed.keys() != self.proposes:
            raise ValueError(
                f"proposed must hold what propose() returned, {sorted(self.proposes)}, "
                f"got {sorted(proposed)}"
            )
        for routes, loss in self._with_state():
            loss.update(index, proposed[routes.proposed], gather=gather)

    def terms(self, **tensors: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        self._check_known(tensors)
        if self.weights.keys() != set(self.names):
            raise ValueError(
                f"weights must be those of the terms {list(self.names)}, got {list(self.weights)}"
            )
        values = {}
        for routes, loss in zip(self._routes, self.losses, strict=True):
            value = loss(**routes.given("forward", tensors))
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"term {routes.name!r} must return a scalar tensor, got {kind_of(value)}; wrap "
                    "it in a module that returns only its loss"
                )
            if value.ndim:
                raise ValueError(
                    f"term {routes.name!r} must return a scalar, got shape {tuple(value.shape)}; "
                    "choose another reduction for it"
                )
            values[routes.name] = self.weights[routes.name] * value
        return values

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={self.weights[name]:g}" for name in self.names)

    def _with_state(self) -> Iterator[tuple[Routes, Any]]:
        pairs = zip(self._routes, self.losses, strict=True)
        return ((routes, loss) for routes, loss in pairs if routes.proposed)

    def _check_known(self, tensors: Mapping[str, Tensor]) -> None:
        unknown = sorted(set(tensors) - self.accepts)
        if unknown:
            hint = "".join(near(name, self.accepts) for name in unknown)
            raise TypeError(
                f"no term takes {unknown}; the terms take {sorted(self.accepts)}{hint}; a loss "
                "with another name for a tensor gets it by inputs of its Term: {'input': 'logits'}"
            )
        for name, tensor in tensors.items():
            # The error of a loss of torch's would have its name for it.
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {kind_of(tensor)}")
