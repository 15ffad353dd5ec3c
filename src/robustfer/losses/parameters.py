"""Parameters of a loss: groups for the optimizer, and a warning if no optimizer holds them."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from robustfer._checks import check_range

# Only the loop knows its optimizers. So every optimizer that steps is checked, as long as there is
# a loss whose parameters have not been found in one.
_watched: WeakSet[nn.Module] = WeakSet()
_stepped: WeakSet[Optimizer] = WeakSet()


def param_groups(
    model: nn.Module,
    criterion: nn.Module,
    *,
    criterion_lr: float | None = None,
    criterion_weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Return the parameter groups of a model and its loss, for an optimizer.

    Frozen parameters are left out. A parameter that both share belongs to the model. A loss without
    parameters adds no group.

    A loss whose parameters need their own options has a method ``param_groups()``. Its groups come
    last. If a loss contains another one and both list a parameter, the outer loss decides.
    ``OneCycleLR`` overwrites the options of these groups: with it, give them an optimizer of their
    own, such as ``torch.optim.SGD(criterion.param_groups())``.

    Args:
        model: the network; pass several as one ``nn.ModuleList([...])``.
        criterion: the loss, or a composition.
        criterion_lr: learning rate of the loss's parameters, except those in its own groups;
            default: that of the optimizer.
        criterion_weight_decay: weight decay of these parameters. Default: none, because a margin or
            a temperature should not shrink to zero.

    Returns:
        Dictionaries for any ``torch.optim`` optimizer: first the model's, then the loss's.

    Raises:
        ValueError: an option is negative, or no parameter requires a gradient.

    >>> import torch
    >>> model, criterion = nn.Linear(4, 2), nn.AdaptiveLogSoftmaxWithLoss(4, 8, cutoffs=[2])
    >>> groups = param_groups(model, criterion, criterion_lr=0.5)
    >>> [sum(parameter.numel() for parameter in group["params"]) for group in groups]
    [10, 22]
    >>> optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=1e-4)
    >>> [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    [(0.1, 0.0001), (0.5, 0.0)]
    """
    options = {"weight_decay": check_range("criterion_weight_decay", criterion_weight_decay, 0.0)}
    if criterion_lr is not None:
        options["lr"] = check_range("criterion_lr", criterion_lr, 0.0)
    taken = set(model.parameters())
    of_model = [p for p in model.parameters() if p.requires_grad]
    own = _trained(_own_groups(criterion), taken)
    taken.update(p for group in own for p in group["params"])
    of_criterion = [p for p in criterion.parameters() if p.requires_grad and p not in taken]
    groups: list[dict[str, Any]] = []
    if of_model:
        groups.append({"params": of_model})
    if of_criterion:
        groups.append({"params": of_criterion, **options})
    groups += own
    if not groups:
        raise ValueError(
            "model and criterion hold no parameter that requires a gradient; unfreeze some with "
            "requires_grad_()"
        )
    return groups


def _own_groups(criterion: nn.Module) -> list[dict[str, Any]]:
    """Return the groups of all losses with a ``param_groups()``, also inside a composition.

    A parameter that two losses list belongs to the outer one.
    """
    groups: list[dict[str, Any]] = []
    for loss in criterion.modules():  # outer losses first
        make = getattr(loss, "param_groups", None)
        if callable(make):
            taken = {p for group in groups for p in group["params"]}
            for group in make():
                if params := [p for p in group["params"] if p not in taken]:
                    groups.append({**group, "params": params})
    return groups


def _trained(groups: list[dict[str, Any]], taken: set[nn.Parameter]) -> list[dict[str, Any]]:
    """Return the groups without parameters that are frozen or taken, and without empty groups."""
    kept = [
        {**group, "params": [p for p in group["params"] if p.requires_grad and p not in taken]}
        for group in groups
    ]
    return [group for group in kept if group["params"]]


def warn_if_not_optimized(criterion: nn.Module) -> None:
    """Warn once if optimizers step but none of them holds the loss's parameters.

    The warning comes when an optimizer steps for the second time: by then the loop has made all its
    optimizers. One that steps less often counts too. Only parameters with a gradient count.
    References are weak.

    It also warns at the first step if the optimizer ignores an option that the loss's own
    ``param_groups()`` sets.
    """
    if any(parameter.requires_grad for parameter in criterion.parameters()):
        _watch_optimizers()
        _watched.add(criterion)
        _stepped.clear()


@cache
def _watch_optimizers() -> RemovableHandle:
    # Never removed, because torch's loop over the hooks fails if one is removed during it.
    return register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    second_turn = optimizer in _stepped
    _stepped.add(optimizer)
    reached = [c for c in _watched if any(p.grad is not None for p in c.parameters())]
    if not reached:
        return
    held = _held(_stepped)
    # By parameter, because a loss and its composition both have it.
    forgotten: dict[nn.Parameter, str] = {}
    unknown: set[str] = set()
    for criterion in reached:
        unknown |= _unknown_options(optimizer, criterion)
        missing = {
            parameter: f"{name} of {type(criterion).__name__}"
            for name, parameter in criterion.named_parameters()
            if parameter.requires_grad and parameter not in held
        }
        if second_turn or not missing:
            _watched.discard(criterion)
            forgotten = missing | forgotten
    if forgotten:
        # An optimizer that has not stepped yet, such as after several batches. The search takes a
        # while, so it is the last resort.
        held = _held(o for o in gc.get_objects() if issubclass(type(o), Optimizer))
        forgotten = {p: name for p, name in forgotten.items() if p not in held}
    if forgotten:
        warnings.warn(
            f"no optimizer holds {', '.join(forgotten.values())}: these parameters are never "
            "updated; build the optimizer from robustfer.losses.param_groups(model, criterion)",
            # The line with optimizer.step().
            stacklevel=3,
        )
    if unknown:
        warnings.warn(
            f"{type(optimizer).__name__} does not know {', '.join(sorted(unknown))}, which "
            "param_groups() of the loss sets; give these parameters a separate optimizer, such as "
            "torch.optim.SGD(criterion.param_groups())",
            stacklevel=3,
        )


def _held(optimizers: Iterable[Any]) -> set[Any]:
    # A wrapper that is still being built has no groups.
    return {p for o in optimizers for g in getattr(o, "param_groups", ()) for p in g["params"]}


def _unknown_options(optimizer: Optimizer, criterion: nn.Module) -> set[str]:
    """Return the options of the loss's own groups that the optimizer holding them ignores."""
    held = _held([optimizer])
    return {
        option
        for group in _own_groups(criterion)
        if held.intersection(group["params"])
        for option in group.keys() - optimizer.defaults.keys() - {"params"}
    }
