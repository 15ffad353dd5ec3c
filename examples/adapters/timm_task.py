"""EAC and relabelling as a training task of timm.

Copy the class. For another loss change `forward`; without relabelling leave out what has to do
with labels and take timm's `target` in place of `index`. No loss may need this file: it only says
where things go.
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
    """A loop of timm calls the task, steps the optimizer, and calls `after_step`.

    What timm's loop calls the target is here the sample's row: its label is the store's.
    The store is no part of the module, so that DistributedDataParallel leaves it alone.
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
        """Loss of a batch, its logits, and the terms of the loss."""
        view, view_flipped = self.views(images)
        output, flipped = self.trainable_module(view), self.trainable_module(view_flipped)
        target = self.relabeler.labels(index)
        terms = self.criterion.terms(output.logits, target, output.attention, flipped.attention)
        shown = {name: term.detach() for name, term in terms.items()}
        return {"loss": sum(terms.values()), "output": output.logits, **shown}

    def after_step(
        self, result: dict[str, Tensor], index: Tensor, *, step: int, epoch: int
    ) -> None:
        """Change labels, where timm's loop also calls `update_ema`."""
        self.relabeler.update(index, result["output"], step=step, epoch=epoch)

    def get_task_state(self, module: Any = None, ema: bool = False) -> dict[str, Any]:
        """What a checkpoint of timm holds beside the model."""
        return {} if ema else {"labels": self.relabeler.labels.state_dict()}

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,
        module: Any = None,
        ema: bool = False,
    ) -> None:
        """Go on with the labels of the checkpoint."""
        if state and not ema:
            self.relabeler.labels.load_state_dict(state["labels"], strict=strict)
