"""Define the interface between the training loop and a method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import timm
from torch import Tensor, nn

from examples.train.options import Refused, Settings
from examples.train.transition import VerifiedOptions, verify
from examples.train.views import Batch, Views
from examples.train.weights import backbone_of
from robustfer.data import LabeledFaces
from robustfer.models import CAMClassifier, LandmarkClassifier
from robustfer.state import ChangeReason, LabelStore, ModelEMA

Network = Callable[..., Any]


@dataclass(frozen=True)
class Task:
    """Everything that a method is made from.

    Attributes:
        faces: the training set.
        classifier: a classifier with its start weights.
        views: makes views of batches.
        class_weights: a weight for each class (C), or ``None``.
        trained: whether the start weights are trained.
        steps: number of steps of the whole run.
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
    """One method. Everything it trains or remembers is a submodule, so it is saved and resumed.

    A subclass defines ``Options``, a frozen dataclass, and sets ``network`` and ``criterion``. The
    loop wraps the network and passes it to :meth:`loss`.

    Args:
        task: data, classifier and settings.
        options: options of the method.

    Attributes:
        passes: images per sample that pass through the network in a step.
        skips_parameters: whether a step may leave parameters of the network without gradient.
        weighs_classes: whether the loss takes class weights.
        note: a line to print before the training, or ``None``.
        ema: the average of the classifier's weights, if the run has one. The loop updates it.
    """

    Options: ClassVar[type]
    passes: ClassVar[int] = 1
    skips_parameters: ClassVar[bool] = False
    weighs_classes: ClassVar[bool] = False

    network: nn.Module
    criterion: nn.Module
    note: str | None = None

    def __init__(self, task: Task, options: Any) -> None:
        super().__init__()
        self.task, self.options, self.views = task, options, task.views
        self.ema: ModelEMA | None = None
        if task.class_weights is not None and not self.weighs_classes:
            raise Refused(
                f"--class-weights: {task.settings.method} does not take class weights; remove it"
            )

    @property
    def body(self) -> nn.Module:
        """The part of the network that treats rows independently, to compile or run in parts."""
        return self.network

    @property
    def classifier(self) -> CAMClassifier:
        """The classifier to evaluate and save."""
        return self.task.classifier

    def labels_now(self) -> Tensor:
        """Return the current labels of all samples, with the changes of the method."""
        targets = self.task.faces.targets
        return targets if targets.ndim == 1 else targets.argmax(1)

    def learnt(self) -> Tensor | None:
        """Return the labels that the network learns: classes (N), or probabilities (N, C).

        ``None`` if it learns to predict the true ones. Labels that people decided count as given.
        """
        return self.task.faces.targets

    def progress(self, batch: Batch) -> float:
        """Return the share of the run's steps before this batch."""
        return batch.step / self.task.steps

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss by name, and set ``batch.logits``.

        The loop adds the terms up.
        """
        raise NotImplementedError

    def after_step(self, batch: Batch) -> None:
        """Update the method's state. It is not called for steps that the scaler skipped."""

    def figures(self, epoch: int) -> dict[str, float]:
        """Return figures to log after an epoch (from 1)."""
        return {}


def ramp(progress: float, between: tuple[float, float]) -> float:
    """Return a weight that rises from 0 to 1 between two shares of the run."""
    start, end = between
    if progress >= end:
        return 1.0
    return max(0.0, (progress - start) / (end - start)) if end > start else 0.0


class EachView(nn.Module):
    """Run a network on several views in one forward pass, as DistributedDataParallel needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *views: Tensor) -> list[Any]:
        return [self.model(view) for view in views]


class WeightedCrossEntropy(nn.Module):
    """Weigh the cross entropy of each sample by its class, and return the mean over the batch.

    torch divides by the sum of the weights instead, which differs between the processes' shares of
    a batch.
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


def label_store(task: Task, options: VerifiedOptions) -> LabelStore:
    """Return a label store for the training set, with soft targets if its labels are soft.

    Verified labels are set, and never change again.
    """
    targets = task.faces.targets
    soft = targets.ndim == 2
    store = LabelStore(targets, num_classes=len(task.faces.classes), soft_targets=soft)
    if options.decisions or options.verified:
        known = verify(task.faces, options, seed=task.settings.run.seed)
        rows = known.verified.nonzero()[:, 0]
        reason = ChangeReason.MANUAL
        store.update(rows, known.label[rows], step=0, epoch=0, reason=reason, gather=False)
    return store


def labels_learnt(task: Task, labels: LabelStore) -> Tensor:
    """Return the labels of a store at the end. Those that people decided are as given."""
    given = task.faces.targets
    now = (labels() if given.ndim == 1 else labels.soft_target()).cpu()
    decided = labels.decided().cpu()
    now[decided] = given[decided].to(now)
    return now


def check_shuffled(task: Task, option: str) -> None:
    """Refuse drawing by label for an option that takes the class shares of the data as given.

    Drawing by the given label changes the shares, and how often each class gets each label.
    """
    sampling = task.settings.data.sampling
    if sampling != "shuffled":
        raise Refused(
            f"--sampling must be shuffled with {option}, which needs the labels as often as they "
            f"are in the data, got {sampling}; remove it"
        )


def targets_now(labels: LabelStore, batch: Batch) -> Tensor:
    """Return the current labels of a batch: classes, or rows of probabilities."""
    soft = batch.target.ndim == 2
    return labels.soft_target(batch.index) if soft else labels(batch.index)


def with_branch(task: Task, num_landmarks: int) -> LandmarkClassifier:
    """Return the classifier with a landmark branch. It copies stages only if they are trained."""
    name, options = backbone_of(task.settings.model)
    pyramid = None if task.trained else timm.create_model(name, features_only=True, **options)
    return LandmarkClassifier(task.classifier, num_landmarks=num_landmarks, pyramid=pyramid)
