"""EAC and relabelling as a module of Lightning.

Copy the class. For another loss change `training_step`; without a relabeler it trains on the
labels of the batch. `lightning.pytorch` has the same names as `pytorch_lightning`. No loss may need
this file: it only says where things go.
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
    """Takes the batches of any data set of robustfer, which bring the rows of the samples.

    A checkpoint keeps what builds the network, so `EACModule.load_from_checkpoint(path)` needs
    nothing else to predict. Pass `relabeler=` there to train on with the labels of the checkpoint.
    The store of the labels is not part of the module: DistributedDataParallel leaves it alone.
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
        # A checkpoint brings its own weights: nothing is downloaded to load it.
        self.save_hyperparameters("backbone", "num_classes", "model_options", "learning_rate")
        self.model = CAMClassifier(
            backbone, num_classes=num_classes, model_options=model_options, pretrained=pretrained
        )
        self.relabeler = relabeler
        self.views = views or MirroredPair()
        self.criterion = criterion or EACLoss()
        self.learning_rate = learning_rate

    def on_fit_start(self) -> None:
        """Bring the labels to where the module is."""
        if self.relabeler is not None:
            self.relabeler.labels.to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Both views are made here, on the device, of the whole batch."""
        if self.relabeler is not None:
            batch["target"] = self.relabeler.labels(batch["index"])  # the labels as they are now
        target = batch["target"]
        view, view_flipped = self.views(batch["image"])
        output, flipped = self.model(view), self.model(view_flipped)
        terms = self.criterion.terms(output.logits, target, output.attention, flipped.attention)
        self.log_dict({name: term.detach() for name, term in terms.items()}, batch_size=len(target))
        return {"loss": sum(terms.values()), "logits": output.logits.detach()}

    def on_train_batch_end(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], batch_idx: int
    ) -> None:
        """Change labels: the optimizer has made its step."""
        if self.relabeler is not None:
            self.relabeler.update(
                batch["index"],
                outputs["logits"],
                step=self.global_step,
                epoch=self.current_epoch + 1,
            )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The images as they are, with the labels they came with."""
        logits = self.model(self.views(batch["image"]).view).logits
        figures = {
            "val_loss": cross_entropy(logits, batch["target"]),
            "val_accuracy": (logits.argmax(1) == batch["target"]).float().mean(),
        }
        self.log_dict(figures, batch_size=len(logits))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain AdamW; `robustfer.losses.param_groups` for a loss that has parameters."""
        return torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Labels go into the checkpoint."""
        if self.relabeler is not None:
            checkpoint["labels"] = self.relabeler.labels.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the labels of the checkpoint, if it has any."""
        if self.relabeler is not None and "labels" in checkpoint:
            self.relabeler.labels.load_state_dict(checkpoint["labels"])
