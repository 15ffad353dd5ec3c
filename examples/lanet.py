"""Train on noisy faces with LA-Net: label distributions, and a contrast of face and landmarks.

python examples/lanet.py --data demo --noise 0.3 --epochs 16
python examples/lanet.py --data ferplus:PATH --landmarks file:PATH/landmarks68.npz --noise 0.3
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import kornia.augmentation as K
import timm
import torch
from timm.models import FeatureListNet
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from tqdm import tqdm

from robustfer import experiment, registry
from robustfer.augmentations import KorniaPipeline, SingleView
from robustfer.checkpoint import save_model
from robustfer.data import LabeledFaces
from robustfer.data.landmark_conversion import convert_landmarks
from robustfer.data.landmark_providers import DatasetLandmarks, LandmarkFile, LandmarkProvider
from robustfer.data.landmarks import LandmarkLayout, mirror_landmarks, resize_landmarks
from robustfer.data.landmarks import layout as layout_of
from robustfer.functional import pseudo_labels
from robustfer.losses import LANetLoss
from robustfer.metrics import History, accuracy, confusion_matrix, mean_class_accuracy
from robustfer.models import (
    CAMClassifier,
    LabelDistributionEstimator,
    LandmarkHead,
    ProjectionHead,
)
from robustfer.state import FeatureQueue, LabelDistributionBank, ModelEMA


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Arguments that every example shares, and LA-Net's own."""
    parser = experiment.argument_parser(__doc__, methods=["lanet"])
    parser.add_argument("--second-space", choices=["branch", "coordinates"], default="branch")
    source = "dataset (its own), file:PATH, or provider:NAME,OPTION=VALUE,... as registered"
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
    if not re.fullmatch(r"dataset|file:.+|provider:[^,]+(,\w+=[^,]+)*", settings.landmarks):
        parser.error(f"--landmarks must be {source}; got {settings.landmarks}")
    if settings.image_size and settings.landmarks != "dataset" and not settings.landmarks_size:
        parser.error("--image-size needs --landmarks-size for landmarks that are not the dataset's")
    return settings


class Output(NamedTuple):
    """What the network makes of a batch; the last two are its embeddings, projected."""

    logits: Tensor
    embeddings: Tensor
    landmark_embeddings: Tensor
    heatmaps: Tensor | None
    expression: Tensor
    landmark: Tensor


class Branch(nn.Module):
    """The later stages of a network once more, for landmarks, on the first maps of the other."""

    def __init__(self, settings: argparse.Namespace, num_landmarks: int) -> None:
        super().__init__()
        name, options = experiment.backbone(settings.backbone)
        self.later = timm.create_model(
            name, pretrained=settings.pretrained, features_only=True, **options
        )
        info = self.later.feature_info
        if not isinstance(self.later, FeatureListNet) or 4 not in info.reduction():
            raise ValueError(
                f"{name} has no stages that follow each other, the first of stride 4, as ResNet "
                "and ConvNeXt do; take --second-space coordinates"
            )
        first = info.reduction().index(4)
        last = info.module_name(first)  # up to here the stages are the classifier's
        self.shared = f"backbone.{last}"
        for part in list(self.later):
            del self.later[part]
            if part == last.replace(".", "_"):
                break
        self.head = LandmarkHead(
            info.channels()[first:], info.reduction()[first:], num_landmarks=num_landmarks
        )
        self.dim = self.head.heatmaps.in_channels

    def forward(self, maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor | None]:
        heatmaps, embeddings = self.head([maps, *self.later(maps)])
        return embeddings, heatmaps


class Coordinates(nn.Module):
    """Landmarks alone, beyond the paper: how a face differs from the mean one, in no unit.

    Where it lies and how large it is does not count. A face of which a point is not known gives 0.
    """

    shared = ""  # no stage: the maps are not looked at

    def __init__(self, landmarks: Tensor, layout: LandmarkLayout) -> None:
        super().__init__()
        self.dim = 2 * layout.num_points
        known = landmarks[landmarks.isfinite().all(dim=(1, 2))]
        if not len(known):
            raise ValueError("landmarks must have all points of one face at least, got none")
        shapes = self.shapes(torch.cat([known, mirror_landmarks(known, layout, width=1)]))
        self.register_buffer("mean", shapes.mean(0))
        self.register_buffer("spread", (shapes - shapes.mean(0)).square().mean().sqrt())

    def shapes(self, points: Tensor) -> Tensor:
        centred = points - points.mean(dim=1, keepdim=True)
        return centred / centred.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-6)

    def forward(self, maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor | None]:
        differing = (self.shapes(points) - self.mean) / self.spread
        return differing.nan_to_num(0.0).flatten(1), None


class LANet(nn.Module):
    """The classifier, landmarks beside it, and what learns of both; the classifier infers alone."""

    def __init__(self, classifier: CAMClassifier, second: Branch | Coordinates, neighbors: int):
        super().__init__()
        self.classifier, self.second = classifier, second
        self.estimator = LabelDistributionEstimator(
            classifier.num_features, second.dim, num_neighbors=neighbors
        )
        self.expression = ProjectionHead(classifier.num_features)
        self.landmark = ProjectionHead(second.dim)

    def forward(self, images: Tensor, points: Tensor) -> Output:
        maps: list[Tensor] = []
        stage = self.classifier.get_submodule(self.second.shared)
        with stage.register_forward_hook(lambda _, __, output: maps.append(output)):
            logits, _, _, embeddings = self.classifier(images)
        landmark_embeddings, heatmaps = self.second(maps[0], points)
        projected = self.expression(embeddings), self.landmark(landmark_embeddings)
        return Output(logits, embeddings, landmark_embeddings, heatmaps, *projected)


def find_landmarks(
    settings: argparse.Namespace, dataset: LabeledFaces
) -> tuple[Tensor, LandmarkLayout]:
    """Landmarks (N, K, 2) of all samples in pixels of their images, NaN where not known."""
    kind, _, rest = settings.landmarks.partition(":")
    provider: LandmarkProvider
    if kind == "file":
        provider = LandmarkFile(rest)
    elif kind == "provider":
        name, *given = rest.split(",")
        options = dict(option.split("=", 1) for option in given)
        provider = registry.create(name, **{key: value_of(text) for key, text in options.items()})
    else:
        provider = DatasetLandmarks(dataset)
    landmarks, visible = provider(dataset.ids)
    layout = provider.layout if settings.points is None else layout_of(settings.points)
    if layout != provider.layout:
        landmarks, visible = convert_landmarks(
            landmarks, visible, source=provider.layout, target=layout
        )
    if settings.landmarks_size:
        height, width = dataset[0]["image"].shape[1:]
        landmarks = resize_landmarks(
            landmarks, from_size=settings.landmarks_size, to_size=(height, width)
        )
    return landmarks.masked_fill(~visible[..., None], torch.nan), layout


def value_of(text: str) -> Any:
    """A number, True or False where the text is one; else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def train(
    settings: argparse.Namespace, train_set: LabeledFaces, test_set: LabeledFaces
) -> tuple[LANet, History]:
    """Train as the settings say; the model of the last epoch and the accuracy of each."""
    torch.manual_seed(settings.seed)
    name, options = experiment.backbone(settings.backbone)
    landmarks, layout = find_landmarks(settings, train_set)
    classifier = CAMClassifier(
        name,
        num_classes=len(train_set.classes),
        pretrained=settings.pretrained,
        model_options=options,
    )
    second = (
        Branch(settings, layout.num_points)
        if settings.second_space == "branch"
        else Coordinates(landmarks, layout)
    )
    model = LANet(classifier, second, settings.neighbors)
    model.to(settings.device, memory_format=torch.channels_last)
    landmarks = landmarks.to(settings.device)
    # Faces with a place in the second space. What is believed of the others does not move.
    placed = landmarks.isfinite().all(dim=2).all(dim=1, keepdim=True)
    if settings.second_space == "branch":
        placed = torch.ones_like(placed)

    height, width = train_set[0]["image"].shape[1:]
    crop = K.RandomCrop((height, width), padding=height // 12)
    views = SingleView(pipeline=KorniaPipeline(crop, K.RandomHorizontalFlip()))
    with_heatmaps = settings.second_space == "branch" and settings.landmark_weight > 0
    criterion = LANetLoss(
        image_size=(height, width) if with_heatmaps else None,
        distribution_weight=settings.distribution_weight,
        landmark_weight=settings.landmark_weight,
        contrast_weight=settings.contrast_weight,
    )
    bank = LabelDistributionBank(
        train_set.targets, num_classes=len(train_set.classes), momentum=settings.momentum
    ).to(settings.device)
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
            images = batch["image"].to(settings.device, memory_format=torch.channels_last)
            index, target = (batch[name].to(settings.device) for name in ("index", "target"))
            with experiment.autocast(settings):
                view, points, visible = views.with_landmarks(
                    images, landmarks[index], swap=layout.swap, generator=generator
                )
                output = model(view, points)
                soft_target = bank.distribution[index]
                if settings.distribution_weight:
                    estimate = model.estimator(
                        output.embeddings, output.landmark_embeddings, output.logits, index
                    )
                    soft_target = bank(index, estimate.where(placed[index], soft_target))
                label = pseudo_labels(soft_target, index, threshold=settings.threshold)
                slow = average(view, points) if settings.contrast_weight else output
                keys = slow.expression.detach(), slow.landmark.detach()
                loss = criterion(
                    output.logits,
                    target,
                    soft_target,
                    output.expression,
                    output.landmark,
                    *keys,
                    label,
                    queue.expression,
                    queue.landmark,
                    queue.label,
                    *((output.heatmaps, points, visible) if with_heatmaps else ()),
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bank.update(index, soft_target)
            queue.update(*keys, label)
            if settings.contrast_weight:
                average.update(model)

        figures = labels_moved(bank, train_set)
        history.add({**evaluate(model, test_set, settings), **figures})
        changed = f"{figures['changed']:.0f} labels are believed to be others"
        tqdm.write(f"epoch {epoch + 1}: {history.summary('accuracy')}; {changed}")
        experiment.save_progress(settings, **parts)
    return model, history


def labels_moved(bank: LabelDistributionBank, train_set: LabeledFaces) -> dict[str, float]:
    """How many labels are believed to be others than given, and what share of those is right."""
    believed = bank.distribution.argmax(1).cpu()
    changed = believed != train_set.targets
    figures = {"changed": float(changed.sum())}
    if train_set.true_targets is not None:
        figures["precision"] = float((believed == train_set.true_targets)[changed].float().mean())
    return figures


@torch.no_grad()
def evaluate(model: LANet, dataset: LabeledFaces, settings: argparse.Namespace) -> dict[str, float]:
    """Overall and mean-class accuracy on the images as they are; landmarks are not asked for."""
    model.eval()
    prepare = SingleView().eval()
    confusion = torch.zeros(len(dataset.classes), len(dataset.classes), dtype=torch.int64)
    for batch in experiment.eval_loader(dataset, settings):
        images = batch["image"].to(settings.device, memory_format=torch.channels_last)
        with experiment.autocast(settings):
            predicted = model.classifier(prepare(images)).logits.argmax(1).cpu()
        confusion += confusion_matrix(predicted, batch["target"], len(dataset.classes))
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
            model.classifier,  # inference needs the expression's branch alone
            classes=train_set.classes,
            settings=experiment.as_text(settings),
        )
        print(f"model written to {path}")


if __name__ == "__main__":
    main()
