"""Predict the class of each image in a folder, and write all probabilities as a csv file."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from examples.train.commands.outputs import check_file, count_of_images, name_of
from examples.train.correction import correction
from examples.train.files import no_formula, write_whole
from examples.train.options import NonNegativeInt, Refused
from examples.train.trained import load_trained
from robustfer.data.readers.images import IMAGE_SUFFIXES, read_image, walk_images

_AT_ONCE = 64


@dataclass(frozen=True)
class Options:
    """prediction

    Args:
        run: folder of a finished run
        folder: folder of images; its subfolders are searched too
        backbone: package.module:function of the run, if its backbone is a function of yours; the
            command imports it
        device: auto, cpu, cuda, cuda:1 or mps
        workers: processes that read image files
        decisions: file of a review of the training labels with robustfer audit, to correct the
            predictions; repeat for each reviewer
        output: csv file; default: RUN/predictions/FOLDER-HASH.csv
        progress: show a progress bar
    """

    run: str
    folder: str
    backbone: str | None = None
    device: str = "auto"
    workers: NonNegativeInt = 0
    decisions: list[str] = field(default_factory=list)
    output: str | None = None
    progress: bool = True


def run(options: Options) -> None:
    """Classify all readable images, and report the others."""
    trained = load_trained(options.run, options.backbone)
    correct = correction(trained, options.decisions)
    folder = Path(options.folder).expanduser()
    names, reasons = image_names(folder)
    name = name_of(folder)
    name += "-corrected" if options.decisions else ""
    path = Path(options.output or trained.path / "predictions" / f"{name}.csv").expanduser()
    images = [folder / image for image in names] if path.is_file() else []
    check_file("--output", path, trained.path, [*options.decisions, *images])
    for reason in reasons:
        print(f"skipped: {reason}", file=sys.stderr)
    fabric = trained.fabric(options.device)
    classifier = trained.classifier.to(fabric.device)
    loader = DataLoader(
        ImagesOrReasons(folder, names, trained.views.size),
        batch_size=_AT_ONCE,
        num_workers=options.workers,
        collate_fn=list,
    )
    rows: list[tuple[str, list[float]]] = []
    skipped = len(reasons)
    with tqdm(total=len(names), disable=not options.progress, unit="image", leave=False) as bar:
        for part in loader:
            read = [(name, image) for name, image, _ in part if image is not None]
            for reason in (reason for _, _, reason in part if reason):
                tqdm.write(f"skipped: {reason}", file=sys.stderr)
            skipped += len(part) - len(read)
            if read:
                pixels = torch.stack([image for _, image in read]).to(fabric.device)
                with torch.no_grad():
                    logits = classifier(trained.views.plain(pixels)).logits
                probability = correct(logits.double().cpu().softmax(1)).tolist()
                rows += zip([name for name, _ in read], probability, strict=True)
            bar.update(len(part))
    if not rows:
        raise Refused(
            f"{folder} has no image that can be read, {skipped} skipped; choose a folder with "
            "images"
        )
    text = as_csv(rows, trained.classes)
    write_whole(path, text.encode(errors="backslashreplace"))
    print(f"{count_of_images(len(rows))} predicted, {skipped} skipped; written to {path}")


def image_names(folder: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of images in a folder and its subfolders, and what is skipped.

    A link to a folder is followed, unless it leads to a folder above it.

    Raises:
        Refused: the folder does not exist, or has no image.
    """
    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder; choose a folder with images")
    reasons: list[str] = []
    found = walk_images(folder, Counter(), on_problem=reasons.append)
    names = sorted("/".join(parts) for parts in found)
    if not names and not reasons:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise Refused(f"{folder} has no image, expected names that end in {endings}")
    return names, sorted(map(one_line, reasons))


def one_line(reason: str) -> str:
    """Return a reason as one line. A file name can contain bytes that are not UTF-8."""
    return " ".join(reason.split()).encode(errors="backslashreplace").decode()


class ImagesOrReasons(Dataset[tuple[str, Tensor | None, str]]):
    """Load images of one size, uint8 (3, H, W), or the reason why they cannot be read."""

    def __init__(self, folder: Path, names: list[str], size: tuple[int, int]) -> None:
        self.folder, self.names, self.size = folder, names, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> tuple[str, Tensor | None, str]:
        name, (height, width) = self.names[row], self.size
        try:
            image = read_image(self.folder / name, size=height if height == width else None)
        except (ValueError, OSError) as error:
            return name, None, one_line(str(error))
        if image.shape[1:] != self.size:  # read_image only resizes to squares
            resized = F.interpolate(image[None].float(), self.size, mode="bilinear", antialias=True)
            image = resized[0].round().clamp(0, 255).to(torch.uint8)
        return name, image, ""


def as_csv(rows: list[tuple[str, list[float]]], classes: tuple[str, ...]) -> str:
    """Return csv text: image, predicted class, and the probability of each class."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "class", *map(no_formula, classes)])
    for name, probability in rows:
        likeliest = classes[max(range(len(classes)), key=probability.__getitem__)]
        cells = (f"{value:.6f}" for value in probability)
        writer.writerow([no_formula(name), no_formula(likeliest), *cells])
    return file.getvalue()
