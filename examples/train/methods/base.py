"""What the loop knows of a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import timm
from torch import Tensor, nn

from examples.train.options import Refused, Settings
from examples.train.views import Batch, Views
from examples.train.weights import backbone_of
from robustfer.data import LabeledFaces
from robustfer.models import CAMClassifier, LandmarkClassifier
from robustfer.state import LabelStore, ModelEMA

Network = Callable[..., Any]


@dataclass(frozen=True)
class Task:
    """What every method is made from.

    Attributes:
        faces: the training set.
        classifier: a classifier with its start weights.
        views: makes views of batches.
        class_weights: a weight for each class (C), or ``None``.
        trained: whether the classifier starts from weights that were trained.
        steps: steps of the whole run.
        settings: all options.
    """

    faces: LabeledFaces
    classifier: CAMClassifier
    views: Views
    class_weights: Tensor | None
    trained: bool
    steps: int
    settings: Settings


class Method(nn.Module):
    """One method: all that it trains and remembers is a submodule, and so is saved and resumed.

    A subclass has ``Options``, a frozen dataclass, and sets ``network``, which the loop wraps and
    hands to :meth:`loss`, and ``criterion``.

    Args:
        task: what to train on.
        options: of the method.

    Attributes:
        passes: how many images of a sample pass through the network in a step.
        skips_parameters: whether a step may leave parameters of the network without gradient.
        weighs_classes: whether the loss takes class weights.
        ema: the average of the classifier's weights, where the run predicts with one; the loop
            moves it.
    """

    Options: ClassVar[type]
    passes: ClassVar[int] = 1
    skips_parameters: ClassVar[bool] = False
    weighs_classes: ClassVar[bool] = False

    network: nn.Module
    criterion: nn.Module

    def __init__(self, task: Task, options: Any) -> None:
        super().__init__()
        self.task, self.options, self.views = task, options, task.views
        self.ema: ModelEMA | None = None
        if task.class_weights is not None and not self.weighs_classes:
            raise Refused(
                f"--class-weights is not for {task.settings.method}; choose --sampling balanced"
            )

    @property
    def body(self) -> nn.Module:
        """The part of the network that does the work row by row: compiled, or taken in parts."""
        return self.network

    @property
    def classifier(self) -> CAMClassifier:
        """What is evaluated and saved."""
        return self.task.classifier

    def labels_now(self) -> Tensor:
        """The labels trained on, of all samples: where the method changes them, its own."""
        targets = self.task.faces.targets
        return targets if targets.ndim == 1 else targets.argmax(1)

    def progress(self, batch: Batch) -> float:
        """Share of the run's steps that are done."""
        return batch.step / self.task.steps

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the batch's loss by name; the loop adds them up.

        It also sets ``batch.logits``, which the record of the training takes.
        """
        raise NotImplementedError

    def after_step(self, batch: Batch) -> None:
        """Move what the method remembers; not called for a step that the scaler skipped."""

    def figures(self, epoch: int) -> dict[str, float]:
        """Return what to log after an epoch, counted from 1."""
        return {}


def ramp(progress: float, between: tuple[float, float]) -> float:
    """Rise from 0 to 1 while the progress goes from one share of the run to the other."""
    start, end = between
    if progress >= end:
        return 1.0
    return max(0.0, (progress - start) / (end - start)) if end > start else 0.0


class EachView(nn.Module):
    """Run a network on several views in one forward, as data-parallel training needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *views: Tensor) -> list[Any]:
        return [self.model(view) for view in views]


class WeightedCrossEntropy(nn.Module):
    """Cross entropy whose samples weigh as their class does; a plain mean over the batch.

    Unlike torch's it does not divide by the batch's sum of weights, which differs between the
    shares of a batch.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(
            logits, target, label_smoothing=self.label_smoothing, reduction="none"
        )
        if self.weight is not None:
            losses = losses * (self.weight[target] if target.ndim == 1 else target @ self.weight)
        return losses.mean()


def label_store(task: Task) -> LabelStore:
    """Return a store of the training set's labels, of probabilities where they are such."""
    targets = task.faces.targets
    return LabelStore(targets, num_classes=len(task.faces.classes), soft_targets=targets.ndim == 2)


def targets_now(labels: LabelStore, batch: Batch) -> Tensor:
    """Return what a batch is trained on now: classes, or rows of probabilities."""
    soft = batch.target.ndim == 2
    return labels.soft_target(batch.index) if soft else labels(batch.index)


def with_branch(task: Task, num_landmarks: int) -> LandmarkClassifier:
    """Return the classifier with a landmark branch: copies of trained stages, else drawn anew."""
    name, options = backbone_of(task.settings.model)
    pyramid = None if task.trained else timm.create_model(name, features_only=True, **options)
    return LandmarkClassifier(task.classifier, num_landmarks=num_landmarks, pyramid=pyramid)
