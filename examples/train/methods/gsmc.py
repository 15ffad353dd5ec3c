"""Train with GSMC: an average of the network as its teacher, and class maps that agree."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from examples.train.methods.base import EachView, Method, Network, Task
from examples.train.options import BelowOne, NonNegativeNumber
from examples.train.views import Batch
from robustfer.losses import GSMCLoss
from robustfer.state import ModelEMA


@dataclass(frozen=True)
class Options:
    """GSMC

    Args:
        distillation_weight: weight of the agreement with the teacher
        consistency_weight: weight of the attention consistency
        decay: decay of the teacher's moving average
    """

    distillation_weight: NonNegativeNumber = 0.9
    consistency_weight: NonNegativeNumber = 0.2
    decay: BelowOne = 0.999


class GSMC(Method):
    """Erase the same box in both views, so the teacher sees what the student sees."""

    Options = Options
    weighs_classes = True
    passes = 2

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        self.network = EachView(task.classifier)
        self.teacher = ModelEMA(task.classifier, decay=options.decay)
        self.criterion = GSMCLoss(
            distillation_weight=options.distillation_weight,
            consistency_weight=options.consistency_weight,
            class_weights=task.class_weights,
        )

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        view, view_flipped = self.views.pair(batch, mirror=True, erase="shared")
        output, flipped = network(view, view_flipped)
        batch.logits = output.logits
        taught = self.teacher(view_flipped)
        return self.criterion.terms(
            output.logits, batch.target, taught.logits, output.attention, flipped.attention
        )

    def after_step(self, batch: Batch) -> None:
        self.teacher.update(self.classifier)
