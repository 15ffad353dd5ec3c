"""Parameters that a loss has of its own: into the optimizer with them, and a warning where not."""

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

# The loop alone knows the optimizers, so all that step are looked at, and only as long as there is
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
    """Parameter groups for an optimizer: those of the model, and the loss's own.

    Frozen parameters are left out, one that both share counts as the model's, and a loss without
    parameters adds no group, so that the call is right for every loss.

    Args:
        model: the network; several as one ``nn.ModuleList([...])``.
        criterion: the loss.
        criterion_lr: learning rate of the loss's own parameters; by default the optimizer's.
        criterion_weight_decay: their weight decay: none by default, for a margin, temperature or
            class centre has no reason to shrink to zero.

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
    """Warn, once, should optimizers step without any of them holding the loss's parameters.

    The verdict falls when an optimizer steps for the second time, for by then every optimizer of
    the loop has had its turn, and only on parameters that have received a gradient. It sees
    subclasses of ``torch.optim.Optimizer``, in this process. A loss without parameters is not
    watched, and nothing is kept alive.

    Args:
        criterion: the loss, or a composition of losses.

    >>> import torch
    >>> criterion = nn.AdaptiveLogSoftmaxWithLoss(4, 8, cutoffs=[2])
    >>> warn_if_not_optimized(criterion)
    >>> model = nn.Linear(4, 4)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     for step in range(3):
    ...         features, target = model(torch.ones(2, 4)), torch.tensor([0, 5])
    ...         criterion(features, target).loss.backward()
    ...         optimizer.step()
    >>> len(caught), str(caught[0].message)[:42]
    (1, 'no optimizer that steps holds head.weight ')
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
