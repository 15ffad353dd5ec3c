"""Write and read the predictions for the evaluation set: ``predictions.safetensors``."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from examples.train.files import write_whole
from examples.train.options import Refused
from examples.train.recording import DYNAMICS, FINAL
from robustfer.data import LabeledFaces
from robustfer.noise import fingerprint

PREDICTIONS = "predictions.safetensors"


class Predictions(NamedTuple):
    """The logits for a data set, with its labels.

    Attributes:
        logits: float32 (N, C).
        targets: int64 (N).
        first_half: bool (N), half of the images, chosen by name: the same in every run.
        classes: names of the classes.
    """

    logits: Tensor
    targets: Tensor
    first_half: Tensor
    classes: tuple[str, ...]


def predictions_of(logits: Tensor, faces: LabeledFaces) -> Predictions:
    """Return the logits of a data set with its labels and halves."""
    names = [blake2b(name.encode(errors="surrogateescape")).digest() for name in faces.ids]
    order = sorted(range(len(names)), key=names.__getitem__)
    first_half = torch.zeros(len(names), dtype=torch.bool)
    first_half[order[: len(order) // 2]] = True
    return Predictions(logits.float(), faces.targets, first_half, faces.classes)


def write_predictions(folder: Path, logits: Tensor, faces: LabeledFaces) -> None:
    """Write the logits of the last epoch into the run's folder."""
    found = predictions_of(logits, faces)
    tensors = {"logits": found.logits, "targets": found.targets, "first_half": found.first_half}
    content = save(tensors, {"classes": json.dumps(found.classes)})
    write_whole(folder / PREDICTIONS, content)


def read_predictions(folder: Path) -> Predictions:
    """Read what :func:`write_predictions` wrote.

    Raises:
        Refused: the file is missing or damaged.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise Refused(f"{path} does not exist; finish the run with --resume")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = [file.get_tensor(name) for name in ("logits", "targets", "first_half")]
            classes = tuple(json.loads(file.metadata()["classes"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"{path} is damaged: {error}; finish the run with --resume") from error
    return Predictions(*tensors, classes)


def labels_fingerprint(faces: LabeledFaces) -> str | None:
    """Return a fingerprint of names, labels and classes, or ``None`` for soft labels."""
    if faces.targets.ndim != 1:
        return None
    return fingerprint(faces.ids, faces.targets, faces.classes)


def rows_digest(faces: LabeledFaces, labels: Tensor) -> str:
    """Return a digest of names, labels and classes in their order, which state by row needs."""
    rows = json.dumps([faces.classes, list(faces.ids), labels.tolist()])
    return blake2b(rows.encode(), digest_size=8).hexdigest()


def files_digests(options: Any) -> dict[str, str]:
    """Return a digest of the files that each option of a method names, for what it makes of them.

    The digest is of their bytes. That of a matrix or of soft labels could differ by rounding on
    another machine.
    """
    found = {}
    for name in ("decisions", "first", "transition", "landmarks"):
        given = getattr(options, name, "")
        if name in ("transition", "landmarks"):  # KIND:PATH, or a word
            given = given.partition(":")[2]
        places = [given] if isinstance(given, str) else given
        content = b""
        for path in (Path(place).expanduser() for place in places if place):
            # Only these two are read from the folder of a run.
            files = [path / DYNAMICS, path / FINAL] if path.is_dir() else [path]
            content += b"".join(
                blake2b(file.read_bytes()).digest() for file in files if file.exists()
            )
        if content:
            found[f"--{name}"] = blake2b(content, digest_size=8).hexdigest()
    return found
