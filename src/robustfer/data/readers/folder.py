"""Read your own images from one folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT, class_name
from robustfer.data.readers.images import FileFaces, is_hidden, walk_images
from robustfer.data.readers.label_names import name_classes
from robustfer.data.readers.paths import SPLITS, check_split, existing_folder


class ImageFolder(FileFaces):
    """Read images from ``root/class/*.png``, or from ``root/split/class/*.png``.

    If all folders have names of expressions, or synonyms ("Happy", "joy"), the classes are
    robustfer's in their usual order. Otherwise they are the sorted names of the folders of all
    splits. A folder one letter away from an expression ("Suprise") is an error, unless ``classes``
    names it.

    A folder is a class if it has an image. Images in its subfolders, for example one per person,
    belong to the class if it is an expression or one of ``classes``. Otherwise they are an error,
    because the subfolder could be the class. Hidden files and folders are left out, and those that
    archives add (``__MACOSX``). ``ids`` are the paths below ``root``.

    Args:
        root: the folder.
        split: ``"train"``, ``"validation"`` (or a folder ``valid`` or ``val``) or ``"test"``.
            ``None``: the classes are directly below ``root``.
        size: side of the square to resize to, in pixels. ``None``: all images have one size.
        classes: names and order of the classes, or a data set of
            :data:`robustfer.data.NUMBERINGS` for its order. A folder with another name is an error.
        numbers: the meaning of folders named by numbers: a data set of
            :data:`robustfer.data.NUMBERINGS`, or ``"classes"`` for positions in ``classes``.
            Without it such a folder is an error, unless ``classes`` names it.
        in_memory: read all images at once and keep them, 3 * H * W bytes each.

    Raises:
        FileNotFoundError: root or the split's folder does not exist.
        ValueError: an option, a folder or an image has another form. The message names it.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("happiness", "anger"):
    ...         Path(root, name).mkdir()
    ...         Image.new("RGB", (32, 32)).save(Path(root, name, "0.png"))
    ...     faces = ImageFolder(root, in_memory=True)
    >>> faces.ids, faces.classes[faces[0]["target"]], len(faces.classes)
    (['anger/0.png', 'happiness/0.png'], 'anger', 7)
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: Literal["train", "validation", "test"] | None = None,
        size: int | None = None,
        classes: str | Sequence[str] | None = None,
        numbers: str | None = None,
        in_memory: bool = False,
    ) -> None:
        check_split(split)
        root = existing_folder(root)
        folders = _split_folders(root)
        if split is None:
            if folders:
                raise ValueError(
                    f"{root} has the splits {', '.join(folders)}; choose one with split="
                )
            folders, split = {"train": root}, "train"
        elif split not in folders:
            raise FileNotFoundError(
                f"{root} has no folder {' or '.join(SPLITS[split])} for the split {split!r}; if "
                "the classes are directly below it, use split=None (in a command: all)"
            )
        folder = folders[split]
        excluded: Counter[str] = Counter()
        # Read all splits, because they must share their classes.
        found = {
            below: _images_of_classes(below, excluded if below == folder else Counter())
            for below in folders.values()
        }
        labels = {label: f"the folder {below / label}" for below in found for label in found[below]}
        names, order = name_classes(labels, numbers=numbers, classes=classes)
        known = EXPRESSIONS_WITH_CONTEMPT if classes is None else order
        for below, images in found.items():
            for label, paths in images.items():
                for inner in {parts[1:-1] for parts in paths if len(parts) > 2}:
                    _check_inner(below / label, inner, names[label], known)

        start = folder.relative_to(root).parts
        ids: list[str] = []
        targets: list[int] = []
        for label, paths in found[folder].items():
            ids += ["/".join((*start, *parts)) for parts in paths]
            targets += [order.index(names[label])] * len(paths)
        if not ids:
            raise ValueError(
                f"{folder} has no image, expected files like {folder / 'happiness' / '1.png'}"
            )
        super().__init__(
            root,
            size=size,
            in_memory=in_memory,
            classes=order,
            ids=ids,
            targets=targets,
            excluded=+excluded,
        )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _images_of_classes(folder: Path, excluded: Counter[str]) -> dict[str, list[tuple[str, ...]]]:
    """Return the images of each class folder, by their path below ``folder``."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for parts in sorted(walk_images(folder, excluded)):
        if len(parts) == 1:
            excluded["outside the class folders"] += 1
        else:
            found.setdefault(parts[0], []).append(parts)
    excluded["folder without an image"] = sum(each.name not in found for each in _folders(folder))
    return found


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    folders = _folders(root)
    for split, names in SPLITS.items():
        present = [folder for folder in folders if folder.name.lower() in names]
        if len(present) > 1:
            raise ValueError(
                f"{' and '.join(map(str, present))} both stand for the split {split!r}; keep one"
            )
        if present:
            found[split] = present[0]
    return found


def _check_inner(folder: Path, inner: tuple[str, ...], name: str, known: Collection[str]) -> None:
    """Refuse subfolders of a class folder that could be the classes."""
    other = next((repr(part) for part in inner if name != class_name(part) in known), None)
    cure = "move them"
    if other is None and name not in known:
        other, cure = "the name of a folder below it", "name the classes with classes="
    if other is not None:
        raise ValueError(
            f"{folder.joinpath(*inner)} has images whose class can be {folder.name!r} or {other}; "
            f"make root the folder above the class folders, or {cure}"
        )
