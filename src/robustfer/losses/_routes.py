"""Read from a loss's signatures which tensors a term of a composition takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

# A parameter of a method, the name of its tensor, and whether the tensor is required.
_Route: TypeAlias = tuple[str, str, bool]


class Routes(NamedTuple):
    """What a term takes. Without state, ``propose`` and ``proposed`` are empty."""

    name: str
    forward: tuple[_Route, ...]
    propose: tuple[_Route, ...]
    proposed: str

    def given(self, method: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the arguments of ``forward`` or ``propose`` by parameter."""
        found = {}
        for parameter, tensor, required in getattr(self, method):
            if tensor in tensors:
                found[parameter] = tensors[tensor]
            elif required:
                raise TypeError(
                    f"term {self.name!r} needs the tensor {tensor!r}, got {sorted(tensors)}"
                )
        return found


def routes_of(name: str, loss: Any, inputs: Mapping[str, str]) -> Routes:
    """Return the routes of a term, from the signatures of its loss and from ``inputs``."""
    of_loss = type(loss).__name__

    def routes(method: Any) -> dict[str, _Route]:
        found = {}
        for parameter in inspect.signature(method).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(
                    f"term {name!r}: {method.__name__} of {of_loss} takes {parameter}; a term must "
                    "take each tensor by its name"
                )
            tensor = inputs.get(parameter.name, parameter.name)
            found[parameter.name] = (parameter.name, tensor, parameter.default is parameter.empty)
        return found

    forward, propose, proposed = routes(loss.forward), {}, ""
    lacks = [method for method in ("propose", "update") if not hasattr(loss, method)]
    if len(lacks) == 1:
        raise TypeError(
            f"term {name!r}: {of_loss} has no {lacks[0]}; a loss with state needs both propose and "
            "update"
        )
    if not lacks:
        propose = routes(loss.propose)
        # The second parameter of update names the tensor that propose returned and forward takes.
        _, written, *_ = inspect.signature(loss.update).parameters
        if written not in forward:
            raise TypeError(
                f"term {name!r}: {of_loss} updates {written!r}, which its forward does not take; "
                f"it takes {list(forward)}"
            )
        proposed = inputs.get(written, written)
    stray = sorted(inputs.keys() - forward.keys() - propose.keys())
    if stray:
        raise ValueError(
            f"inputs of term {name!r} name {stray}, but {of_loss} takes {[*forward, *propose]}"
        )
    return Routes(name, tuple(forward.values()), tuple(propose.values()), proposed)
