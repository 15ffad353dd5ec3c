"""Any data set by one line of text, as a command line or a settings file has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo_faces import DemoFaces
from robustfer.data.ferplus import FERPlus, Labels
from robustfer.data.folder import ImageFolder

_READERS: dict[str, Callable[..., LabeledFaces]] = {
    "demo": DemoFaces,
    "ferplus": FERPlus,
    "folder": ImageFolder,
}


def load(
    spec: str,
    *,
    split: Literal["train", "validation", "test"] | None = "train",
    size: int | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
    labels: Labels | None = None,
    fer2013_labels: str | Path | None = None,
    num_classes: Literal[7, 8] | None = None,
    duplicates: Literal["error", "drop"] | None = None,
    in_memory: bool | None = None,
) -> LabeledFaces:
    """Load ``"demo"``, ``"ferplus:PATH"`` or ``"folder:PATH"``.

    An option left at ``None`` is the reader's own default; one that the reader does not have is an
    error.

    Args:
        spec: kind of data set, and its folder.
        split: ``"train"``, ``"validation"`` or ``"test"``; ``None`` for an image folder whose
            classes lie directly below it.
        size: side of the images in pixels.
        num_samples: demo: number of faces to draw.
        seed: demo: which faces.
        labels: FERPlus: ``"majority"``, ``"probability"`` or ``"fer2013"``.
        fer2013_labels: FERPlus: csv with FER2013's own labels.
        num_classes: FERPlus: 7, or 8 with contempt.
        duplicates: FERPlus: ``"error"``, or ``"drop"`` for images named again in the same row.
        in_memory: FERPlus, folder: read all images now.

    Raises:
        FileNotFoundError: the folder, or a file it should have, is not there.
        ValueError: an unknown kind or split, a path missing or not wanted, or an option of another reader.

    >>> len(load("demo", num_samples=8))
    8
    >>> load("ferpls:faces")
    Traceback (most recent call last):
    ...
    ValueError: no data set is called 'ferpls'; write demo, ferplus:PATH or folder:PATH; did you mean 'ferplus'?
    """  # noqa: E501 - the message is one line
    if split not in ("train", "validation", "test", None):
        raise ValueError(f"split must be train, validation or test, got {split!r}")
    kind, colon, path = spec.partition(":")
    if kind not in _READERS:
        near = get_close_matches(kind.lower(), _READERS, n=1)
        raise ValueError(
            f"no data set is called {kind!r}; write demo, ferplus:PATH or folder:PATH"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    reader = _READERS[kind]
    known = inspect.signature(reader).parameters
    options: dict[str, Any] = {
        "size": size,
        "num_samples": num_samples,
        "seed": seed,
        "labels": labels,
        "fer2013_labels": fer2013_labels,
        "num_classes": num_classes,
        "duplicates": duplicates,
        "in_memory": in_memory,
    }
    given = {name: value for name, value in options.items() if value is not None}
    foreign = [name for name in given if name not in known]
    if foreign:
        raise ValueError(
            f"{kind} has no option {', '.join(foreign)}; it has "
            f"{', '.join(name for name in options if name in known)}"
        )
    if split is None and kind != "folder":
        raise ValueError(f"split=None is for an image folder alone, not for {kind}")
    if "root" not in known and colon:
        raise ValueError(f"{kind} takes no path: write {kind}, got {spec!r}")
    if "root" in known:
        if not path:
            raise ValueError(f"{kind} needs a folder: write {kind}:PATH, got {spec!r}")
        given["root"] = path
    return reader(split=split, **given)
