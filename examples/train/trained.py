"""Load a finished run: its classifier, classes and settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lightning_fabric import Fabric

from examples.train.devices import make_fabric
from examples.train.options import DataOptions, ModelOptions, Refused, RunOptions, ViewOptions
from examples.train.run_folder import RECORD
from examples.train.views import Views
from examples.train.weights import is_factory, make_classifier
from robustfer.checkpoint import MODEL_FILE, load_model, read_model_info
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
        return group_of(kind, self.settings)

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


def group_of(kind: type[Group], settings: Mapping[str, Any]) -> Group:
    """Return a group of options from all options of a run. A missing option has its default."""
    names = [f.name for f in dataclasses.fields(kind) if f.name in settings]  # type: ignore[arg-type]
    return kind(**{name: settings[name] for name in names})


def split_of(options: DataOptions) -> str:
    """Return the split that is evaluated, ``"all"`` for data that is read without splits.

    An option of the reader overrides ``evaluate_on``.
    """
    split = options.evaluate_reader.get("split", options.evaluate_on)
    return "all" if split is None else str(split)


def load_trained(folder: str, backbone: str | None = None) -> Trained:
    """Load the classifier of a finished run.

    Args:
        folder: the folder of the run.
        backbone: the function that made its backbone, if it is one of yours. The folder names it
            too, but may come from a stranger, so only a name that you give is imported.

    Raises:
        Refused: the folder does not exist, is not a run's, the run is not finished, or its backbone
            is a function that ``backbone`` does not name.
    """
    path = Path(folder).expanduser()
    check_finished(path)
    try:
        classes, settings = read_model_info(path)
        size, mean, std = (tuple(settings[name]) for name in ("image_size", "mean", "std"))
        made_of = ModelOptions(
            backbone=settings["backbone"], backbone_options=settings["backbone_options"]
        )
    except KeyError as error:
        raise Refused(
            f"{path / MODEL_FILE} has no setting {error.args[0]}, so this program did not write "
            "it; give the folder of one of its runs"
        ) from error
    views = Views(size, ViewOptions(), mean=mean, std=std)
    if backbone is not None and backbone != made_of.backbone:
        raise Refused(
            f"--backbone must be that of {path}, {made_of.backbone}, got {backbone}; correct it"
        )
    if not is_factory(made_of):
        return Trained(path, load_model(path), classes, settings, views)
    if backbone is None:
        raise Refused(
            f"the backbone of {path} is the function {made_of.backbone}, which this command must "
            f"import; if you trust it, add --backbone {made_of.backbone}"
        )
    classifier, _ = make_classifier(made_of, classes)
    loaded = load_model(path, classifier, classes=classes).eval()
    return Trained(path, loaded, classes, settings, views)


def refuse_own_backbone(folder: str, command: str, instead: str) -> None:
    """Refuse a run whose backbone is a function of the user's, for a command that needs timm's."""
    path = Path(folder).expanduser()
    check_finished(path)
    name = str(read_model_info(path).settings.get("backbone"))
    if is_factory(ModelOptions(backbone=name)):
        raise Refused(
            f"{command} writes weights for timm, but the backbone of {path} is the function "
            f"{name}; {instead}"
        )


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
