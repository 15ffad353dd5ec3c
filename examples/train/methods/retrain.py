"""Train a second time, on labels that the first training corrects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.train.methods.base import Network, Task
from examples.train.methods.cross_entropy import CrossEntropy
from examples.train.options import BelowOne, Refused, Share
from examples.train.transition import VerifiedOptions, verify
from examples.train.views import Batch
from robustfer.audit import corrected_labels, read_probabilities
from robustfer.noise import transition_from_verified


@dataclass(frozen=True)
class Options(VerifiedOptions):
    """second training

    Args:
        first: folder of the first run, on the same training set
        evidence: how much the given labels count besides the predictions of the first run, from 0
            (not at all) to 1 (as much as the transition matrix says)
        own_choices: without verified labels, estimate how labels go wrong as if the classes that
            the first run predicts were the true ones: for labels that people gave
        label_smoothing: share of the target spread over all classes
    """

    first: str = ""
    evidence: Share = 0.5
    own_choices: bool = False
    label_smoothing: BelowOne = 0.0


class Retrain(CrossEntropy):
    """Train the classifier with cross entropy on corrected soft labels.

    Verified labels tell how labels go wrong. They also replace the labels of their faces.
    """

    Options = Options
    weighs_classes = False  # the weights balance the given labels, not the corrected ones

    soft_label: Tensor

    def __init__(self, task: Task, options: Any) -> None:
        super().__init__(task, options)
        if not options.first:
            raise Refused("retrain needs a first run on the same faces; add --first FOLDER")
        faces = task.faces
        known = verify(faces, options, seed=task.settings.run.seed)
        if options.decisions and known.estimate is None:
            self.note = (
                "--decisions has no face of a random draw, so the predictions of the first run "
                "tell how labels go wrong; label the random faces of the review too, or add "
                "--evidence 0.25"
            )
        first = read_probabilities(options.first).aligned(options.first, faces.ids, faces.classes)
        if first.given is not None and not torch.equal(first.given, faces.targets):
            raise Refused(
                f"--first {options.first} was trained on other labels, expected those of this "
                "training set; choose the same data and noise"
            )
        estimate = known.estimate
        if options.own_choices:
            if estimate is not None:
                raise Refused("--own-choices is for a run without verified labels; leave one out")
            estimate = transition_from_verified(
                first.probabilities.argmax(1), faces.targets, num_classes=len(faces.classes)
            )
        soft = corrected_labels(
            faces.targets, first.probabilities,
            transition=estimate, evidence=options.evidence,
        )  # fmt: skip
        self.corrected = soft.clone()
        said = F.one_hot(known.label[known.verified], len(faces.classes))
        soft[known.verified] = said.to(soft)
        self.register_buffer("soft_label", soft.to(torch.get_default_dtype()), persistent=False)

    def labels_now(self) -> Tensor:
        return self.soft_label.argmax(1)

    def learnt(self) -> Tensor:
        return self.corrected

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        batch.target = self.soft_label[batch.index]
        return super().loss(network, batch)
