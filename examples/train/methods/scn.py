"""Train with SCN: importance weights, their ranking, and relabelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from examples.train.methods.base import (
    Method,
    Network,
    Task,
    label_store,
    labels_learnt,
    targets_now,
)
from examples.train.options import BelowOne, NonNegativeInt, Share
from examples.train.transition import VerifiedOptions
from examples.train.views import Batch
from robustfer.losses import SCNLoss
from robustfer.models import ImportanceClassifier
from robustfer.state import Relabeler


@dataclass(frozen=True)
class Options(VerifiedOptions):
    """SCN

    Args:
        margin: required gap between the groups of importance; use 0.15 for batches of 1,024
        rank_weight: share of the ranking in the loss
        relabel_from: first epoch that changes labels, from 1
        relabel_margin: how much more probable the new class must be
        relabel: samples whose label can change
    """

    margin: Share = 0.07
    rank_weight: Share = 0.5
    relabel_from: NonNegativeInt = 10
    relabel_margin: BelowOne = 0.2
    relabel: Literal["low_importance", "all"] = "low_importance"


class SCN(Method):
    """Weigh samples by importance, and change labels in a store that all processes share."""

    Options = Options
    weighs_classes = True

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        self.network = ImportanceClassifier(task.classifier)
        self.criterion = SCNLoss(
            margin=options.margin,
            rank_weight=options.rank_weight,
            class_weights=task.class_weights,
        )
        self.labels = label_store(task, options)
        self.relabeler = Relabeler(
            self.labels,
            margin=options.relabel_margin,
            scope=options.relabel,
            start_epoch=options.relabel_from,
        )

    def labels_now(self) -> Tensor:
        return self.labels()

    def learnt(self) -> Tensor:
        return labels_learnt(self.task, self.labels)

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        batch.target = targets_now(self.labels, batch)
        output = network(self.views.single(batch))
        batch.logits = output.logits
        self.seen = output.logits.detach(), output.importance.detach()
        return self.criterion.terms(
            output.logits, batch.target, output.importance, self.network.bias
        )

    def after_step(self, batch: Batch) -> None:
        logits, importance = self.seen
        self.relabeler.update(
            batch.index, logits, importance, step=batch.step, epoch=batch.epoch,
            bias=self.network.bias,
        )  # fmt: skip

    def figures(self, epoch: int) -> dict[str, float]:
        return self.relabeler.figures(epoch=epoch, true_targets=self.task.faces.true_targets)
