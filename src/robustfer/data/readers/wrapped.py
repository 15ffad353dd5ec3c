"""Wrap a data set of torch, torchvision, Hugging Face, or your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm.auto import tqdm

from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT, class_order, classes_of
from robustfer.data.dataset import LabeledFaces
from robustfer.data.readers.images import decode
from robustfer.data.readers.label_names import is_number, name_classes


class WrappedFaces(LabeledFaces):
    """Wrap a data set of your own, of torchvision or of Hugging Face.

    Rows are tuples ``(image, label, ...)`` or dictionaries. An image is a Pillow image, a numpy
    array (H, W, 3) or (H, W), or a tensor (3, H, W), (1, H, W) or (H, W), of uint8 or floats in
    [0, 1]. A label is a class name or a number. A number is a position in ``classes``, or in the
    data set's own names: ``features[label].names`` or ``classes``. If these are expressions, they
    are put in robustfer's order.

    Args:
        dataset: has a length, and rows by number.
        classes: names of the classes in order, or a data set of
            :data:`robustfer.data.NUMBERINGS`. Default: the data set's own names.
        numbers: another meaning of numbers: a data set of :data:`robustfer.data.NUMBERINGS`. If
            the data set's own names are numbers, such as those of folders, it is their meaning.
        image: key of the image, if rows are dictionaries.
        label: key of the label, if rows are dictionaries.
        targets: all labels (N,), or probabilities (N, C). Default: they are read from every row, or
            from the column of a Hugging Face table.
        ids: a stable name for each row. Default: its number.

    Raises:
        TypeError: the data set has no rows by number, or a row or image has another type.
        ValueError: a label or an image has another form. The message names the row.

    >>> rows = [(np.full((48, 48), 9, dtype=np.uint8), "happy"), (Image.new("L", (48, 48)), "Sad")]
    >>> faces = WrappedFaces(rows)
    >>> [faces.classes[target] for target in faces.targets], faces[0]["image"].shape
    (['happiness', 'sadness'], torch.Size([3, 48, 48]))
    """

    def __init__(
        self,
        dataset: Any,
        *,
        classes: str | Sequence[str] | None = None,
        numbers: str | None = None,
        image: str = "image",
        label: str = "label",
        targets: Tensor | ArrayLike | Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        _check_readable(dataset)
        self._dataset, self._key = dataset, image
        given: Any = _labels_of(dataset, label) if targets is None else targets
        # Python's numbers, texts, or lists of numbers.
        labels = [one.tolist() if hasattr(one, "tolist") else one for one in given]
        if len(labels) != len(dataset):
            raise ValueError(
                f"targets must have a label for each of {len(dataset)} rows, got {len(labels)}"
            )
        own = _names_of(dataset, label) if classes is None else class_order(classes)
        if classes is None and own is not None and any(map(is_number, own)):
            # Folders named by numbers, whose meaning differs between data sets.
            meant, _ = name_classes(
                {name: f"the class {name!r} of dataset" for name in own},
                numbers=numbers,
                classes=None,
            )
            own, numbers = tuple(meant[name] for name in own), None
        if isinstance(labels[0], list):
            if own is None:
                raise ValueError("probabilities need names of their columns; pass classes=")
            order, found = own, labels
        else:
            if own is not None and numbers is None and not isinstance(labels[0], str):
                numbers = "classes"
            where: dict[str, str] = {}
            for row, one in enumerate(labels):
                where.setdefault(str(one), f"row {row}")
            names, order = name_classes(where, numbers=numbers, classes=own)
            if classes is None and set(order) <= set(EXPRESSIONS_WITH_CONTEMPT):
                order = classes_of(order)
            places = {text: order.index(name) for text, name in names.items()}
            found = [places[str(one)] for one in labels]
        super().__init__(
            classes=order,
            ids=[str(row) for row in range(len(labels))] if ids is None else ids,
            targets=found,
        )

    def load_image(self, row: int) -> Tensor:
        return _to_image(row, _part(row, self._dataset[row], 0, image=self._key))


def _check_readable(dataset: Any) -> None:
    parts = isinstance(dataset, Mapping)  # for example Hugging Face's DatasetDict
    rows = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if parts or not rows or isinstance(dataset, IterableDataset):
        hint = f"; choose one of {', '.join(map(str, dataset))}" if parts else ""
        raise TypeError(
            f"dataset must have a length and rows by number, got {type(dataset).__name__}{hint}"
        )
    if not len(dataset):
        raise ValueError("dataset must have at least one row, got none")


def _labels_of(dataset: Any, label: str) -> Any:
    if label in (getattr(dataset, "column_names", None) or ()):
        return dataset[label]
    rows = tqdm(range(len(dataset)), desc="reading labels", disable=None)
    return [_part(row, dataset[row], 1, label=label) for row in rows]


def _names_of(dataset: Any, label: str) -> tuple[str, ...] | None:
    features = getattr(dataset, "features", None)
    feature = features.get(label) if isinstance(features, Mapping) else None
    names = getattr(feature, "names", None) or getattr(dataset, "classes", None)
    return class_order(names) if isinstance(names, (list, tuple)) else None


def _part(number: int, row: Any, place: int, **key: str) -> Any:
    """Return the image or the label of a row. ``key`` is the option for its key."""
    ((option, name),) = key.items()
    if isinstance(row, Mapping):
        if name not in row:
            raise ValueError(
                f"row {number} has no {name!r}, but {', '.join(map(str, row))}; pass the key of "
                f"the {option} as {option}="
            )
        return row[name]
    if isinstance(row, (tuple, list)) and len(row) > 1:
        return row[place]
    raise TypeError(
        f"row {number} must be (image, label, ...) or a dictionary, got {type(row).__name__}"
    )


def _to_image(row: int, image: Any) -> Tensor:
    if isinstance(image, Image.Image):
        try:
            return decode(image)
        except ValueError as error:
            raise ValueError(f"row {row}: the image cannot be read: {error}") from error
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.array(image))
        image = image.permute(2, 0, 1) if image.ndim == 3 else image
    if not isinstance(image, Tensor):
        raise TypeError(
            f"row {row}: the image must be a Pillow image, a numpy array or a tensor, got "
            f"{type(image).__name__}"
        )
    image = image[None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"row {row}: the image must be a tensor (3, H, W), (1, H, W) or (H, W), or an array "
            f"(H, W, 3), got {tuple(image.shape)} with channels first"
        )
    if image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise ValueError(
                f"row {row}: the image must have floats in [0, 1], got {float(image.min()):.3g} to "
                f"{float(image.max()):.3g}; do not normalise it, the views do"
            )
        image = (image * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise ValueError(f"row {row}: the image must be uint8 or floats, got {image.dtype}")
    grey_or_rgb: Tensor = image.cpu()
    return grey_or_rgb.expand(3, -1, -1).clone()
