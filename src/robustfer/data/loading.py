"""Any data set by one line of text, as a command line or a settings file has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from robustfer._tables import Duplicates
from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo.faces import DemoFaces
from robustfer.data.readers.affectnet import AffectNet
from robustfer.data.readers.ferplus import FERPlus, Labels
from robustfer.data.readers.folder import ImageFolder
from robustfer.data.readers.label_table import LabelTable
from robustfer.data.readers.rafdb import RAFDB, Images

_READERS: dict[str, Callable[..., LabeledFaces]] = {
    "demo": DemoFaces,
    "rafdb": RAFDB,
    "ferplus": FERPlus,
    "affectnet": AffectNet,
    "folder": ImageFolder,
    "table": LabelTable,
}

#: The kinds of data set that a text may name.
KINDS: tuple[str, ...] = tuple(_READERS)

_SPECS = ["demo", *(f"{kind}:PATH" for kind in _READERS if kind != "demo")]


def load(
    spec: str,
    *,
    split: Literal["train", "validation", "test"] | None = "train",
    size: int | None = None,
    num_samples: int | None = None,
    seed: int | None = None,
    labels: Labels | Literal["label"] | None = None,
    fer2013_labels: str | Path | None = None,
    num_classes: Literal[7, 8] | None = None,
    images: Images | None = None,
    numbers: str | None = None,
    duplicates: Duplicates | None = None,
    in_memory: bool | None = None,
    classes: str | Sequence[str] | None = None,
) -> LabeledFaces:
    """Load ``"demo"``, ``"rafdb:PATH"``, ``"ferplus:PATH"``, ``"folder:PATH"`` and so on.

    An option left at ``None`` is the reader's own default; one that the reader does not have is an
    error.

    Args:
        spec: kind of data set (``demo``, ``rafdb``, ``ferplus``, ``affectnet``, ``folder`` or
            ``table``), and its folder, or its csv file for a table.
        split: ``"train"``, ``"validation"`` or ``"test"``; ``None`` for an image folder whose
            classes lie directly below it, or a table without splits.
        size: side of the images in pixels.
        num_samples: demo: number of faces to draw.
        seed: demo: which faces.
        labels: FERPlus: ``"majority"``, ``"probability"``, ``"crossentropy"``,
            ``"multi_target"`` or ``"fer2013"``; table: ``"label"`` or one of the first four.
        fer2013_labels: FERPlus: csv with FER2013's own labels.
        num_classes: FERPlus, AffectNet: 7, or 8 with contempt.
        images: RAF-DB: ``"aligned"``, ``"original"`` or ``"face"``.
        numbers: folder, table: what numbers mean as labels, say ``"affectnet"``, or ``"classes"``
            for positions in ``classes``.
        duplicates: tables of any kind: ``"error"``, or ``"drop"`` for images named again in the
            same words.
        in_memory: read all images now; not for the demo.
        classes: the order in which to count the classes, names or say ``"affectnet"``; ``None``:
            robustfer's own.

    Raises:
        FileNotFoundError: the folder, or a file it should have, is not there.
        ValueError: an unknown kind or split, a path missing or not wanted, or an option of another reader.

    >>> len(load("demo", num_samples=8))
    8
    >>> load("ferpls:faces")
    Traceback (most recent call last):
    ...
    ValueError: no data set is called 'ferpls'; write demo, rafdb:PATH, ferplus:PATH, affectnet:PATH, folder:PATH or table:PATH; did you mean 'ferplus'?
    """  # noqa: E501 - the message is one line
    if split not in ("train", "validation", "test", None):
        raise ValueError(f"split must be train, validation or test, got {split!r}")
    kind, colon, path = spec.partition(":")
    if kind not in _READERS:
        near = get_close_matches(kind.lower(), _READERS, n=1)
        raise ValueError(
            f"no data set is called {kind!r}; write {', '.join(_SPECS[:-1])} or {_SPECS[-1]}"
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
        "images": images,
        "numbers": numbers,
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
    if split is None and kind not in ("folder", "table"):
        raise ValueError(f"split=None is for an image folder or a table alone, not for {kind}")
    if kind == "demo":
        if colon:
            raise ValueError(f"demo takes no path: write demo, got {spec!r}")
    elif not path:
        raise ValueError(f"{kind} needs a path: write {kind}:PATH, got {spec!r}")
    else:
        given["table" if kind == "table" else "root"] = path
    if numbers == "classes" and classes is not None:
        given["classes"] = classes
    dataset = reader(split=split, **given)
    return dataset if classes is None else dataset.with_classes(classes)
