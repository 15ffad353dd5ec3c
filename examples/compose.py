"""Train on noisy faces with any losses by name, the core's and the plugins', and their weights.

python examples/compose.py --loss cross_entropy --loss attention_consistency=1
python examples/compose.py --loss generalized_cross_entropy=1,q=0.5 --noise 0.3
python examples/compose.py --loss cross_entropy --loss self_distillation=0.9 --relabel-from 10

`robustfer list` has the names, `robustfer show NAME` their options.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice

import kornia.augmentation as K
import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from tqdm import tqdm

from robustfer import experiment, registry
from robustfer.augmentations import KorniaPipeline, MirroredPair, SingleView
from robustfer.checkpoint import save_model
from robustfer.data import LabeledFaces
from robustfer.losses import CompositeLoss, Term, param_groups
from robustfer.metrics import History, accuracy, confusion_matrix, mean_class_accuracy
from robustfer.models import CAMClassifier, ImportanceClassifier
from robustfer.state import LabelStore, ModelEMA, Relabeler


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments that every example shares, the losses, and what some of them need."""
    parser = experiment.argument_parser(__doc__, methods=["compose"])
    parser.add_argument(
        "--loss", action="append", metavar="NAME[=WEIGHT][,OPTION=VALUE...]", help="as often as apt"
    )
    parser.add_argument("--erase", choices=["independent", "shared"], default="shared")
    parser.add_argument("--decay", type=float, default=0.999, help="of the teacher, if one is used")
    parser.add_argument("--relabel-from", type=int, help="epoch, counted from 1; default never")
    parser.add_argument("--relabel-margin", type=float, default=0.5)
    settings = experiment.parse(parser, arguments)
    settings.loss = settings.loss or ["cross_entropy"]
    return settings


def make_term(text: str, sizes: dict[str, int]) -> Term:
    """Make ``NAME[=WEIGHT][,OPTION=VALUE...]``; sizes that its factory needs are filled in."""
    head, _, rest = text.partition(",")
    name, _, weight = head.partition("=")
    if name == "cross_entropy":  # torch's own, which calls the logits otherwise
        options = experiment.parse_options(rest)
        loss, inputs = nn.CrossEntropyLoss(**options), {"input": "logits"}
    else:
        known = registry.describe(name).options
        switches = [option.name for option in known if isinstance(option.default, bool)]
        options = experiment.parse_options(rest, switches=switches)
        needed = {option.name for option in known if option.required}
        filled = {key: size for key, size in sizes.items() if key in needed}
        loss, inputs = registry.create(name, **{**filled, **options}), {}
    return Term(name.rpartition(":")[2], loss, weight=float(weight or 1), inputs=inputs)


def train(
    settings: argparse.Namespace, train_set: LabeledFaces, test_set: LabeledFaces
) -> tuple[nn.Module, History]:
    """Train as the settings say; the model of the last epoch and the accuracy of each."""
    torch.manual_seed(settings.seed)
    name, options = experiment.backbone(settings.backbone)
    classifier = CAMClassifier(
        name,
        num_classes=len(train_set.classes),
        pretrained=settings.pretrained,
        model_options=options,
    )
    sizes = {"num_samples": len(train_set), "num_classes": len(train_set.classes)}
    sizes["num_features"] = classifier.num_features
    criterion = CompositeLoss(*(make_term(text, sizes) for text in settings.loss))
    criterion.to(settings.device)

    # What no loss takes is not made.
    needs = criterion.accepts - criterion.proposes
    model = ImportanceClassifier(classifier) if "importance" in needs else classifier
    model.to(settings.device, memory_format=torch.channels_last)
    teacher = ModelEMA(model, decay=settings.decay) if "teacher_logits" in needs else None
    height, width = train_set[0]["image"].shape[1:]
    crop = K.RandomCrop((height, width), padding=height // 12)
    pipeline = KorniaPipeline(crop, K.RandomHorizontalFlip())
    paired = needs & {"attention_flipped", "teacher_logits"}
    if paired:
        views = MirroredPair(erase=settings.erase, pipeline=pipeline)
    else:
        views = SingleView(pipeline=pipeline)

    labels = LabelStore(train_set.targets, num_classes=len(train_set.classes)).to(settings.device)
    relabeler = Relabeler(
        labels,
        margin=settings.relabel_margin,
        scope="low_importance" if "importance" in needs else "all",
        weighting="importance" if "importance" in needs else "none",
        start_epoch=settings.epochs + 1 if settings.relabel_from is None else settings.relabel_from,
    )

    loader = experiment.train_loader(train_set, settings)
    optimizer = torch.optim.AdamW(
        [
            *param_groups_weight_decay(model, settings.weight_decay),
            *param_groups(model, criterion)[1:],  # the losses' own, if any
        ],
        lr=settings.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * len(loader)
    )
    history = History()
    parts = {"model": model, "criterion": criterion, "labels": labels, "optimizer": optimizer}
    parts |= {"schedule": schedule, "history": history}
    parts |= {"teacher": teacher} if teacher else {}
    experiment.load_progress(settings, **parts)

    for epoch in range(len(history), min(settings.epochs, settings.stop_after or settings.epochs)):
        generator = experiment.start_epoch(epoch, loader, settings)
        model.train()
        batches = tqdm(
            islice(loader, settings.max_steps),
            desc=f"{settings.method} epoch {epoch + 1}/{settings.epochs}",
            total=min(len(loader), settings.max_steps or len(loader)),
            leave=False,
        )
        for step, batch in enumerate(batches, start=epoch * len(loader)):
            batch = experiment.to_device(batch, settings)
            batch["target"] = labels(batch["index"])  # the labels as they are now
            images, index, target = batch["image"], batch["index"], batch["target"]
            with experiment.autocast(settings):
                made = views(images, generator=generator)
                view, mirrored = made if paired else (made, None)
                output = model(view)
                tensors = {**output._asdict(), "index": index, "target": target}
                tensors["student_logits"] = output.logits
                tensors["classifier_weight"] = classifier.get_classifier().weight
                tensors["bias"] = classifier.get_classifier().bias
                tensors["permutation"] = torch.randperm(len(index), device=index.device)
                if "attention_flipped" in needs:
                    tensors["attention_flipped"] = model(mirrored).attention
                if teacher:
                    tensors["teacher_logits"] = teacher(mirrored).logits
                tensors = {name: tensors[name] for name in needs & tensors.keys()}
                proposed = criterion.propose(**tensors)
                loss = criterion(**tensors, **proposed)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            criterion.update(index, proposed)
            if teacher:
                teacher.update(model)
            relabeler.update(
                index,
                output.logits,
                tensors.get("importance"),
                step=step,
                epoch=epoch + 1,
                bias=tensors.get("bias"),
            )

        figures = relabeler.figures(epoch=epoch + 1, true_targets=train_set.true_targets)
        history.add({**evaluate(model, test_set, settings), **figures})
        tqdm.write(f"epoch {epoch + 1}: {history.summary('accuracy')}")
        experiment.save_progress(settings, **parts)
    return classifier, history


@torch.no_grad()
def evaluate(
    model: nn.Module, dataset: LabeledFaces, settings: argparse.Namespace
) -> dict[str, float]:
    """Overall and mean-class accuracy on the images as they are."""
    model.eval()
    prepare = SingleView().eval()
    confusion = torch.zeros(len(dataset.classes), len(dataset.classes), dtype=torch.int64)
    for batch in experiment.eval_loader(dataset, settings):
        batch = experiment.to_device(batch, settings)
        with experiment.autocast(settings):
            predicted = model(prepare(batch["image"])).logits.argmax(1)
        confusion += confusion_matrix(predicted, batch["target"], len(dataset.classes)).cpu()
    return {"accuracy": accuracy(confusion), "mean_class_accuracy": mean_class_accuracy(confusion)}


def main() -> None:
    """Print the settings, train, and leave a model with its class names."""
    settings = parse()
    print(experiment.show_settings(settings))
    train_set, test_set = experiment.load_data(settings)
    print(train_set.summary())
    classifier, history = train(settings, train_set, test_set)
    print(history.summary("accuracy"))
    print(history.summary("mean_class_accuracy"))
    if len(history) == settings.epochs:
        path = save_model(
            settings.output,
            classifier,
            classes=train_set.classes,
            settings=experiment.as_text(settings),
        )
        print(f"model written to {path}")


if __name__ == "__main__":
    main()
