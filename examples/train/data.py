"""Read the faces of a run, make labels noisy, decode images once, and order each epoch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from examples.train.options import DataOptions, NoiseOptions, Refused, Settings
from robustfer.data import LabeledFaces, ProgressiveBalancedSampler, load
from robustfer.data.readers.images import UnreadableImageError
from robustfer.noise import with_class_noise, with_noise_list, with_symmetric_noise

# These options choose the kind of label. Evaluation uses the reader's defaults for them.
_WHAT_A_LABEL_IS = ("labels", "fer2013_labels")
_DECODED_AT_ONCE = 256
# Names in an error.
_SHOWN = 20


def seed_of(*numbers: int) -> int:
    """Return a seed made from numbers such as seed, epoch and step."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def load_faces(settings: Settings) -> tuple[LabeledFaces, LabeledFaces]:
    """Return the training set, with the noise of the settings, and the evaluation set."""
    options = settings.data
    train = read_faces_to_train(options, settings.noise, seed=settings.run.seed)
    try:
        judged = read_faces_to_judge(options)
    except (ValueError, OSError) as error:
        raise Refused(
            f"the evaluation set cannot be read: {' '.join(str(error).split())}. Choose its split "
            "with --evaluate-on, or another data set with --evaluate-data"
        ) from error
    if judged.classes != train.classes:
        raise Refused(
            f"the evaluation set has the classes {', '.join(judged.classes)}, expected those of "
            f"the training set, {', '.join(train.classes)}; use one order for both, such as "
            "--reader.classes rafdb"
        )
    (height, width), other = (tuple(faces[0]["image"].shape[1:]) for faces in (train, judged))
    if other != (height, width):
        raise Refused(
            f"the evaluation images have {other[0]} x {other[1]} pixels, expected {height} x "
            f"{width} as the training images; use one size for both, such as --reader.size {height}"
        )
    return train, judged


def read_faces_to_train(options: DataOptions, noise: NoiseOptions, *, seed: int) -> LabeledFaces:
    """Return the training set with its noise."""
    faces = _read(options.data, {"split": "train", **options.reader})
    return with_noise(faces, noise, seed=seed)


def read_faces_to_judge(options: DataOptions) -> LabeledFaces:
    """Return the evaluation set with its own labels."""
    spec = options.evaluate_data or options.data
    shared = {k: v for k, v in options.reader.items() if k not in (*_WHAT_A_LABEL_IS, "split")}
    if spec.partition(":")[0] != options.data.partition(":")[0]:
        shared = {name: shared[name] for name in ("size", "classes") if name in shared}
    chosen = shared | options.evaluate_reader
    whole = options.reader.get("split", "train") in (None, "all")
    if whole and options.evaluate_data is None and "split" not in options.evaluate_reader:
        raise Refused(
            f"--data {options.data} is read without splits, so it has no "
            f"{options.evaluate_on} set; give one with --evaluate-data, or evaluate on the "
            "training set with --evaluate-reader.split all"
        )
    judged = _read(spec, {"split": options.evaluate_on, **chosen})
    if judged.targets.ndim != 1:
        raise Refused(
            "the evaluation set has probabilities as labels, expected one class per image; choose "
            "such labels, for example --evaluate-reader.labels majority"
        )
    return judged


def _read(spec: str, options: dict[str, Any]) -> LabeledFaces:
    if options.get("split") == "all":
        options = {**options, "split": None}
    try:
        return load(spec, **options)
    except TypeError as error:  # an option of the wrong type
        raise Refused(f"--reader: {error}") from error


def with_noise(faces: LabeledFaces, options: NoiseOptions, *, seed: int) -> LabeledFaces:
    """Return the faces with noisy labels. ``true_targets`` keeps the labels they had."""
    kind, rate = options.noise, options.noise_rate
    if kind == "none":
        return faces
    _check_that_all_are_read(options)
    if kind is None:
        return faces
    if kind == "list":
        if options.noise_list is None:
            raise Refused("--noise list needs a file; add --noise-list FILE")
        return with_noise_list(
            faces, options.noise_list, classes=options.noise_numbering, base=options.noise_base
        )
    if rate is None:
        raise Refused(f"--noise {kind} needs a rate; add --noise-rate, such as --noise-rate 0.3")
    how: dict[str, Any] = {
        "rate": rate,
        "seed": seed if options.noise_seed is None else options.noise_seed,
        "variant": options.noise_variant,
    }
    if kind in ("symmetric", "symmetric-included"):
        included = "included" if kind == "symmetric-included" else "excluded"
        return with_symmetric_noise(faces, true_class=included, **how)
    if kind == "crowd" and faces.votes is None:
        raise Refused("--noise crowd needs data with votes of several people, such as ferplus")
    if kind != "confusions":
        return with_class_noise(faces, kind, **how)
    if not options.noise_confusions:
        raise Refused(
            "--noise confusions needs confusions; add --noise-confusions, such as "
            "'{fear: surprise}'"
        )
    return with_class_noise(faces, options.noise_confusions, **how)


def _check_that_all_are_read(options: NoiseOptions) -> None:
    """Refuse options that the kind of noise does not read: a mistake would go unnoticed."""
    kind = options.noise
    of_lists = ("noise_list", "noise_numbering", "noise_base")
    drawn = ("noise_rate", "noise_seed", "noise_variant")
    read: tuple[str, ...] = () if kind is None else drawn
    read = {"list": of_lists, "confusions": (*read, "noise_confusions")}.get(kind or "", read)
    for name in (*of_lists, *drawn, "noise_confusions"):
        value, default = getattr(options, name), "exact" if name == "noise_variant" else "null"
        if value is None or value == {} or value == default or name in read:
            continue
        option = f"--{name.replace('_', '-')}"
        if kind is not None:
            raise Refused(
                f"--noise {kind} does not read {option}, got {value}; remove it, or write "
                f"{option} {default} against a config file"
            )
        use = "list" if name in of_lists else "symmetric"
        raise Refused(
            f"{option} needs a kind of noise; add --noise {use}, or --noise none for the labels "
            "as they are"
        )


def class_weights(faces: LabeledFaces, options: DataOptions) -> Tensor | None:
    """Return a weight for each class, 1 on average over the training set, or ``None``."""
    if options.class_weights == "none":
        return None
    soft = faces.targets.ndim == 2
    counts = faces.targets.sum(0) if soft else faces.targets.bincount(minlength=len(faces.classes))
    counts = counts.double()
    if options.class_weights == "balanced":
        weights = torch.where(counts > 0, 1 / counts.clamp(min=1), 0.0)
    else:
        weights = torch.tensor([float(weight) for weight in options.class_weights]).double()
        if len(weights) != len(counts):
            raise Refused(
                f"--class-weights has {len(weights)} weights, expected one for each of "
                f"{', '.join(faces.classes)}"
            )
    average = (weights * counts).sum() / counts.sum()
    return (weights / average).to(torch.get_default_dtype())


class Order:
    """Order the rows of the data set for each epoch, by seed, epoch (from 1) and labels."""

    def __init__(
        self,
        options: DataOptions,
        labels: Callable[[], Tensor],
        *,
        num_classes: int,
        epochs: int,
        seed: int,
    ) -> None:
        self.labels, self.seed, self.sampler = labels, seed, None
        self.constant = options.sampling == "balanced"
        if options.sampling != "shuffled":
            self.sampler = ProgressiveBalancedSampler(
                labels, num_classes=num_classes, max_epoch=max(1, epochs - 1), seed=seed,
                num_replicas=1, rank=0,
            )  # fmt: skip

    def __call__(self, epoch: int) -> Tensor:
        if self.sampler is None:
            generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
            return torch.randperm(len(self.labels()), generator=generator)
        self.sampler.set_epoch(epoch - 1 + self.sampler.max_epoch * self.constant)
        return torch.tensor(list(self.sampler))


class Images:
    """Load images by row, uint8 (B, 3, H, W). They are kept, or read again in each epoch.

    Args:
        faces: the data set.
        options: where to keep the images, and how many processes read files.
        device: the device of the batches.
        copies: processes of this machine that each keep a copy.
        title: title of the progress bar while images are decoded. ``None``: no bar.
    """

    def __init__(
        self,
        faces: LabeledFaces,
        options: DataOptions,
        device: torch.device,
        *,
        copies: int = 1,
        title: str | None = None,
    ) -> None:
        self.faces, self.device = faces, device
        self.size = tuple(faces[0]["image"].shape[1:])
        self.plan: list[list[int]] = []
        size = len(faces) * 3 * self.size[0] * self.size[1]
        place = _place(options, size, device, copies)
        #: What to do about files that are read slowly, or ``None``.
        self.advice: str | None = None
        if place == "files" and options.keep == "auto" and options.workers == 0:
            self.advice = (
                f"the images need {copies * size / 2**30:.1f} GiB, more than --memory-limit "
                f"{options.memory_limit:g}, so one process reads the files again in each epoch; "
                "add --workers 8, or raise the limit"
            )
        # By default the loader draws from torch's generator, which would change drop-out.
        self.loader = DataLoader(
            _ImagesOnly(faces),
            batch_sampler=_Plan(self.plan),
            num_workers=options.workers,
            persistent_workers=options.workers > 0 and place == "files",
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),
        )
        self.kept: Tensor | None = None
        if place != "files":
            self.kept = self._decoded(device if place == "device" else torch.device("cpu"), title)

    def __len__(self) -> int:
        return len(self.faces)

    def batches(self, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each batch of rows, on the device."""
        if self.kept is not None:
            for part in rows:
                part = part.to(self.kept.device, non_blocking=True)
                yield _channels_first(self.kept[part]).to(self.device, non_blocking=True)
            return
        self.plan[:] = [part.tolist() for part in rows]
        for images in self._read():
            yield images.to(self.device, non_blocking=True, memory_format=torch.channels_last)

    def _read(self) -> Iterator[Tensor]:
        """Yield the images of the plan, and turn the error of a damaged file into one line."""
        try:
            yield from self.loader
        except (OSError, ValueError, RuntimeError) as error:
            # A worker's error has a traceback before its last line.
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            last = re.sub(rf"^[\w.]*{type(error).__name__}: ", "", last)
            if isinstance(error, UnreadableImageError):
                last += f"; {self._all_unreadable()}"
            raise Refused(last) from error

    def _all_unreadable(self) -> str:
        """Read all images, and say which cannot be read: to find them one by one takes long."""
        found: list[str] = []
        with tqdm(total=len(self), desc="looking for damaged images", leave=False) as bar:
            for names in DataLoader(
                _Unreadable(self.faces), batch_size=64, num_workers=self.loader.num_workers,
                collate_fn=list, generator=torch.Generator(),
            ):  # fmt: skip
                found += filter(None, names)
                bar.update(len(names))
        if len(found) == 1:
            return "remove or replace it"
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        return f"{len(found)} of {len(self)} images cannot be read, remove or replace them: {shown}"

    def _decoded(self, place: torch.device, title: str | None) -> Tensor:
        kept = torch.empty(len(self.faces), *self.size, 3, dtype=torch.uint8, device=place)
        self.plan[:] = [part.tolist() for part in torch.arange(len(kept)).split(_DECODED_AT_ONCE)]
        start = 0
        with tqdm(total=len(kept), desc=title, disable=title is None, leave=False) as bar:
            for images in self._read():
                kept[start : start + len(images)] = images.permute(0, 2, 3, 1)
                start += len(images)
                bar.update(len(images))
        return kept


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


def _place(
    options: DataOptions, size: int, device: torch.device, copies: int
) -> Literal["device", "memory", "files"]:
    if options.keep != "auto":
        return options.keep
    if device.type == "cuda" and size < torch.cuda.get_device_properties(device).total_memory / 4:
        return "device"
    return "memory" if copies * size <= options.memory_limit * 2**30 else "files"


class _ImagesOnly(Dataset[Tensor]):
    def __init__(self, faces: LabeledFaces) -> None:
        self.faces = faces

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, row: int) -> Tensor:
        image: Tensor = self.faces[row]["image"]
        return image


class _Unreadable(Dataset["str | None"]):
    """The name of each image that cannot be read, and ``None`` for the others."""

    def __init__(self, faces: LabeledFaces) -> None:
        self.faces = faces

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, row: int) -> str | None:
        try:
            self.faces[row]
        except UnreadableImageError:
            return self.faces.ids[row]
        except (OSError, ValueError):  # another error than the one that is looked for
            return None
        return None


class _Plan:
    """List the batches that the loader reads next. Its owner changes them between epochs."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(list(self.batches))

    def __len__(self) -> int:
        return len(self.batches)
