"""Train with EAC and relabelling as a timm training task.

Copy the class. Change `forward` for another loss. Without relabelling remove everything about
labels, and take timm's `target` instead of `index`.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.task import ClassificationTask
from torch import Tensor

from robustfer.augmentations import MirroredPair
from robustfer.losses import EACLoss
from robustfer.models import CAMClassifier
from robustfer.state import Relabeler


class EACTask(ClassificationTask):
    """Compute the loss in timm's loop, which steps the optimizer and then calls `after_step`.

    timm's loop passes the sample's row as the target, and the store has its label. The store is not
    part of the module, so DistributedDataParallel does not touch it.
    """

    def __init__(
        self,
        model: CAMClassifier,
        relabeler: Relabeler,
        *,
        views: MirroredPair | None = None,
        criterion: EACLoss | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(model, criterion or EACLoss(), device=device, verbose=False)
        self.views = (views or MirroredPair()).to(self.device)
        self.relabeler = relabeler
        self.relabeler.labels.to(self.device)

    def forward(self, images: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Return the loss of a batch, its logits, and the terms of the loss."""
        view, view_flipped = self.views(images)
        output, flipped = self.trainable_module(view), self.trainable_module(view_flipped)
        target = self.relabeler.labels(index)
        terms = self.criterion.terms(output.logits, target, output.attention, flipped.attention)
        shown = {name: term.detach() for name, term in terms.items()}
        return {"loss": sum(terms.values()), "output": output.logits, **shown}

    def after_step(
        self, result: dict[str, Tensor], index: Tensor, *, step: int, epoch: int
    ) -> None:
        """Change labels. Call it where timm's loop calls `update_ema`."""
        self.relabeler.update(index, result["output"], step=step, epoch=epoch)

    def get_task_state(self, module: Any = None, ema: bool = False) -> dict[str, Any]:
        """Return the state that timm's checkpoint stores besides the model."""
        return {} if ema else {"labels": self.relabeler.labels.state_dict()}

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: Any = None,
        ema: bool = False,
    ) -> None:
        """Load the labels of the checkpoint."""
        if state and not ema:
            self.relabeler.labels.load_state_dict(state["labels"], strict=strict)
