"""Make the optimizer and the schedule with timm's factories."""

from __future__ import annotations

from typing import Any

import timm.optim
import timm.scheduler
import torch
from torch.optim import Optimizer

from examples.train.methods.base import Method
from examples.train.options import OptimizerOptions, Refused
from robustfer.losses import param_groups

# Schedule -> the option that says when the rate changes.
_DECAYS = {"step": "decay_epochs", "multistep": "decay_milestones"}


class Joined(Optimizer):
    """Step the optimizer of the network, and what a loss learns at rates of its own.

    Hooks are called for it, which a wrapper such as timm's Lookahead does not do.

    Args:
        main: of the network and of what else is scheduled.
        beside: of parameters that no schedule and no other option concerns.
        clip_norm: largest norm of the gradient of ``main``; ``None``: no limit.
    """

    def __init__(
        self, main: Optimizer, beside: Optimizer | None = None, *, clip_norm: float | None = None
    ) -> None:
        self.parts = {"main": main} if beside is None else {"main": main, "beside": beside}
        self.main, self.clip_norm = main, clip_norm
        # Their groups are shared: a scaler finds all gradients here.
        super().__init__(self._groups(), main.defaults)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts.values() for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Clip the gradient of the first, and step both."""
        if self.clip_norm is not None:
            trained = [p for group in self.main.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, self.clip_norm)
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both, which gives them new groups."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self.param_groups[:] = self._groups()


def make_optimizer(method: Method, options: OptimizerOptions) -> Joined:
    """Return an optimizer of the network and of what the loss learns, the latter not decayed.

    What a loss asks to be learned at a rate of its own is left to plain gradient descent, and its
    gradient is not clipped.
    """
    network, decay = method.network, options.weight_decay
    if options.layer_decay is None:
        groups = timm.optim.param_groups_weight_decay(network, decay)
    else:
        backbone = method.classifier.backbone
        groups = timm.optim.param_groups_layer_decay(
            backbone, decay, layer_decay=options.layer_decay
        )
        inside = set(backbone.parameters())
        beside = [p for p in network.parameters() if p.requires_grad and p not in inside]
        groups += [{"params": beside, "lr_scale": 1.0}] * bool(beside)
    of_loss = param_groups(network, method.criterion)[1:]
    own = [group for group in of_loss if "lr" in group]
    try:
        main = timm.optim.create_optimizer_v2(
            [*groups, *(group for group in of_loss if "lr" not in group)],
            opt=options.optimizer,
            lr=options.learning_rate,
            weight_decay=decay,
            **options.optimizer_options,
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise Refused(
            f"--optimizer {options.optimizer} with {options.optimizer_options}: {error}; "
            "timm.optim.list_optimizers() has the names"
        ) from error
    beside = torch.optim.SGD(own) if own else None
    return Joined(main, beside, clip_norm=options.clip_norm)


class Schedule:
    """Set the learning rate of each step: torch's one cycle, or a timm schedule by name.

    Args:
        optimizer: the optimizer to set learning rates of.
        options: the schedule and its options.
        steps: steps per epoch.
    """

    def __init__(self, optimizer: Optimizer, options: OptimizerOptions, *, steps: int) -> None:
        self.updates = 0
        self._torch: torch.optim.lr_scheduler.OneCycleLR | None = None
        self._timm: Any = None
        try:
            if options.schedule == "onecycle":
                self._torch = torch.optim.lr_scheduler.OneCycleLR(
                    optimizer,
                    [
                        options.learning_rate * g.get("lr_scale", 1.0)
                        for g in optimizer.param_groups
                    ],
                    total_steps=max(2, options.epochs * steps),
                    **options.schedule_options,
                )
            elif options.schedule == "none":
                if options.schedule_options:
                    raise ValueError("it takes no options; remove them, or choose a schedule")
                # timm's schedules do the same.
                for group in optimizer.param_groups:
                    group["lr"] *= group.get("lr_scale", 1.0)
            else:
                lacking = _DECAYS.get(options.schedule)
                if lacking is not None and lacking not in options.schedule_options:
                    raise ValueError(
                        f"the learning rate would stay the same for 90 epochs, timm's default; add "
                        f"--schedule-options.{lacking}"
                    )
                self._timm, _ = timm.scheduler.create_scheduler_v2(
                    optimizer,
                    sched=options.schedule,
                    num_epochs=options.epochs,
                    step_on_epochs=False,
                    updates_per_epoch=steps,
                    **options.schedule_options,
                )
        except (ValueError, TypeError, AssertionError) as error:
            raise Refused(
                f"--schedule {options.schedule} with {options.schedule_options}: {error}"
            ) from error

    def step(self) -> None:
        """Set the next learning rate. Call it after each step of the optimizer."""
        self.updates += 1
        if self._torch is not None:
            self._torch.step()
        elif self._timm is not None:
            self._timm.step_update(self.updates)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run. timm's schedules need only the number of steps."""
        own = None if self._torch is None else self._torch.state_dict()
        return {"updates": self.updates, "torch": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state. The optimizer's own state has the learning rates."""
        self.updates = state["updates"]
        if self._torch is not None:
            self._torch.load_state_dict(state["torch"])
