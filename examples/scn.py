"""Train on noisy faces with SCN: importance weights, their ranking, and relabelling.

python examples/scn.py --data demo --noise 0.3 --epochs 16 --relabel-from 8
python examples/scn.py --data ferplus:PATH --evaluate-on validation --noise 0.3
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice

import kornia.augmentation as K
import torch
from timm.optim import param_groups_weight_decay
from tqdm import tqdm

from robustfer import experiment
from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.checkpoint import save_model
from robustfer.data import LabeledFaces
from robustfer.losses import SCNLoss
from robustfer.metrics import History, accuracy, confusion_matrix, mean_class_accuracy
from robustfer.models import CAMClassifier, ImportanceClassifier
from robustfer.state import LabelStore, Relabeler


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments that every example shares, and SCN's own."""
    parser = experiment.argument_parser(__doc__, methods=["scn"])
    parser.add_argument("--margin", type=float, default=0.07, help="0.15 for batches of 1,024")
    parser.add_argument("--rank-weight", type=float, default=0.5)
    parser.add_argument("--relabel-from", type=int, default=10, help="epoch, counted from 1")
    parser.add_argument("--relabel-margin", type=float, default=0.2)
    parser.add_argument("--relabel", choices=["low_importance", "all"], default="low_importance")
    return experiment.parse(parser, arguments)


def train(
    settings: argparse.Namespace, train_set: LabeledFaces, test_set: LabeledFaces
) -> tuple[ImportanceClassifier, History]:
    """Train as the settings say; the model of the last epoch and the accuracy of each."""
    torch.manual_seed(settings.seed)
    name, options = experiment.backbone(settings.backbone)
    classifier = CAMClassifier(
        name,
        num_classes=len(train_set.classes),
        pretrained=settings.pretrained,
        model_options=options,
    )
    model = ImportanceClassifier(classifier)
    model.to(settings.device, memory_format=torch.channels_last)

    height, width = train_set[0]["image"].shape[1:]
    crop = K.RandomCrop((height, width), padding=height // 12)
    views = SingleView(pipeline=KorniaPipeline(crop, K.RandomHorizontalFlip()))
    criterion = SCNLoss(margin=settings.margin, rank_weight=settings.rank_weight)

    # Labels that change live here, not in the data set, of which the loader's workers hold copies.
    labels = LabelStore(train_set.targets, num_classes=len(train_set.classes)).to(settings.device)
    relabeler = Relabeler(
        labels,
        margin=settings.relabel_margin,
        scope=settings.relabel,
        start_epoch=settings.relabel_from,
    )

    loader = experiment.train_loader(train_set, settings)
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(model, settings.weight_decay), lr=settings.learning_rate
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * len(loader)
    )
    history = History()
    parts = {"model": model, "labels": labels, "optimizer": optimizer}
    parts |= {"schedule": schedule, "history": history}
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
                output = model(views(images, generator=generator))
                loss = criterion(output.logits, target, output.importance, model.bias)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            relabeler.update(
                index, output.logits, output.importance, step=step, epoch=epoch + 1, bias=model.bias
            )

        figures = relabeler.figures(epoch=epoch + 1, true_targets=train_set.true_targets)
        history.add({**evaluate(model, test_set, settings), **figures})
        changed = f"{figures['changed']:.0f} labels changed"
        tqdm.write(f"epoch {epoch + 1}: {history.summary('accuracy')}; {changed}")
        experiment.save_progress(settings, **parts)
    return model, history


@torch.no_grad()
def evaluate(
    model: ImportanceClassifier, dataset: LabeledFaces, settings: argparse.Namespace
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
    model, history = train(settings, train_set, test_set)
    print(history.summary("accuracy"))
    print(history.summary("mean_class_accuracy"))
    if len(history) == settings.epochs:
        path = save_model(
            settings.output,
            model.model,  # importance is for training: the classifier alone is used
            classes=train_set.classes,
            settings=experiment.as_text(settings),
        )
        print(f"model written to {path}")


if __name__ == "__main__":
    main()
