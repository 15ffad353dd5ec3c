"""Train on noisy faces with EAC, or with plain cross entropy beside it.

python examples/eac.py --data demo --noise 0.3 --method eac --epochs 12
python examples/eac.py --data ferplus:PATH --evaluate-on validation --noise 0.3 --method ce
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

from robustfer import experiment
from robustfer.augmentations import KorniaPipeline, MirroredPair, SingleView
from robustfer.checkpoint import save_model
from robustfer.data import LabeledFaces
from robustfer.losses import EACLoss
from robustfer.metrics import History, accuracy, confusion_matrix, mean_class_accuracy
from robustfer.models import CAMClassifier


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments that every example shares, and EAC's own."""
    parser = experiment.argument_parser(__doc__, methods=["ce", "eac"])
    parser.add_argument("--consistency-weight", type=float, default=5.0)
    parser.add_argument("--erase", choices=["independent", "shared"], default="independent")
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    return experiment.parse(parser, arguments)


def train(
    settings: argparse.Namespace, train_set: LabeledFaces, test_set: LabeledFaces
) -> tuple[CAMClassifier, History]:
    """Train as the settings say; the model of the last epoch and the accuracy of each."""
    torch.manual_seed(settings.seed)
    name, options = experiment.backbone(settings.backbone)
    model = CAMClassifier(
        name,
        num_classes=len(train_set.classes),
        pretrained=settings.pretrained,
        model_options=options,
    ).to(settings.device, memory_format=torch.channels_last)

    height, width = train_set[0]["image"].shape[1:]
    crop = K.RandomCrop((height, width), padding=height // 12)
    if settings.method == "eac":
        # EAC classifies the image as it is: its mirror image is the other view.
        views = MirroredPair(erase=settings.erase, pipeline=KorniaPipeline(crop))
        criterion = EACLoss(
            consistency_weight=settings.consistency_weight,
            label_smoothing=settings.label_smoothing,
        )
    else:
        views = SingleView(pipeline=KorniaPipeline(crop, K.RandomHorizontalFlip()))
        criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)

    loader = experiment.train_loader(train_set, settings)
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(model, settings.weight_decay), lr=settings.learning_rate
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * len(loader)
    )
    history = History()
    experiment.load_progress(
        settings, model=model, optimizer=optimizer, schedule=schedule, history=history
    )

    for epoch in range(len(history), min(settings.epochs, settings.stop_after or settings.epochs)):
        generator = experiment.start_epoch(epoch, loader, settings)
        model.train()
        batches = tqdm(
            islice(loader, settings.max_steps),
            desc=f"{settings.method} epoch {epoch + 1}/{settings.epochs}",
            total=min(len(loader), settings.max_steps or len(loader)),
            leave=False,
        )
        for batch in batches:
            batch = experiment.to_device(batch, settings)
            images, target = batch["image"], batch["target"]
            with experiment.autocast(settings):
                if settings.method == "eac":
                    view, view_flipped = views(images, generator=generator)
                    output, flipped = model(view), model(view_flipped)
                    loss = criterion(output.logits, target, output.attention, flipped.attention)
                else:
                    output = model(views(images, generator=generator))
                    loss = criterion(output.logits.float(), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

        history.add(evaluate(model, test_set, settings))
        tqdm.write(f"epoch {epoch + 1}: {history.summary('accuracy')}")
        experiment.save_progress(
            settings, model=model, optimizer=optimizer, schedule=schedule, history=history
        )
    return model, history


@torch.no_grad()
def evaluate(
    model: CAMClassifier, dataset: LabeledFaces, settings: argparse.Namespace
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
            model,
            classes=train_set.classes,
            settings=experiment.as_text(settings),
        )
        print(f"model written to {path}")


if __name__ == "__main__":
    main()
