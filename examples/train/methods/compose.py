"""Train with any losses by name, from the core or from plugins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from examples.train.methods.base import (
    EachView,
    Method,
    Network,
    Task,
    label_store,
    labels_learnt,
    targets_now,
)
from examples.train.options import BelowOne, PositiveInt, PositiveNumber, Refused
from examples.train.terms import make_term, weighs_classes
from examples.train.transition import VerifiedOptions
from examples.train.views import Batch
from robustfer.losses import CompositeLoss
from robustfer.models import ImportanceClassifier
from robustfer.state import ModelEMA, Relabeler

# The tensors that losses can take by these names.
BROUGHT = {
    *("logits", "logits_flipped", "target", "index", "features", "embeddings", "importance"),
    *("attention", "attention_flipped", "student_logits", "teacher_logits", "permutation"),
    *("classifier_weight", "bias", "class_counts", "progress", "votes", "vote_draw"),
}


@dataclass(frozen=True)
class Options(VerifiedOptions):
    """losses by name (see robustfer list, and robustfer show NAME for options)

    Args:
        loss: NAME[=WEIGHT][,OPTION=VALUE...]; repeat for each loss; default: cross_entropy
        erase: box to erase: independent in each view, or shared by both
        decay: decay of the teacher's moving average, if a loss takes a teacher
        relabel_from: first epoch that changes labels, from 1; default: never
        relabel_margin: how much more probable the new class must be
        class_counts: faces of each class, if a loss takes them: labels (count the current labels),
            or a list, such as the shares among verified labels
    """

    loss: list[str] = field(default_factory=list)
    erase: Literal["independent", "shared"] = "shared"
    decay: BelowOne = 0.999
    relabel_from: PositiveInt | None = None
    relabel_margin: BelowOne = 0.5
    class_counts: Literal["labels"] | list[PositiveNumber] = "labels"


class Compose(Method):
    """Combine losses, with a second view, a teacher and importances only if a loss takes them."""

    Options = Options
    skips_parameters = True
    weighs_classes = True

    def __init__(self, task: Task, options: Options) -> None:
        super().__init__(task, options)
        classifier = task.classifier
        sizes = {
            "num_samples": len(task.faces),
            "num_classes": len(task.faces.classes),
            "num_features": classifier.num_features,
            "batch_size": task.settings.optimizer.batch_size,
        }
        texts = options.loss or ["cross_entropy"]
        terms = [make_term(text, sizes, task.class_weights) for text in texts]
        names = [term.name for term in terms]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Refused(
                f"--loss {twice} is given {names.count(twice)} times; give each loss once, and "
                "combine it with itself by CompositeLoss in your own loop"
            )
        self.criterion = CompositeLoss(*terms)
        weigh_classes = any(map(weighs_classes, self.criterion.losses))
        if task.class_weights is not None and not weigh_classes:
            raise Refused(
                "--class-weights: none of the losses takes class weights; add one that does, such "
                "as cross_entropy"
            )
        self.needs = self.criterion.accepts - self.criterion.proposes
        lacking = self.criterion.requires - self.criterion.proposes - BROUGHT
        if lacking:
            raise Refused(
                f"--loss: {', '.join(self.criterion.names)} needs {', '.join(sorted(lacking))}, "
                f"which the program does not bring; it brings {', '.join(sorted(BROUGHT))}"
            )
        self.both = bool(self.needs & {"attention_flipped", "logits_flipped"})
        self.passes = 2 if self.both else 1  # type: ignore[misc]
        weighs = "importance" in self.needs
        model = ImportanceClassifier(classifier) if weighs else classifier
        self.network = EachView(model)
        self.teacher = (
            ModelEMA(model, decay=options.decay) if "teacher_logits" in self.needs else None
        )
        self.votes: Tensor | None
        self.register_buffer("votes", self.find_votes(), persistent=False)
        self.labels = label_store(task, options)
        self.class_counts: Tensor | None = None
        self.check_class_counts()
        never = task.settings.optimizer.epochs + 1
        self.relabeler = Relabeler(
            self.labels,
            margin=options.relabel_margin,
            scope="low_importance" if weighs else "all",
            weighting="importance" if weighs else "none",
            start_epoch=never if options.relabel_from is None else options.relabel_from,
        )

    def labels_now(self) -> Tensor:
        return self.labels()

    def learnt(self) -> Tensor | None:
        return labels_learnt(self.task, self.labels) if self.votes is None else None

    def loss(self, network: Network, batch: Batch) -> dict[str, Tensor]:
        batch.target = targets_now(self.labels, batch)
        views: tuple[Tensor, ...]
        if self.both or "teacher_logits" in self.needs:
            views = self.views.pair(batch, mirror=True, erase=self.options.erase)
        else:
            views = (self.views.single(batch),)
        output, *flipped = network(*views[: 2 if self.both else 1])
        batch.logits = output.logits
        head = self.classifier.get_classifier()
        tensors = {**output._asdict(), "index": batch.index, "target": batch.target}
        tensors |= {"student_logits": output.logits, "classifier_weight": head.weight}
        tensors |= {"bias": head.bias} if head.bias is not None else {}
        if "permutation" in self.needs:
            order = torch.randperm(len(batch.index), generator=batch.generator)
            tensors["permutation"] = order.to(batch.index.device)
        if "vote_draw" in self.needs:
            draw = torch.rand(batch.total, generator=batch.generator)[batch.rows]
            tensors["vote_draw"] = draw.to(batch.index.device)
        if self.votes is not None:
            tensors["votes"] = self.votes[batch.index]
        if "class_counts" in self.needs:
            tensors["class_counts"] = self.counted(batch.index.device)
        if flipped:
            tensors["attention_flipped"] = flipped[0].attention
            tensors["logits_flipped"] = flipped[0].logits
        if "progress" in self.needs:
            done = self.progress(batch)
            tensors["progress"] = torch.full((), done, device=batch.index.device)
        if self.teacher is not None:
            tensors["teacher_logits"] = self.teacher(views[1]).logits
        tensors = {name: tensors[name] for name in self.needs & tensors.keys()}
        proposed = self.criterion.propose(**tensors)
        importance = output.importance.detach() if "importance" in tensors else None
        self.seen = output.logits.detach(), importance, proposed
        return self.criterion.terms(**tensors, **proposed)

    def after_step(self, batch: Batch) -> None:
        logits, importance, proposed = self.seen
        self.criterion.update(batch.index, proposed)
        if self.teacher is not None:
            self.teacher.update(self.network.model)
        changed = self.relabeler.update(
            batch.index, logits, importance, step=batch.step, epoch=batch.epoch,
            bias=self.classifier.get_classifier().bias if importance is not None else None,
        )  # fmt: skip
        if changed:
            self.class_counts = None

    def check_class_counts(self) -> None:
        """Require a loss that takes counts, and one count for each class."""
        counts, classes = self.options.class_counts, self.task.faces.classes
        if isinstance(counts, str):
            return
        if "class_counts" not in self.needs:
            raise Refused("--class-counts needs a loss that takes them, such as extra_knowledge")
        if len(counts) != len(classes):
            raise Refused(
                f"--class-counts must have a number for each of {', '.join(classes)}, "
                f"got {len(counts)} numbers"
            )

    def find_votes(self) -> Tensor | None:
        """Return the votes for all faces (N, C), if a loss takes them."""
        if "votes" not in self.needs:
            return None
        if self.task.faces.votes is None:
            raise Refused(
                f"--loss {', '.join(self.criterion.names)} needs data with votes of several "
                "people, such as ferplus, or demo with --reader.voters 10"
            )
        return self.task.faces.votes

    def counted(self, device: torch.device) -> Tensor:
        """Return the samples of each class (C), counted again after labels change."""
        if self.class_counts is None:
            given = self.options.class_counts
            counts = self.labels.soft_target().sum(0) if isinstance(given, str) else given
            self.class_counts = torch.as_tensor(counts, device=device)
        return self.class_counts

    def figures(self, epoch: int) -> dict[str, float]:
        return self.relabeler.figures(epoch=epoch, true_targets=self.task.faces.true_targets)
