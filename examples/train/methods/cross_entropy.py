"""Train with cross entropy, the baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from examples.train.methods.base import Method, Network, Task, WeightedCrossEntropy
from examples.train.options import BelowOne
from examples.train.views import Batch


@dataclass(frozen=True)
class Options:
    """cross entropy

    Args:
        label_smoothing: share of the target spread over all classes
    """

    label_smoothing: BelowOne = 0.0


class CrossEntropy(Method):
    """Train the classifier with cross entropy."""

    Options = Options
    weighs_classes = True

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        self.network = task.classifier
        self.criterion = WeightedCrossEntropy(task.class_weights, options.label_smoothing)

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        output = network(self.views.single(batch))
        batch.logits = output.logits
        return {"cross_entropy": self.criterion(output.logits, batch.target)}
