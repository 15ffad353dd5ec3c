"""Learn from a teacher, the moving average of the network. Options add more parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from examples.train.landmarks import find_landmarks
from examples.train.memory import Memory
from examples.train.methods import forward
from examples.train.methods.base import (
    EachView,
    Network,
    Task,
    check_shuffled,
    ramp,
    with_branch,
)
from examples.train.options import BelowOne, NonNegativeNumber, PositiveInt, Refused, Share
from examples.train.transition import Shares, prediction_shift
from examples.train.views import Batch
from robustfer.functional import attention_consistency, self_distillation
from robustfer.losses import LandmarkAdaptiveWingLoss


@dataclass(frozen=True)
class Options(forward.Options):
    """a teacher, and more parts, each off until its option is set

    Args:
        memory_weight: share of the teacher's mean prediction in a sample's target; 0: none
        memory_ramp: shares of the run between which that share rises
        memory_decay: decay of the mean prediction
        posterior_from: share of the run after which a sample weighs by the probability that its
            label is right; 1: never
        posterior_floor: smallest weight of a sample
        consistency_weight: weight of class maps that agree with those of the mirror image; needs a
            second pass; 0: none
        landmark_weight: weight of the heat maps of a landmark branch; 0: no branch
        landmarks: dataset (those of the data set), or file:PATH
        landmarks_size: side in pixels of the images they were found in; default: that of the image
            files
        points: number of landmarks to convert to
        adjust_to: class shares to predict with: truth (the true ones), uniform (equal ones), or
            none (no change)
        adjust_strength: 1 for exactly these shares, less for part of the way
    """

    transition: str = "none"
    distillation_weight: NonNegativeNumber = 0.5
    memory_weight: Share = 0.0
    memory_ramp: tuple[Share, Share] = (0.15, 0.4)
    memory_decay: BelowOne = 0.7
    posterior_from: Share = 1.0
    posterior_floor: Share = 0.2
    consistency_weight: NonNegativeNumber = 0.0
    landmark_weight: NonNegativeNumber = 0.0
    landmarks: str = "dataset"
    landmarks_size: PositiveInt | None = None
    points: PositiveInt | None = None
    adjust_to: Shares = "none"
    adjust_strength: NonNegativeNumber = 1.0


class Teacher(forward.Forward):
    """Train with a teacher. Memory, landmarks, consistent maps and correction are options."""

    Options = Options
    skips_parameters = True

    shift: Tensor

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        model = self.network
        self.passes = 2 if options.consistency_weight else 1  # type: ignore[misc]
        self.wing: LandmarkAdaptiveWingLoss | None = None
        if options.landmark_weight:
            points, self.layout = find_landmarks(
                options.landmarks, task.faces, size=task.views.size,
                found_at=options.landmarks_size, points=options.points,
            )  # fmt: skip
            self.register_buffer("points", points, persistent=False)
            self.wing = LandmarkAdaptiveWingLoss(image_size=task.views.size)
            model = with_branch(task, self.layout.num_points)
        elif (options.landmarks, options.landmarks_size, options.points) != ("dataset", None, None):
            raise Refused(
                "--landmarks, --landmarks-size and --points need a landmark branch; add "
                "--landmark-weight, such as 1, or remove them"
            )
        self.network = EachView(model)
        self.memory: Memory | None = None
        if options.memory_weight or options.posterior_from < 1:
            self.memory = Memory(
                self.label, self.transition, num_classes=len(task.faces.classes),
                decay=options.memory_decay,
            )  # fmt: skip
            self.teacher = self.teacher or self.make_teacher()
        if options.adjust_to != "none":
            check_shuffled(task, f"--adjust-to {options.adjust_to}")
        # The loss subtracts the shift, so the network learns predictions that include it.
        shift = prediction_shift(
            options.adjust_to, options.adjust_strength, self.label, self.estimate,
            corrected=self.transition is not None, num_classes=len(task.faces.classes),
        )  # fmt: skip
        self.register_buffer("shift", shift, persistent=False)

    def learnt(self) -> Tensor | None:
        return super().learnt() if self.options.adjust_to == "none" else None

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        options, index, terms = self.options, batch.index, {}
        batch.target, verified = self.label[index], self.verified[index]
        if self.wing is None:
            view, mirror = self.views.pair(batch, mirror=True, erase="first")
        else:
            view, mirror, points, visible = self.views.pair_with_landmarks(
                batch, self.points[index], self.layout
            )
        output, *flipped = network(*((view, view.flip(-1)) if self.passes == 2 else (view,)))
        batch.logits = logits = output.logits - self.shift
        weight = self.distillation_weight(batch)
        taught = logits.detach()
        if self.teacher is not None and (weight or self.memory is not None):
            taught = self.teacher(mirror).logits - self.shift
        losses = self.criterion(logits, batch.target, verified)
        if self.memory is not None:
            self.believed = self.memory(index, taught.softmax(1))
            weights = self.sample_weights(batch, self.believed, verified)
            share = options.memory_weight * ramp(self.progress(batch), options.memory_ramp)
            shares = share * ~verified
            remembered = self.criterion(logits, self.believed, torch.ones_like(verified))
            terms["memory"] = (shares * remembered).mean()
            losses = weights * (1 - shares) * losses
        terms["forward_correction"] = losses.mean()
        if options.distillation_weight:
            terms["self_distillation"] = weight * self_distillation(logits, taught)
        if flipped:
            agreement = attention_consistency(output.attention, flipped[0].attention)
            terms["attention_consistency"] = options.consistency_weight * agreement
        if self.wing is not None:
            found = self.wing(output.heatmaps, points, visible)
            terms["landmark_adaptive_wing"] = options.landmark_weight * found
        return terms

    def sample_weights(self, batch: Batch, believed: Tensor, verified: Tensor) -> Tensor:
        """Return the probability that each label is right (B), or 1 early in the run."""
        if self.memory is None or self.progress(batch) < self.options.posterior_from:
            return torch.ones_like(believed[:, 0])
        right = self.memory.right(believed, batch.target)
        return right.clamp(min=self.options.posterior_floor).masked_fill(verified, 1.0)

    def after_step(self, batch: Batch) -> None:
        super().after_step(batch)
        if self.memory is not None:
            self.memory.bank.update(batch.index, self.believed)
            if (batch.step + 1) / self.task.steps >= self.options.posterior_from:
                self.memory.estimate()
