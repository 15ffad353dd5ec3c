"""What a training script needs around its loop: arguments, data, seeds, the order, a table.

No trainer: the loop, the loss and the evaluation stay in the script, where they can be read. The
order of the samples and every random number of an epoch follow from (seed, epoch) alone, so that a
run that was stopped and resumed equals one that was not.
"""

from __future__ import annotations

import argparse
import random
from ast import literal_eval
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler

from robustfer._checks import SWITCHES
from robustfer._files import claim_folder
from robustfer.checkpoint import MODEL_FILE, load_resume, save_resume
from robustfer.data import LabeledFaces, load
from robustfer.noise import with_symmetric_noise

#: Backbones for images of 48 pixels, whose usual networks end in maps of 2x2: name -> (timm's
#: name, options). ``small`` has 1.3 million parameters, ``tiny`` 0.3; both give maps of 6x6.
SMALL_BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("resnet10t", {"channels": (32, 64, 128, 256), "output_stride": 8}),
    "tiny": ("resnet10t", {"channels": (16, 32, 64, 128), "output_stride": 8, "stem_width": 16}),
}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults beside the options, and the commands of a script's docstring a line each."""


def argument_parser(description: str | None, *, methods: Sequence[str]) -> argparse.ArgumentParser:
    """Arguments that every training script shares; a script adds its method's own.

    >>> parser = argument_parser("An example.", methods=["ce", "eac"])
    >>> settings = parser.parse_args(["--data", "demo", "--noise", "0.3"])
    >>> settings.noise, settings.method
    (0.3, 'eac')
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=_HelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", default="demo", help="demo, or a kind and its PATH as for data.load"
    )
    data.add_argument("--num-samples", type=int, help="demo: faces to draw for each split")
    data.add_argument("--labels", help="FERPlus: majority, probability, ..., fer2013")
    data.add_argument("--fer2013-labels", type=Path, help="FERPlus: csv with FER2013's own labels")
    data.add_argument(
        "--duplicates", choices=["error", "drop"], help="FERPlus: rows that name an image again"
    )
    data.add_argument("--evaluate-on", default="test", choices=["validation", "test"], help="split")
    data.add_argument("--image-size", type=int, help="resize to this side in pixels")
    data.add_argument("--noise", type=float, default=0.0, help="share of labels made wrong")
    data.add_argument("--workers", type=int, default=0, help="processes that load images")

    training = parser.add_argument_group("training")
    training.add_argument("--method", choices=methods, default=methods[-1], help="what to train")
    training.add_argument("--backbone", default="small", help="small, tiny or any timm name")
    training.add_argument("--pretrained", action="store_true", help="start from timm's weights")
    training.add_argument("--epochs", type=int, default=16, help="passes over the data")
    training.add_argument("--batch-size", type=int, default=64, help="images a step")
    training.add_argument("--learning-rate", type=float, default=2e-3, help="largest of one cycle")
    training.add_argument("--weight-decay", type=float, default=0.05, help="of AdamW")
    training.add_argument("--seed", type=int, default=0, help="of noise, order, views and weights")
    training.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    training.add_argument("--amp", choices=["none", "bf16"], default="none", help="precision")

    run = parser.add_argument_group("run")
    run.add_argument("--output", type=Path, help="folder of the run; default runs/METHOD")
    run.add_argument("--resume", action="store_true", help="go on from resume.pt in the folder")
    run.add_argument("--stop-after", type=int, help="stop after this epoch, to resume later")
    run.add_argument("--max-steps", type=int, help="at most so many steps an epoch, for a trial")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse, check and complete the arguments: device and folder as they will be used.

    Raises:
        SystemExit: an argument is out of its range; the message names it.
    """
    settings = parser.parse_args(arguments)
    positive = ("epochs", "batch_size", "stop_after", "max_steps", "image_size", "num_samples")
    for names, least in ((positive, 1), (("workers", "seed", "weight_decay"), 0)):
        for name in names:
            value = getattr(settings, name)
            if value is not None and value < least:
                option = name.replace("_", "-")
                parser.error(f"--{option} must be at least {least}, got {value}")
    if not settings.learning_rate > 0:
        parser.error(f"--learning-rate must be above 0, got {settings.learning_rate}")
    if not 0 <= settings.noise <= 1:
        parser.error(f"--noise must lie in [0, 1], got {settings.noise}")
    settings.device = str(choose_device(settings.device))
    settings.output = settings.output or Path("runs", settings.method)
    return settings


def parse_options(text: str, *, switches: Collection[str] = ()) -> dict[str, Any]:
    """Return ``OPTION=VALUE,...`` of a command line as a dictionary.

    A value is a Python literal, or a word that switches on or off (``true``, ``yes``, ``on``,
    ``false``, ``no``, ``off``); anything else is text.

    Args:
        text: the options, separated by commas.
        switches: names of options that are on or off; for these ``1`` and ``0`` are words too.

    Raises:
        ValueError: a part is not ``OPTION=VALUE``, or a switch neither on nor off.

    >>> parse_options("q=0.5,variant=official,gather=no")
    {'q': 0.5, 'variant': 'official', 'gather': False}
    >>> parse_options("gather=0,seed=0", switches=["gather"])
    {'gather': False, 'seed': 0}
    >>> parse_options("")
    {}
    """
    options: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise ValueError(f"options must be OPTION=VALUE,..., got {part!r} in {text!r}")
        word = value.strip().lower()
        if word in SWITCHES and (name in switches or not word.isdigit()):
            options[name] = SWITCHES[word]
        elif name in switches:
            raise ValueError(f"{name} must be one of {', '.join(SWITCHES)}, got {value!r}")
        else:
            options[name] = value
            with suppress(ValueError, SyntaxError):
                options[name] = literal_eval(value)
    return options


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of a name; ``auto`` is the accelerator where there is one.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        found = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        )
        return found or torch.device("cpu")
    return torch.device(name)


def load_data(settings: argparse.Namespace) -> tuple[LabeledFaces, LabeledFaces]:
    """Return the training set, with the noise asked for, and the set to evaluate on."""
    options: dict[str, Any] = {
        "size": settings.image_size,
        "num_samples": settings.num_samples,
        "duplicates": settings.duplicates,
    }
    if settings.data.startswith("ferplus"):
        options["in_memory"] = True
    train_set = load(
        settings.data,
        split="train",
        labels=settings.labels,
        fer2013_labels=settings.fer2013_labels,
        **options,
    )
    if settings.noise:
        train_set = with_symmetric_noise(train_set, rate=settings.noise, seed=settings.seed)
    return train_set, load(settings.data, split=settings.evaluate_on, **options)


def backbone(name: str) -> tuple[str, dict[str, Any]]:
    """Return timm's name and options of a backbone; a timm name stands for itself.

    >>> backbone("resnet18")
    ('resnet18', {})
    """
    return SMALL_BACKBONES.get(name, (name, {}))


def train_loader(dataset: LabeledFaces, settings: argparse.Namespace) -> DataLoader[dict[str, Any]]:
    """Shuffled batches, the last incomplete one dropped; :func:`start_epoch` says which order."""
    if len(dataset) < settings.batch_size:
        raise ValueError(
            f"batch_size {settings.batch_size} is more than the {len(dataset)} training samples"
        )
    # One replica: DistributedSampler is torch's sampler whose order follows from seed and epoch.
    sampler: DistributedSampler[Any] = DistributedSampler(
        dataset, num_replicas=1, rank=0, seed=settings.seed
    )
    return DataLoader(
        dataset,
        batch_size=settings.batch_size,
        sampler=sampler,
        drop_last=True,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=settings.device.startswith("cuda"),
    )


def eval_loader(dataset: LabeledFaces, settings: argparse.Namespace) -> DataLoader[dict[str, Any]]:
    """All samples in order."""
    return DataLoader(
        dataset,
        batch_size=256,
        num_workers=settings.workers,
        pin_memory=settings.device.startswith("cuda"),
    )


def to_device(batch: Mapping[str, Any], settings: argparse.Namespace) -> dict[str, Any]:
    """Return the batch on the device of the settings, images as channels_last, and go on at once.

    >>> settings = argparse.Namespace(device="cpu")
    >>> batch = {"image": torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "id": ["a", "b"]}
    >>> to_device(batch, settings)["image"].is_contiguous(memory_format=torch.channels_last)
    True
    """
    return {
        name: value.to(
            settings.device,
            non_blocking=True,
            memory_format=torch.channels_last if value.ndim == 4 else torch.preserve_format,
        )
        if isinstance(value, torch.Tensor)
        else value
        for name, value in batch.items()
    }


def start_epoch(
    epoch: int, loader: DataLoader[dict[str, Any]], settings: argparse.Namespace
) -> torch.Generator:
    """Seed everything for an epoch and return the generator of its augmentations."""
    if not isinstance(loader.sampler, DistributedSampler):
        raise TypeError(
            f"loader must come from train_loader, got one with a {type(loader.sampler).__name__}"
        )
    loader.sampler.set_epoch(epoch)
    seed = int(np.random.SeedSequence([settings.seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for the code of others that draws from it
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def autocast(settings: argparse.Namespace) -> AbstractContextManager[Any]:
    """Mixed precision as the settings ask for it: bfloat16, or none."""
    device = torch.device(settings.device).type
    return torch.autocast(device, torch.bfloat16, enabled=settings.amp == "bf16")


def save_progress(settings: argparse.Namespace, **parts: Any) -> None:
    """Write ``resume.pt``: the ``state_dict`` of each part under its name, and the settings.

    Call :func:`load_progress` first, with ``--resume`` or without: it refuses a folder that holds
    another run.

    Raises:
        BlockingIOError: another running process uses the folder.
    """
    claim_folder(settings.output)
    state = {name: part.state_dict() for name, part in parts.items()}
    save_resume(settings.output / "resume.pt", {"settings": as_text(settings), **state})


def load_progress(settings: argparse.Namespace, **parts: Any) -> None:
    """With ``--resume``, load what :func:`save_progress` wrote into the same parts.

    From here on the folder belongs to this process: another one that asks for it is refused.

    Raises:
        FileNotFoundError: there is nothing to resume.
        FileExistsError: without ``--resume``, the folder already holds a run.
        BlockingIOError: another running process uses the folder.
        ValueError: the run had other settings, or other parts.
    """
    path = settings.output / "resume.pt"
    if settings.resume and not path.is_file():
        raise FileNotFoundError(f"{path} is not there, so there is no run to resume")
    claim_folder(settings.output)
    if not settings.resume:
        for existing in (path, settings.output / MODEL_FILE):
            if existing.exists():
                raise FileExistsError(
                    f"{existing} already exists: go on with that run by --resume, or choose "
                    "another folder by --output"
                )
        return
    saved = load_resume(path)
    before, now = saved.pop("settings", {}), as_text(settings)
    free = {"resume", "stop_after", "output", "workers", "device"}
    other = [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted((before.keys() | now.keys()) - free)
        if before.get(name) != now.get(name)
    ]
    if other:
        raise ValueError(f"{path} is of a run with other settings: {'; '.join(other)}")
    if saved.keys() != parts.keys():
        raise ValueError(f"{path} holds {sorted(saved)}, this run needs {sorted(parts)}")
    for name, part in parts.items():
        part.load_state_dict(saved[name])


def as_text(settings: argparse.Namespace) -> dict[str, Any]:
    """Return the settings as JSON values, for a checkpoint or a row of results."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in sorted(vars(settings).items())
    }


def show_settings(settings: argparse.Namespace) -> str:
    """Return the settings that take effect, one a line, for the top of the run's output."""
    values = as_text(settings)
    width = max(map(len, values))
    return "\n".join(f"{name:{width}}  {value}" for name, value in values.items())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, its columns those of the first row.

    >>> print(table([{"method": "ce", "last": "71.1 %"}, {"method": "eac", "last": "78.2 %"}]))
    | method | last   |
    |--------|--------|
    | ce     | 71.1 % |
    | eac    | 78.2 % |
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    lines = [
        "| "
        + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
