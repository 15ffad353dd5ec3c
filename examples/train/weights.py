"""Make the network of a run, load its start weights, and report what was loaded."""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from examples.train.options import ModelOptions, Refused
from examples.train.views import Views
from robustfer.checkpoint import MODEL_FILE
from robustfer.data import LabeledFaces
from robustfer.models import CAMClassifier

#: Backbones for images of 48 pixels: name -> (timm's name, options). Both have maps of 6x6, while
#: most timm networks end in maps of 2x2 at this size.
SMALL_BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("resnet10t", {"channels": (32, 64, 128, 256), "output_stride": 8}),
    "tiny": ("resnet10t", {"channels": (16, 32, 64, 128), "output_stride": 8, "stem_width": 16}),
}
LEAST_SHARE = 0.9
_AT_ONCE = 256


class Pixels(NamedTuple):
    """Mean and standard deviation of each channel, which images are normalised with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:g}" for value in values) for values in self)
        return f"mean {mean}, std {std}"


#: The mappings of tensors in a file, and the classes and pixels if it names them.
Found = tuple[list[Mapping[str, Tensor]], tuple[str, ...] | None, Pixels | None]


@dataclass(frozen=True)
class Report:
    """What was loaded from a file.

    ``share`` is the smaller one of tensors and of values. ``pixels`` is the normalisation that the
    file names.
    """

    path: Path
    wanted: int
    loaded: int
    share: float
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    other_shape: tuple[str, ...]
    head: str
    pixels: Pixels | None

    def __str__(self) -> str:
        trained = "" if self.pixels is None else f"; trained on images with {self.pixels}"
        return (
            f"{self.path}: {self.loaded} of {self.wanted} tensors of the backbone loaded "
            f"({self.share:.1%}), {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.other_shape)} of another shape; classifier: {self.head}{trained}"
        )

    def details(self) -> str:
        """Name some of the tensors that were not loaded, by kind."""
        kinds = {
            "missing": self.missing,
            "of another shape": self.other_shape,
            "unexpected": self.unexpected,
        }
        return "; ".join(
            f"{kind}: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" * (len(names) > 4))
            for kind, names in kinds.items()
            if names
        )


def backbone_of(options: ModelOptions) -> tuple[str, dict[str, Any]]:
    """Return timm's name and the options of a backbone."""
    name, own = SMALL_BACKBONES.get(options.backbone, (options.backbone, {}))
    return name, {**own, **options.backbone_options}


def is_factory(options: ModelOptions) -> bool:
    """Return whether the backbone is a user's function, ``package.module:function``."""
    module, colon, name = options.backbone.partition(":")
    return bool(colon) and name.isidentifier() and all(map(str.isidentifier, module.split(".")))


def made_by_factory(options: ModelOptions) -> nn.Module:
    """Return the network of the user's function, called with the backbone's options.

    Raises:
        Refused: the function does not exist, or does not return a module.
    """
    try:
        factory = resolve_name(options.backbone)
    except (ImportError, AttributeError) as error:
        raise Refused(
            f"--backbone {options.backbone} cannot be imported: {error}; start the program in the "
            "folder of the package, or set PYTHONPATH"
        ) from error
    made = factory(**options.backbone_options)
    if not isinstance(made, nn.Module):
        raise Refused(
            f"--backbone {options.backbone} must return a torch.nn.Module, got "
            f"{type(made).__name__}"
        )
    return made


def prepare(classifier: CAMClassifier, faces: LabeledFaces, views: Views) -> None:
    """Pass the training images to the backbone's method ``prepare(batches)``, if it has one.

    A user's backbone can compute statistics of them before the training.
    """
    see = getattr(classifier.backbone, "prepare", None)
    if see is None:
        return
    rows = torch.arange(len(faces)).split(_AT_ONCE)
    see(
        views.plain(torch.stack([faces[row]["image"] for row in part]))
        for part in map(Tensor.tolist, rows)
    )


def make_classifier(
    options: ModelOptions, classes: tuple[str, ...]
) -> tuple[CAMClassifier, Report | None]:
    """Return the classifier with its start weights, and a report if they are from a file.

    Raises:
        Refused: the weights fill too little of the backbone, or are for other classes.
    """
    if options.pretrained and options.weights:
        raise Refused("--pretrained and --weights exclude each other; choose one of them")
    backbone: str | nn.Module
    backbone, backbone_options = backbone_of(options)
    if is_factory(options):
        if options.pretrained:
            raise Refused(
                f"--pretrained is for timm's networks, but {options.backbone} makes its own "
                "weights; remove the option"
            )
        backbone, backbone_options = made_by_factory(options), {}
    try:
        classifier = CAMClassifier(
            backbone,
            num_classes=len(classes),
            pretrained=options.pretrained,
            model_options=backbone_options,
        )
    except (RuntimeError, TypeError, ValueError, OSError, AssertionError) as error:
        raise Refused(
            f"--backbone {options.backbone} cannot be made: {' '.join(str(error).split())}; "
            "choose a name of timm.list_models(), or package.module:function"
        ) from error
    if options.weights is None:
        return classifier, None
    report = load_weights(
        classifier, Path(options.weights).expanduser(), classes, new_head=options.new_head
    )
    if report.share < LEAST_SHARE and not options.allow_partial:
        raise Refused(
            f"{report}; {report.details()}. Choose the backbone of the file instead of "
            f"{options.backbone}, or accept this with --allow-partial"
        )
    return classifier, report


def pixels_of(classifier: CAMClassifier, report: Report | None = None) -> Pixels:
    """Return the normalisation that the loaded weights, or else the backbone, expect."""
    if report is not None and report.pixels is not None:
        return report.pixels
    config = resolve_model_data_config(classifier.backbone)
    return Pixels(tuple(config["mean"]), tuple(config["std"]))


def load_weights(
    classifier: CAMClassifier, path: Path, classes: tuple[str, ...], *, new_head: bool
) -> Report:
    """Copy matching tensors of a file into the backbone, and the head if the classes agree."""
    path = path / MODEL_FILE if path.is_dir() else path
    candidates, of_classes, pixels = read_weights(path)
    if of_classes is not None and of_classes != classes and not new_head:
        raise Refused(
            f"{path} has the classes {', '.join(of_classes)}, expected those of the data, "
            f"{', '.join(classes)}; use the same order of classes, or add --new-head"
        )
    own = dict(classifier.state_dict(keep_vars=True))
    head = classifier.get_classifier()
    head_name = next(name for name, module in classifier.named_modules() if module is head)
    of_head = {name for name in own if name.startswith(f"{head_name}.")}
    wanted = {
        name.removeprefix("backbone."): value
        for name, value in own.items()
        if name.startswith("backbone.")
        and name not in of_head
        and not name.endswith("num_batches_tracked")
    }
    tensors, prefix = max(
        ((tensors, _prefix(tensors, wanted)) for tensors in candidates),
        key=lambda pair: sum(pair[1] + name in pair[0] for name in wanted),
    )
    missing, other_shape, loaded, numbers = [], [], 0, 0
    with torch.no_grad():
        for name, value in wanted.items():
            found = tensors.get(prefix + name)
            if found is None:
                missing.append(name)
            elif found.shape != value.shape:
                other_shape.append(f"{name} {tuple(found.shape)}, here {tuple(value.shape)}")
            elif not bool(found.isfinite().all()):
                raise Refused(
                    f"{path}: {prefix + name} has values that are not finite; choose another file"
                )
            else:
                value.copy_(found)
                loaded, numbers = loaded + 1, numbers + value.numel()
        in_file = {name: _name_in_file(name, prefix) for name in of_head}
        keeps_head = of_classes == classes and not new_head
        for name, its in in_file.items():
            keeps_head = keeps_head and its in tensors and tensors[its].shape == own[name].shape
        for name, its in in_file.items() if keeps_head else ():
            own[name].copy_(tensors[its])
    known = {prefix + name for name in wanted} | {*in_file.values()}
    unexpected = [
        name for name in tensors if name not in known and not name.endswith("num_batches_tracked")
    ]
    total = sum(value.numel() for value in wanted.values())
    return Report(
        path=path,
        wanted=len(wanted),
        loaded=loaded,
        share=min(loaded / len(wanted), numbers / total),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        other_shape=tuple(other_shape),
        head="loaded" if keeps_head else "new",
        pixels=pixels,
    )


def read_weights(path: Path) -> Found:
    """Return what a file has: tensors, classes and pixels."""
    if not path.is_file():
        raise Refused(f"--weights {path} does not exist; give a file, or the folder of a run")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        # torch warns about pickle protocols, which the user cannot change here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Refused(
            f"{path} has more than tensors in plain containers, and unpickling the rest could run "
            "code; save only the state_dict, or use safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise Refused(
            f"{path} is damaged or not a file of weights: {error}; choose another file"
        ) from error
    candidates = [found for found in _mappings(state) if found]
    if not candidates:
        raise Refused(f"{path} has no tensors by name; save a state_dict")
    return candidates, None, None


def _read_safetensors(path: Path) -> Found:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Refused(
            f"{path} is damaged or not a safetensors file: {error}; choose another file"
        ) from error
    known: dict[str, Any] = {}
    for name, text in metadata.items():
        with suppress(ValueError):
            known[name] = json.loads(text)
    # A run has the pixels among its settings, and the file of `strip` beside the classes.
    settings = known.get("settings")
    return [tensors], _classes(known), _pixels(settings if isinstance(settings, dict) else known)


def _classes(known: Mapping[str, Any]) -> tuple[str, ...] | None:
    classes = known.get("classes")
    return tuple(classes) if isinstance(classes, list) else None


def _pixels(known: Mapping[str, Any]) -> Pixels | None:
    try:
        mean, std = (tuple(map(float, known[name])) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        return None
    usable = len(mean) == len(std) == 3 and all(map(math.isfinite, mean + std)) and min(std) > 0
    return Pixels(mean, std) if usable else None


def _mappings(state: object) -> Iterator[Mapping[str, Tensor]]:
    """Yield every mapping of names to tensors in a nested checkpoint."""
    if not isinstance(state, Mapping):
        return
    yield {name: value for name, value in state.items() if isinstance(value, Tensor)}
    for value in state.values():
        yield from _mappings(value)


def _name_in_file(name: str, prefix: str) -> str:
    """Return the name in the file of a tensor of the classifier."""
    if name.startswith("backbone."):
        return prefix + name.removeprefix("backbone.")
    return prefix.removesuffix("backbone.") + name


def _prefix(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return the most frequent prefix of the backbone's names in the file, such as ``module.``."""
    found: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                found[".".join((*parts[:start], ""))] += 1
    return found.most_common(1)[0][0] if found else ""
