"""Train with forward correction: the network predicts the true label, the loss the given one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from examples.train.methods.base import Method, Network, Task, check_shuffled, ramp
from examples.train.options import BelowOne, NonNegativeNumber, Share
from examples.train.transition import TransitionOptions, find_transition, verify
from examples.train.views import Batch
from robustfer.functional import self_distillation
from robustfer.losses import ForwardCorrectionLoss
from robustfer.state import ModelEMA


@dataclass(frozen=True)
class Options(TransitionOptions):
    """forward correction

    Args:
        q: 0 for cross entropy; above 0 the loss learns less from labels that the network
            contradicts
        distillation_weight: weight of the agreement with a teacher that sees the mirrored view
            without erasing; 0: no teacher
        distillation_ramp: shares of the run between which that weight rises
        decay: decay of the teacher's moving average
    """

    transition: str = "verified"
    q: Share = 0.0
    distillation_weight: NonNegativeNumber = 0.0
    distillation_ramp: tuple[Share, Share] = (0.15, 0.4)
    decay: BelowOne = 0.99


class Forward(Method):
    """Train with forward correction.

    With ``--transition none`` it is cross entropy, or generalized cross entropy for q > 0.
    """

    Options = Options

    label: Tensor
    verified: Tensor

    def __init__(self, task: Task, options: Any) -> None:
        super().__init__(task, options)
        self.network = task.classifier
        if options.transition != "none":
            check_shuffled(task, f"--transition {options.transition}")
        known = verify(task.faces, options, seed=task.settings.run.seed)
        self.estimate = known.estimate
        self.transition = find_transition(options.transition, task.faces, known.estimate)
        matrix = torch.eye(len(task.faces.classes)) if self.transition is None else self.transition
        self.criterion = ForwardCorrectionLoss(
            transition=matrix.to(torch.get_default_dtype()), q=options.q, reduction="none"
        )
        self.register_buffer("label", known.label, persistent=False)
        self.register_buffer("verified", known.verified, persistent=False)
        self.teacher: ModelEMA | None = None
        if options.distillation_weight:
            self.teacher = self.make_teacher()

    def make_teacher(self) -> ModelEMA:
        """Return a teacher: a moving average of the classifier."""
        return ModelEMA(self.classifier, decay=self.options.decay, buffers="ema")

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything except the teacher, which stays in eval mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def labels_now(self) -> Tensor:
        return self.label

    def learnt(self) -> Tensor | None:
        return super().learnt() if self.transition is None else None

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        batch.target = self.label[batch.index]
        view, mirror = self.views.pair(batch, mirror=True, erase="first")
        batch.logits = logits = network(view).logits
        losses = self.criterion(logits, batch.target, self.verified[batch.index])
        terms = {"forward_correction": losses.mean()}
        if self.teacher is not None:
            weight = self.distillation_weight(batch)
            # Skip the teacher while its weight is 0.
            taught = self.teacher(mirror).logits if weight else logits
            terms["self_distillation"] = weight * self_distillation(logits, taught)
        return terms

    def distillation_weight(self, batch: Batch) -> float:
        """Return the weight of the agreement with the teacher at this step."""
        options = self.options
        share = ramp(self.progress(batch), options.distillation_ramp)
        return float(options.distillation_weight * share)

    def after_step(self, batch: Batch) -> None:
        if self.teacher is not None:
            self.teacher.update(self.classifier)
