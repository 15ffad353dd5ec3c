"""Train with EAC and relabelling as a Lightning module.

Copy the class. Change `training_step` for another loss. Without a relabeler it trains on the labels
of the batch. `lightning.pytorch` has the same names as `pytorch_lightning`.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn.functional import cross_entropy

from robustfer.augmentations import MirroredPair
from robustfer.losses import EACLoss
from robustfer.models import CAMClassifier
from robustfer.state import Relabeler


class EACModule(LightningModule):
    """Train on batches of any robustfer data set. They contain the row of each sample.

    A checkpoint contains the network's options: `EACModule.load_from_checkpoint(path)` is enough to
    predict. Pass `relabeler=` there to continue with the checkpoint's labels. The label store is
    not part of the module, so DistributedDataParallel does not touch it.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int,
        *,
        relabeler: Relabeler | None = None,
        model_options: dict[str, Any] | None = None,
        pretrained: bool = False,
        views: MirroredPair | None = None,
        criterion: EACLoss | None = None,
        learning_rate: float = 2e-3,
    ) -> None:
        super().__init__()
        # A checkpoint has its own weights, so loading it must not download any.
        self.save_hyperparameters("backbone", "num_classes", "model_options", "learning_rate")
        self.model = CAMClassifier(
            backbone, num_classes=num_classes, model_options=model_options, pretrained=pretrained
        )
        self.relabeler = relabeler
        self.views = views or MirroredPair()
        self.criterion = criterion or EACLoss()
        self.learning_rate = learning_rate
        # More than one batch per step when gradients are accumulated.
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.relabelled_step = 0

    def on_train_start(self) -> None:
        """Move the labels to the module's device. A resumed run continues after its last step."""
        self.seen, self.relabelled_step = [], self.global_step
        if self.relabeler is not None:
            self.relabeler.labels.to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Compute the loss of a batch. Both views are made here, on the device."""
        if self.relabeler is not None:
            # Look up the current labels.
            batch["target"] = self.relabeler.labels(batch["index"])
        target = batch["target"]
        view, view_flipped = self.views(batch["image"])
        output, flipped = self.model(view), self.model(view_flipped)
        terms = self.criterion.terms(output.logits, target, output.attention, flipped.attention)
        self.log_dict({name: term.detach() for name, term in terms.items()}, batch_size=len(target))
        return {"loss": sum(terms.values()), "logits": output.logits.detach()}

    def on_train_batch_end(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Change labels after the optimizer's step."""
        if self.relabeler is None:
            return
        self.seen.append((batch["index"], outputs["logits"]))
        if self.global_step > self.relabelled_step:
            step, epoch = self.global_step, self.current_epoch + 1
            for index, logits in self.seen:
                self.relabeler.update(index, logits, step=step, epoch=epoch)
            self.seen, self.relabelled_step = [], step

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Evaluate on unchanged images, with the data set's labels."""
        logits = self.model(self.views(batch["image"]).view).logits
        figures = {
            "val_loss": cross_entropy(logits, batch["target"]),
            "val_accuracy": (logits.argmax(1) == batch["target"]).float().mean(),
        }
        # Over all processes: each evaluates only its part of the faces.
        self.log_dict(figures, batch_size=len(logits), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW. Use `robustfer.losses.param_groups` if the loss has parameters."""
        return torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the labels in the checkpoint."""
        if self.relabeler is not None:
            checkpoint["labels"] = self.relabeler.labels.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the labels of the checkpoint, if it has any."""
        if self.relabeler is not None and "labels" in checkpoint:
            self.relabeler.labels.load_state_dict(checkpoint["labels"])
