"""Load a finished run: its classifier, classes and settings."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lightning_fabric import Fabric

from examples.train.devices import make_fabric
from examples.train.options import Refused, RunOptions, ViewOptions
from examples.train.run_folder import MODEL_FILE, RECORD
from examples.train.views import Views
from robustfer.checkpoint import load_model, read_model_info
from robustfer.models import CAMClassifier

Group = TypeVar("Group")

# Keys that every run.json has.
_RECORDED = ("settings", "classes", "passes", "steps_per_epoch", "evaluation_images", "epochs")


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        path: its folder.
        classifier: in eval mode, on the CPU.
        classes: names of the classes, in the order of the logits.
        settings: the options that decided the result.
        views: normalises images as in training.
    """

    path: Path
    classifier: CAMClassifier
    classes: tuple[str, ...]
    settings: dict[str, Any]
    views: Views

    @property
    def title(self) -> str:
        """The method and the seed, for titles."""
        return f"{self.settings['method']}, seed {self.settings['seed']}"

    def group(self, kind: type[Group]) -> Group:
        """Return a group of its options, such as ``DataOptions``."""
        names = [f.name for f in dataclasses.fields(kind) if f.name in self.settings]  # type: ignore[arg-type]
        return kind(**{name: self.settings[name] for name in names})

    def metadata(self) -> dict[str, str]:
        """Return what other programs need to use the network, as JSON by name."""
        normalize = self.views.normalize
        values = {
            "classes": self.classes,
            "image_size": self.views.size,
            "mean": normalize.mean,
            "std": normalize.std,
        }
        return {name: json.dumps(value) for name, value in values.items()}

    def fabric(self, device: str) -> Fabric:
        """Return Fabric for one device."""
        return make_fabric(RunOptions(device=device), unused_parameters=False, loggers=[])


def load_trained(folder: str) -> Trained:
    """Load the classifier of a finished run.

    Raises:
        Refused: the folder does not exist, is not a run's, or the run is not finished.
    """
    path = Path(folder)
    check_finished(path)
    try:
        classes, settings = read_model_info(path)
        size, mean, std = (tuple(settings[name]) for name in ("image_size", "mean", "std"))
    except KeyError as error:
        raise Refused(
            f"{path / MODEL_FILE} has no setting {error.args[0]}, so this program did not write "
            "it; give the folder of one of its runs"
        ) from error
    views = Views(size, ViewOptions(), mean=mean, std=std)
    return Trained(path, load_model(path), classes, settings, views)


def check_finished(path: Path) -> None:
    """Refuse a folder without a finished run."""
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise Refused(
            f"{path} {problem}; give the folder of a run, such as runs/demo-ce-0-1a2b3c4d"
        )
    if (path / MODEL_FILE).is_file():
        return
    below = sorted(found.parent.name for found in path.glob(f"*/{MODEL_FILE}"))
    if below and not (path / RECORD).is_file():
        raise Refused(f"{path} has several runs; give one of them, such as {path / below[0]}")
    if not (path / RECORD).is_file():
        raise Refused(
            f"{path} is not the folder of a run: it has no {MODEL_FILE}; give another folder"
        )
    record = read_record(path)
    raise Refused(
        f"{path} is not finished: {len(record['epochs'])} of {record['settings']['epochs']} "
        "epochs are done; continue it with --resume"
    )


def read_record(path: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises:
        Refused: the file is missing or damaged.
    """
    try:
        record: dict[str, Any] = json.loads((path / RECORD).read_text(encoding="utf-8"))
        for name in _RECORDED:
            record[name]
        record["settings"]["epochs"], len(record["epochs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise Refused(
            f"{path / RECORD} is missing or damaged ({reason}); resume the run"
        ) from error
    return record
