"""Predict the class of each image in a folder, and write all probabilities as a csv file."""

from __future__ import annotations

import csv
import io
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from examples.train.correction import correction
from examples.train.files import no_formula, write_whole
from examples.train.options import NonNegativeInt, Refused
from examples.train.trained import load_trained
from robustfer.data.readers.images import IMAGE_SUFFIXES, is_hidden, read_image

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
        output: csv file; default: RUN/predictions/FOLDER.csv
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
    folder = Path(options.folder)
    names = image_names(folder)
    name = folder.resolve().name or "root"
    name += "-corrected" if options.decisions else ""
    path = Path(options.output or trained.path / "predictions" / f"{name}.csv")
    if path.is_dir():
        raise Refused(f"--output {path} is a folder, expected a file; choose another name")
    fabric = trained.fabric(options.device)
    classifier = trained.classifier.to(fabric.device)
    loader = DataLoader(
        ImagesOrReasons(folder, names, trained.views.size),
        batch_size=_AT_ONCE,
        num_workers=options.workers,
        collate_fn=list,
    )
    rows: list[tuple[str, list[float]]] = []
    skipped = 0
    with tqdm(total=len(names), disable=not options.progress, unit="image", leave=False) as bar:
        for part in loader:
            read = [(name, image) for name, image, _ in part if image is not None]
            for reason in (reason for _, _, reason in part if reason):
                tqdm.write(f"skipped: {reason}", file=sys.stderr)
            skipped += len(part) - len(read)
            if read:
                images = torch.stack([image for _, image in read]).to(fabric.device)
                with torch.no_grad():
                    logits = classifier(trained.views.plain(images)).logits
                probability = correct(logits.double().cpu().softmax(1)).tolist()
                rows += zip([name for name, _ in read], probability, strict=True)
            bar.update(len(part))
    if not rows:
        raise Refused(
            f"none of the {skipped} images in {folder} can be read; choose a folder with images"
        )
    text = as_csv(rows, trained.classes)
    write_whole(path, text.encode(errors="backslashreplace"))
    print(f"{len(rows)} images predicted, {skipped} skipped; written to {path}")


def image_names(folder: Path) -> list[str]:
    """Return the sorted names of images in a folder and its subfolders.

    Raises:
        Refused: the folder does not exist, or has no image.
    """
    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder; choose a folder with images")
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        names += [
            Path(place, name).relative_to(folder).as_posix()
            for name in files
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)
        ]
    if not names:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise Refused(f"{folder} has no image, expected names that end in {endings}")
    return sorted(names)


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
            reason = " ".join(str(error).split())
            # A file name can contain bytes that are not UTF-8.
            return name, None, reason.encode(errors="backslashreplace").decode()
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
