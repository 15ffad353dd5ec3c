"""Train with LA-Net: label distributions of neighbours, and a contrast of face and landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from examples.train.landmarks import find_landmarks
from examples.train.methods.base import Method, Network, Task, with_branch
from examples.train.options import BelowOne, NonNegativeNumber, PositiveInt, Share
from examples.train.transition import classes_given
from examples.train.views import Batch
from robustfer.functional import pseudo_labels
from robustfer.losses import LANetLoss
from robustfer.models import LandmarkCoordinates, LANetModel
from robustfer.state import FeatureQueue, LabelDistributionBank, ModelEMA


@dataclass(frozen=True)
class Options:
    """LA-Net

    Args:
        second_space: space of the landmarks: branch (trained with the network) or coordinates
        landmarks: dataset (those of the data set), or file:PATH
        landmarks_size: side in pixels of the images they were found in; default: that of the image
            files
        points: number of landmarks to convert to (the paper: 19)
        distribution_weight: weight of the label distributions; 0: none
        landmark_weight: weight of the heat maps; 0: none
        contrast_weight: weight of the contrast; 0: none
        neighbors: neighbours in each space
        distribution_decay: decay of the label distributions
        threshold: smallest probability of a pseudo label
        queue: number of keys to contrast with
        decay: decay of the key network's moving average
    """

    second_space: Literal["branch", "coordinates"] = "branch"
    landmarks: str = "dataset"
    landmarks_size: PositiveInt | None = None
    points: PositiveInt | None = None
    distribution_weight: NonNegativeNumber = 1.0
    landmark_weight: NonNegativeNumber = 1.0
    contrast_weight: NonNegativeNumber = 0.1
    neighbors: PositiveInt = 8
    distribution_decay: BelowOne = 0.9
    threshold: Share = 0.7
    queue: PositiveInt = 8192
    decay: BelowOne = 0.999


class LANet(Method):
    """Train a network that estimates label distributions and finds landmarks."""

    Options = Options
    weighs_classes = True
    skips_parameters = True

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        given = classes_given(task.faces)
        landmarks, self.layout = find_landmarks(
            options.landmarks, task.faces, size=task.views.size, found_at=options.landmarks_size,
            points=options.points,
        )  # fmt: skip
        self.register_buffer("points", landmarks, persistent=False)
        model, coordinates = task.classifier, None
        if options.second_space == "coordinates":
            coordinates = LandmarkCoordinates(landmarks, swap=self.layout.swap)
        else:
            model = with_branch(task, self.layout.num_points)
        self.network = LANetModel(model, coordinates, num_neighbors=options.neighbors)
        self.with_heatmaps = coordinates is None and options.landmark_weight > 0
        self.criterion = LANetLoss(
            image_size=task.views.size if self.with_heatmaps else None,
            distribution_weight=options.distribution_weight,
            landmark_weight=options.landmark_weight,
            contrast_weight=options.contrast_weight,
            class_weights=task.class_weights,
        )
        dtype = torch.get_default_dtype()
        self.bank = LabelDistributionBank(
            given,
            num_classes=len(task.faces.classes),
            decay=options.distribution_decay,
            dtype=dtype,
        )
        self.queue = FeatureQueue(
            64, capacity=options.queue if options.contrast_weight else 1, dtype=dtype
        )
        self.average = ModelEMA(self.network, decay=options.decay)

    @property
    def body(self) -> nn.Module:
        return self.network.model  # the estimates of LANetModel compare rows

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        options, index = self.options, batch.index
        view, points, visible = self.views.with_landmarks(batch, self.points[index], self.layout)
        output = network(view, points, index if options.distribution_weight else None)
        batch.logits = output.logits
        soft_target = self.bank.distribution[index]
        if options.distribution_weight:
            soft_target = self.bank(index, output.estimate, known=output.known)
        label = pseudo_labels(soft_target, index, threshold=options.threshold)
        averaged = self.average(view, points) if options.contrast_weight else output
        keys = averaged.expression_query.detach(), averaged.landmark_query.detach()
        self.seen = soft_target.detach(), keys, label
        return self.criterion.terms(
            logits=output.logits,
            target=batch.target,
            soft_target=soft_target,
            expression_query=output.expression_query,
            landmark_query=output.landmark_query,
            expression_key=keys[0],
            landmark_key=keys[1],
            pseudo_label=label,
            **self.queue.negatives(),
            heatmaps=output.heatmaps if self.with_heatmaps else None,
            landmarks=points if self.with_heatmaps else None,
            visible=visible if self.with_heatmaps else None,
        )

    def after_step(self, batch: Batch) -> None:
        soft_target, keys, label = self.seen
        self.bank.update(batch.index, soft_target)
        self.queue.update(*keys, label)
        if self.options.contrast_weight:
            self.average.update(self.network)

    def figures(self, epoch: int) -> dict[str, float]:
        """Return how many labels are believed wrong, and the precision of the new labels."""
        believed, faces = self.bank.distribution.argmax(1).cpu(), self.task.faces
        changed = believed != faces.targets
        figures = {"changed": float(changed.sum())}
        if faces.true_targets is not None:
            figures["precision"] = float((believed == faces.true_targets)[changed].float().mean())
        return figures
