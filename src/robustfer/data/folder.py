"""Your own images: one folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from robustfer.data.classes import class_name, class_order, classes_of, numbering
from robustfer.data.dataset import LabeledFaces
from robustfer.data.images import IMAGE_SUFFIXES, ImageFiles
from robustfer.data.tables import SPLITS


class ImageFolder(LabeledFaces):
    """Images in ``root/class/*.png``, or in ``root/split/class/*.png``.

    The classes are robustfer's expressions in their usual order where the folders bear their
    names or synonyms ("Happy", "joy"), whether or not each of them has a folder; else the folders'
    sorted names, over all the splits below ``root``, so that a class means the same in each.
    ``ids`` are the paths below ``root``; ``excluded`` counts the files that are no images by their
    ending.

    Args:
        root: the folder.
        split: ``"train"``, ``"validation"`` (its folder may be called ``valid`` or ``val`` too) or
            ``"test"``; ``None`` where the classes lie directly below ``root``.
        size: side of the square to resize to, in pixels, so that images of several sizes make a
            batch; ``None``: all images are of one size. Faces should be cropped before.
        classes: names and order of the classes, or a data set of
            :data:`robustfer.data.NUMBERINGS` for its order; a folder of another name is an error.
        numbers: what folders called by numbers mean, a data set of
            :data:`robustfer.data.NUMBERINGS`; ``None``: nothing but their names.
        in_memory: read all images now (3 * H * W bytes each) and none later.

    Raises:
        FileNotFoundError: root or the split's folder is not there.
        ValueError: no image, an unknown class, or an image that cannot be read or differs in size;
            the message names the folder or file.

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
        root = Path(root).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"the folder {root} is not there")
        folders = _split_folders(root)
        if split is None:
            if folders:
                raise ValueError(
                    f"{root} holds the splits {', '.join(folders)}; say which with split="
                )
            folders = {"": root}
        folder = _chosen(root, folders, split)
        codes = {} if numbers is None else numbering(numbers)
        names = {
            each.name: _name(each, codes)
            for below in folders.values()
            for each in _subfolders(below)
        }
        order = classes_of(names.values()) if classes is None else class_order(classes)

        ids: list[str] = []
        targets: list[int] = []
        excluded: Counter[str] = Counter()
        for below in _subfolders(folder):
            target = _target(below, names[below.name], order)
            for path in sorted(below.iterdir()):
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                    ids.append(path.relative_to(root).as_posix())
                    targets.append(target)
                else:
                    excluded[f"no image by its ending ({path.suffix or 'none'})"] += 1
        if not ids:
            raise ValueError(
                f"{folder} holds no image; expected are files like {folder / 'happiness' / '1.png'}"
            )
        super().__init__(classes=order, ids=ids, targets=torch.tensor(targets), excluded=excluded)
        self._images = ImageFiles(root, ids, size=size, in_memory=in_memory)

    def load_image(self, row: int) -> Tensor:
        """Image of a row of the whole folder, uint8 (3, H, W)."""
        return self._images[row]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _split_folders(root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        present = [root / name for name in names if (root / name).is_dir()]
        if len(present) > 1:
            raise ValueError(
                f"{' and '.join(map(str, present))} both stand for the split {split!r}; keep one"
            )
        if present:
            found[split] = present[0]
    return found


def _chosen(root: Path, folders: dict[str, Path], split: str | None) -> Path:
    if split is None:
        return root
    if split not in SPLITS:
        raise ValueError(f"split must be None or one of {', '.join(SPLITS)}, got {split!r}")
    if split not in folders:
        raise FileNotFoundError(
            f"{root} has no folder {' or '.join(SPLITS[split])} for the split {split!r}; with "
            "the classes directly below it, use split=None"
        )
    return folders[split]


def _name(folder: Path, codes: Mapping[int, str]) -> str:
    if not (codes and folder.name.isascii() and folder.name.isdigit()):
        return class_name(folder.name)
    if int(folder.name) not in codes:
        raise ValueError(
            f"{folder} is of no known class; numbers lie in {min(codes)} to {max(codes)}"
        )
    return codes[int(folder.name)]


def _target(folder: Path, name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        near = get_close_matches(name, classes, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{folder} is of no known class; the classes are {', '.join(classes)}{hint}"
        )
    return classes.index(name)
