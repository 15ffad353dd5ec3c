"""Parameters of a loss: groups for the optimizer, and a warning if no optimizer holds them."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any
from weakref import WeakSet

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from robustfer._checks import check_range

# Only the loop knows the optimizers, so all that step are looked at, and only as long as there is
# a loss whose parameters are not known to be in one of them.
_watched: WeakSet[nn.Module] = WeakSet()
_stepped: WeakSet[Optimizer] = WeakSet()


def param_groups(
    model: nn.Module,
    criterion: nn.Module,
    *,
    criterion_lr: float | None = None,
    criterion_weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer: those of the model, and the loss's own.

    Frozen parameters are left out, and one that both share counts as the model's. A loss without
    parameters adds no group.

    Args:
        model: the network; several as one ``nn.ModuleList([...])``.
        criterion: the loss.
        criterion_lr: learning rate of the loss's own parameters; by default the optimizer's.
        criterion_weight_decay: their weight decay. By default none: a margin or a temperature has
            no reason to shrink to zero.

    Returns:
        One or two dictionaries, as every ``torch.optim`` optimizer takes them.

    Raises:
        ValueError: an option is negative, or nothing is to be trained.

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
    shared = set(model.parameters())
    of_model = [p for p in model.parameters() if p.requires_grad]
    of_criterion = [p for p in criterion.parameters() if p.requires_grad and p not in shared]
    groups: list[dict[str, Any]] = []
    if of_model:
        groups.append({"params": of_model})
    if of_criterion:
        groups.append({"params": of_criterion, **options})
    if not groups:
        raise ValueError("model and criterion hold no parameter that requires a gradient")
    return groups


def warn_if_not_optimized(criterion: nn.Module) -> None:
    """Warn once if optimizers step and none of them holds the loss's parameters.

    It is said when an optimizer steps for the second time: by then every optimizer of the loop has
    had its turn. Only parameters that have received a gradient count. Nothing is kept alive.
    """
    if any(parameter.requires_grad for parameter in criterion.parameters()):
        _watch_optimizers()
        _watched.add(criterion)
        _stepped.clear()


@cache
def _watch_optimizers() -> RemovableHandle:
    # Registered once and for good: torch's loop over the hooks does not survive a removal.
    return register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    second_turn = optimizer in _stepped
    _stepped.add(optimizer)
    reached = [c for c in _watched if any(p.grad is not None for p in c.parameters())]
    if not reached:
        return
    held = {p for o in _stepped for group in o.param_groups for p in group["params"]}
    forgotten: dict[nn.Parameter, str] = {}  # a loss and a composition that holds it name it once
    for criterion in reached:
        missing = {
            parameter: f"{name} of {type(criterion).__name__}"
            for name, parameter in criterion.named_parameters()
            if parameter.requires_grad and parameter not in held
        }
        if second_turn or not missing:
            _watched.discard(criterion)
            forgotten = missing | forgotten
    if forgotten:
        warnings.warn(
            f"no optimizer that steps holds {', '.join(forgotten.values())}: gradients pile up "
            "there and nothing is learned; build the optimizer from "
            "robustfer.losses.param_groups(model, criterion)",
            stacklevel=3,  # the line with optimizer.step()
        )
