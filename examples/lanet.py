"""Train on noisy faces with LA-Net: label distributions, and a contrast of face and landmarks.

python examples/lanet.py --data demo --noise 0.3 --epochs 16
python examples/lanet.py --data ferplus:PATH --landmarks file:PATH/landmarks68.npz --noise 0.3
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import islice

import kornia.augmentation as K
import timm
import torch
from timm.optim import param_groups_weight_decay
from torch import Tensor
from tqdm import tqdm

from robustfer import experiment
from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.checkpoint import save_model
from robustfer.data import LabeledFaces
from robustfer.functional import pseudo_labels
from robustfer.landmarks import (
    DatasetLandmarks,
    LandmarkFile,
    LandmarkLayout,
    convert_landmarks,
    landmark_layout,
    resize_landmarks,
)
from robustfer.losses import LANetLoss
from robustfer.metrics import History, accuracy, confusion_matrix, mean_class_accuracy
from robustfer.models import (
    CAMClassifier,
    LandmarkClassifier,
    LandmarkCoordinates,
    LANetModel,
)
from robustfer.state import FeatureQueue, LabelDistributionBank, ModelEMA


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments that every example shares, and LA-Net's own."""
    parser = experiment.argument_parser(__doc__, methods=["lanet"])
    parser.add_argument("--second-space", choices=["branch", "coordinates"], default="branch")
    source = "dataset (its own) or file:PATH"
    parser.add_argument("--landmarks", default="dataset", help=source)
    parser.add_argument("--landmarks-size", type=int, help="side of the images they were found in")
    parser.add_argument("--points", type=int, help="convert to so many landmarks; the paper: 19")
    parser.add_argument("--distribution-weight", type=float, default=1.0, help="0: without")
    parser.add_argument("--landmark-weight", type=float, default=1.0, help="of heat maps")
    parser.add_argument("--contrast-weight", type=float, default=0.1, help="0: without")
    parser.add_argument("--neighbors", type=int, default=8, help="in each space")
    parser.add_argument("--momentum", type=float, default=0.9, help="of the label distributions")
    parser.add_argument("--threshold", type=float, default=0.7, help="of a pseudo label")
    parser.add_argument("--queue", type=int, default=8192, help="keys to contrast with")
    parser.add_argument("--decay", type=float, default=0.999, help="of the network of keys")
    settings = experiment.parse(parser, arguments)
    if not re.fullmatch(r"dataset|file:.+", settings.landmarks):
        parser.error(f"--landmarks must be {source}; got {settings.landmarks}")
    if settings.image_size and settings.landmarks != "dataset" and not settings.landmarks_size:
        parser.error("--image-size needs --landmarks-size for landmarks that are not the dataset's")
    return settings


def find_landmarks(
    settings: argparse.Namespace, dataset: LabeledFaces
) -> tuple[Tensor, LandmarkLayout]:
    """Landmarks (N, K, 2) of all samples in pixels of their images, NaN where not known."""
    kind, _, rest = settings.landmarks.partition(":")
    provider = LandmarkFile(rest) if kind == "file" else DatasetLandmarks(dataset)
    landmarks, visible = provider(dataset.ids)
    layout = provider.layout if settings.points is None else landmark_layout(settings.points)
    if layout != provider.layout:
        landmarks, visible = convert_landmarks(
            landmarks, visible, source=provider.layout, target=layout
        )
    if settings.landmarks_size:
        size = dataset[0]["image"].shape[1:]
        landmarks = resize_landmarks(landmarks, from_size=settings.landmarks_size, to_size=size)
    return landmarks.masked_fill(~visible[..., None], torch.nan), layout


def train(
    settings: argparse.Namespace, train_set: LabeledFaces, test_set: LabeledFaces
) -> tuple[CAMClassifier, History]:
    """Train as the settings say; the classifier, which infers alone, and the accuracies."""
    torch.manual_seed(settings.seed)
    name, options = experiment.backbone(settings.backbone)
    classes = len(train_set.classes)
    landmarks, layout = find_landmarks(settings, train_set)
    classifier = CAMClassifier(
        name, num_classes=classes, pretrained=settings.pretrained, model_options=options
    )
    if settings.second_space == "coordinates":
        faces, coordinates = classifier, LandmarkCoordinates(landmarks, swap=layout.swap)
    else:  # stages drawn anew: copies of the classifier's, the default, are for trained weights
        pyramid = timm.create_model(
            name, pretrained=settings.pretrained, features_only=True, **options
        )
        faces = LandmarkClassifier(classifier, num_landmarks=layout.num_points, pyramid=pyramid)
        coordinates = None
    model = LANetModel(faces, coordinates, num_neighbors=settings.neighbors)
    model.to(settings.device, memory_format=torch.channels_last)
    landmarks = landmarks.to(settings.device)

    height, width = train_set[0]["image"].shape[1:]
    crop = K.RandomCrop((height, width), padding=height // 12)
    views = SingleView(pipeline=KorniaPipeline(crop, K.RandomHorizontalFlip()))
    with_heatmaps = coordinates is None and settings.landmark_weight > 0
    criterion = LANetLoss(
        image_size=(height, width) if with_heatmaps else None,
        distribution_weight=settings.distribution_weight,
        landmark_weight=settings.landmark_weight,
        contrast_weight=settings.contrast_weight,
    )
    bank = LabelDistributionBank(train_set.targets, num_classes=classes, momentum=settings.momentum)
    bank.to(settings.device)
    queue = FeatureQueue(64, capacity=settings.queue if settings.contrast_weight else 1)
    queue.to(settings.device)
    average = ModelEMA(model, decay=settings.decay)

    loader = experiment.train_loader(train_set, settings)
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(model, settings.weight_decay), lr=settings.learning_rate
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * len(loader)
    )
    history = History()
    parts = {"model": model, "average": average, "bank": bank, "queue": queue}
    parts |= {"optimizer": optimizer, "schedule": schedule, "history": history}
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
        for batch in batches:
            batch = experiment.to_device(batch, settings)
            images, target, index = batch["image"], batch["target"], batch["index"]
            with experiment.autocast(settings):
                view, points, visible = views.with_landmarks(
                    images, landmarks[index], swap=layout.swap, generator=generator
                )
                output = model(view, points, index if settings.distribution_weight else None)
                if settings.distribution_weight:
                    soft_target = bank(index, output.estimate, known=output.known)
                else:
                    soft_target = bank.distribution[index]
                pseudo_label = pseudo_labels(soft_target, index, threshold=settings.threshold)
                averaged = average(view, points) if settings.contrast_weight else output
                loss = criterion(
                    logits=output.logits,
                    target=target,
                    soft_target=soft_target,
                    expression_query=output.expression_query,
                    landmark_query=output.landmark_query,
                    expression_key=averaged.expression_query,
                    landmark_key=averaged.landmark_query,
                    pseudo_label=pseudo_label,
                    **queue.negatives(),
                    heatmaps=output.heatmaps if with_heatmaps else None,
                    landmarks=points,
                    visible=visible,
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bank.update(index, soft_target)
            queue.update(averaged.expression_query, averaged.landmark_query, pseudo_label)
            if settings.contrast_weight:
                average.update(model)

        figures = labels_moved(bank, train_set)
        history.add({**evaluate(classifier, test_set, settings), **figures})
        changed = f"{figures['changed']:.0f} labels are believed to be others"
        tqdm.write(f"epoch {epoch + 1}: {history.summary('accuracy')}; {changed}")
        experiment.save_progress(settings, **parts)
    return classifier, history


def labels_moved(bank: LabelDistributionBank, train_set: LabeledFaces) -> dict[str, float]:
    """How many labels are believed to be others than given, and what share of those is right."""
    believed = bank.distribution.argmax(1).cpu()
    changed = believed != train_set.targets
    figures = {"changed": float(changed.sum())}
    if train_set.true_targets is not None:
        judged = changed & (train_set.true_targets >= 0)  # -1 where the truth is not known
        figures["precision"] = float((believed == train_set.true_targets)[judged].float().mean())
    return figures


@torch.no_grad()
def evaluate(
    classifier: CAMClassifier, dataset: LabeledFaces, settings: argparse.Namespace
) -> dict[str, float]:
    """Overall and mean-class accuracy on the images as they are; landmarks are not asked for."""
    classifier.eval()
    prepare = SingleView().eval()
    confusion = torch.zeros(len(dataset.classes), len(dataset.classes), dtype=torch.int64)
    for batch in experiment.eval_loader(dataset, settings):
        batch = experiment.to_device(batch, settings)
        with experiment.autocast(settings):
            predicted = classifier(prepare(batch["image"])).logits.argmax(1)
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
        text = experiment.as_text(settings)
        path = save_model(settings.output, classifier, classes=train_set.classes, settings=text)
        print(f"model written to {path}")


if __name__ == "__main__":
    main()
