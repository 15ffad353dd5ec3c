"""Train with EAC: the class maps of an image and of its mirror image must agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from examples.train.methods.base import EachView, Method, Network, Task
from examples.train.options import BelowOne, NonNegativeNumber
from examples.train.views import Batch
from robustfer.losses import EACLoss


@dataclass(frozen=True)
class Options:
    """EAC

    Args:
        consistency_weight: weight of the attention consistency
        erase: box to erase: independent in each view, or shared by both
        label_smoothing: share of the target spread over all classes
    """

    consistency_weight: NonNegativeNumber = 5.0
    erase: Literal["independent", "shared"] = "independent"
    label_smoothing: BelowOne = 0.0


class EAC(Method):
    """Classify the image, and compare its class maps with those of the mirror image."""

    Options = Options
    weighs_classes = True
    passes = 2

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        self.network = EachView(task.classifier)
        self.criterion = EACLoss(
            consistency_weight=options.consistency_weight,
            label_smoothing=options.label_smoothing,
            class_weights=task.class_weights,
        )

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        views = self.views.pair(batch, mirror=False, erase=self.options.erase)
        output, flipped = network(*views)
        batch.logits = output.logits
        return self.criterion.terms(
            output.logits, batch.target, output.attention, flipped.attention
        )
