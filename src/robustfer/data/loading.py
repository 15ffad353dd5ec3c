"""Load any data set by a line of text, for command lines and settings files."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from robustfer import _shown
from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo.faces import DemoFaces
from robustfer.data.readers.affectnet import AffectNet
from robustfer.data.readers.fer2013 import FER2013
from robustfer.data.readers.ferplus import FERPlus
from robustfer.data.readers.folder import ImageFolder
from robustfer.data.readers.label_table import LabelTable
from robustfer.data.readers.rafdb import RAFDB

_READERS: dict[str, Callable[..., LabeledFaces]] = {
    "demo": DemoFaces,
    "rafdb": RAFDB,
    "ferplus": FERPlus,
    "fer2013": FER2013,
    "affectnet": AffectNet,
    "folder": ImageFolder,
    "table": LabelTable,
}


def load(
    spec: str,
    *,
    split: Literal["train", "validation", "test"] | None = "train",
    classes: str | Sequence[str] | None = None,
    transform: Callable[[Tensor], Any] | None = None,
    **options: Any,
) -> LabeledFaces:
    """Load ``"demo"``, ``"rafdb:PATH"``, ``"ferplus:PATH"``, ``"folder:PATH"`` and so on.

    Args:
        spec: kind of data set, and its path. The kinds and their readers are ``demo``
            (:class:`DemoFaces`), ``rafdb`` (:class:`RAFDB`), ``ferplus`` (:class:`FERPlus`),
            ``fer2013`` (:class:`FER2013`), ``affectnet`` (:class:`AffectNet`), ``folder``
            (:class:`ImageFolder`) and ``table`` (:class:`LabelTable`).
        split: ``"train"``, ``"validation"`` or ``"test"``. ``None``: an image folder with its
            classes directly below it, or a table without splits.
        classes: the reader's option of this name, if it has one. Otherwise the order of the
            classes: names, or a data set such as ``"affectnet"``.
        transform: a function of each image, as in :meth:`LabeledFaces.with_transform`.
        options: options of the reader. ``None`` means the reader's default.

    Raises:
        FileNotFoundError: the folder or one of its files does not exist.
        ValueError: the kind, the split or an option is unknown, or the path is missing or not
            needed.

    >>> len(load("demo", num_samples=8))
    8
    """
    kind, colon, path = spec.partition(":")
    if kind not in _READERS:
        *others, last = (each if each == "demo" else f"{each}:PATH" for each in _READERS)
        raise ValueError(
            f"no data set is called {kind!r}; write {', '.join(others)} or {last}"
            + _shown.near(kind.lower(), _READERS)
        )
    if kind == "demo" and colon:
        raise ValueError(f"demo takes no path: write demo, got {spec!r}")
    if kind != "demo" and not path:
        raise ValueError(f"{kind} needs a path: write {kind}:PATH, got {spec!r}")
    reader = _READERS[kind]
    positional = [path] if path else []
    known = list(inspect.signature(reader).parameters)[len(positional) :]
    options = {name: value for name, value in options.items() if value is not None}
    for name in options:
        if name not in known:
            others = [each for each in known if each != "split"]
            raise ValueError(
                f"{kind} has no option {name}; it has {', '.join(others)}"
                + _shown.near(name, known)
            )
    if "classes" in known:
        options["classes"], classes = classes, None
    faces = reader(*positional, split=split, **options)
    faces = faces if classes is None else faces.with_classes(classes)
    return faces.with_transform(transform)
