"""What helped against noisy labels, put together; each part is switched by its own option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from examples.train.landmarks import find_landmarks
from examples.train.methods import forward
from examples.train.methods.base import EachView, Network, Task, ramp, with_branch
from examples.train.options import Momentum, NonNegativeNumber, PositiveInt, Refused, Share
from examples.train.views import Batch
from robustfer.functional import attention_consistency, self_distillation
from robustfer.losses import LandmarkAdaptiveWingLoss
from robustfer.noise import transition_from_confident_joint
from robustfer.state import LabelDistributionBank


@dataclass(frozen=True)
class Options(forward.Options):
    """the composition

    Args:
        memory_weight: share of what the teacher remembers of a sample in its target; 0: without
        memory_ramp: shares of the run between which that share rises
        memory_momentum: of what is remembered
        posterior_from: share of the run from which a sample weighs as much as its label is
            probably right; 1: never
        posterior_floor: least weight of a sample
        consistency_weight: of class maps that agree with the mirror image's, a second pass; 0:
            without
        landmark_weight: of the heat maps of a landmark branch; 0: without
        landmarks: dataset (its own), or file:PATH
        landmarks_size: side of the images they were found in, in pixels; default: the images' own
        points: convert to so many landmarks
        adjust_to: predict as if the classes had the shares of the truth, or the same (uniform)
        adjust_strength: 1 for these very shares, less for some way to them
    """

    transition: str = "none"
    memory_weight: Share = 0.0
    memory_ramp: tuple[Share, Share] = (0.15, 0.4)
    memory_momentum: Momentum = 0.7
    posterior_from: Share = 1.0
    posterior_floor: Share = 0.2
    consistency_weight: NonNegativeNumber = 0.0
    landmark_weight: NonNegativeNumber = 0.0
    landmarks: str = "dataset"
    landmarks_size: PositiveInt | None = None
    points: PositiveInt | None = None
    adjust_to: Literal["none", "truth", "uniform"] = "none"
    adjust_strength: NonNegativeNumber = 1.0


class Robust(forward.Forward):
    """Forward correction with a memory, consistent maps, landmarks and adjusted predictions."""

    Options = Options
    skips_parameters = True

    shift: Tensor
    posterior_transition: Tensor

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        model, classes = self.network, len(task.faces.classes)
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
        self.network = EachView(model)
        self.memory: LabelDistributionBank | None = None
        if options.memory_weight or options.posterior_from < 1:
            self.memory = LabelDistributionBank(
                self.label, num_classes=classes, momentum=options.memory_momentum,
                dtype=torch.get_default_dtype(),
            )  # fmt: skip
            self.teacher = self.teacher or self.make_teacher()
        # Without a transition matrix one is estimated from the memory, once, when it is needed.
        self.register_buffer("posterior_transition", self.criterion.transition.clone())
        self.estimated = False
        self.register_buffer("shift", self.prediction_shift(), persistent=False)

    def prediction_shift(self) -> Tensor:
        """What the class shares asked for add to the logits (C).

        The loss takes it away, so the network learns to predict with it.
        """
        options, classes = self.options, len(self.task.faces.classes)
        truth = None if self.estimate is None else self.estimate.shares
        asked = torch.full((classes,), 1 / classes).double()
        # Without a transition matrix the network learns the shares of the labels.
        learnt = self.label.bincount(minlength=classes).clamp(min=1).double()
        if options.adjust_to == "none":
            return torch.zeros(classes)
        if truth is None and (options.adjust_to == "truth" or self.transition is not None):
            raise Refused(
                f"--adjust-to {options.adjust_to} needs the true shares of the classes: --verified "
                "100 for data that knows true labels, or --decisions FILE of a review"
            )
        if options.adjust_to == "truth":
            asked = truth
        if self.transition is not None:
            learnt = truth
        ratio = (asked / asked.sum()).log() - (learnt / learnt.sum()).log()
        return (options.adjust_strength * ratio).to(torch.get_default_dtype())

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
        logits = output.logits - self.shift
        weight = self.distillation_weight(batch)
        taught = logits.detach()
        if self.teacher is not None and (weight or self.memory is not None):
            taught = self.teacher(mirror).logits - self.shift
        losses = self.criterion(logits, batch.target, verified)
        if self.memory is not None:
            self.believed = self.memory(index, taught.softmax(1))
            weights = self.sample_weights(batch, verified)
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

    def sample_weights(self, batch: Batch, verified: Tensor) -> Tensor:
        """Return the probability that each label is right (B), late in the run; 1 before."""
        if self.progress(batch) < self.options.posterior_from:
            return torch.ones_like(self.believed[:, 0])
        columns = self.posterior_transition[:, batch.target].T
        joint = self.believed * columns
        total = joint.sum(1).clamp(min=torch.finfo(joint.dtype).tiny)
        right = joint.gather(1, batch.target[:, None])[:, 0] / total
        return right.clamp(min=self.options.posterior_floor).masked_fill(verified, 1.0)

    def after_step(self, batch: Batch) -> None:
        super().after_step(batch)
        if self.memory is None:
            return
        self.memory.update(batch.index, self.believed)
        late = (batch.step + 1) / self.task.steps >= self.options.posterior_from
        if late and self.transition is None and not self.estimated:
            self.estimated = True
            own = self.posterior_transition  # a resumed run has it already
            if torch.equal(own, torch.eye(len(own)).to(own)):
                found = transition_from_confident_joint(
                    self.memory.distribution.cpu(), self.label.cpu()
                )
                own.copy_(found)
