"""Define robustfer's data sets: images with labels, class names and stable ids."""

from __future__ import annotations

import copy
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from robustfer._checks import (
    check_distribution,
    check_floating,
    check_int64,
    check_range,
    check_shapes,
    check_whole_number,
    check_within,
)
from robustfer._hashes import two_words
from robustfer._inputs import check_ids, to_labels, to_tensor
from robustfer.data.classes import class_order, renumber
from robustfer.data.concatenation import row_in_concatenation

if TYPE_CHECKING:
    from typing_extensions import Self


class LabeledFaces(Dataset[dict[str, Any]], ABC):
    """Images with labels. A sample is ``{"image", "target", "index", "id"}``.

    A sample also has ``"votes"`` if several people labelled each image. Labels are copied to the
    CPU from tensors, numpy arrays or lists. Methods that change something return a new data set.

    torch's ``Subset`` keeps ``index``, and its ``ConcatDataset`` makes it unique. Label noise needs
    :meth:`subset` and :class:`robustfer.data.JoinedFaces` instead.

    Attributes:
        classes: names of the classes. ``target`` is a position in it. Every reader uses the same
            order of expressions, unless :meth:`with_classes` changes it.
        ids: a stable name for each sample, independent of its row.
        targets: labels to train on, possibly wrong: (N) int64, or (N, C) float32 probabilities.
        true_targets: better labels for evaluation, (N) int64: those before synthetic noise, or
            those of a crowd. They are never part of a sample. ``None`` if unknown.
        votes: number of people who chose each class, (N, C) int64. ``None`` if unknown.
        excluded: images that the reader left out: reason -> number.

    Shape:
        ``image`` uint8 (3, H, W); ``target`` int64 scalar or float32 (C); ``index`` the row here;
        ``votes`` int64 (C).

    Raises:
        TypeError: names are not an ordered sequence of texts.
        ValueError: names occur twice, or labels do not fit the names.

    >>> class Photographs(LabeledFaces):
    ...     def load_image(self, row):
    ...         return torch.zeros(3, 48, 48, dtype=torch.uint8)
    >>> faces = Photographs(classes=["sad", "glad"], ids=["a.png", "b.png"], targets=[0, 1])
    >>> faces[1]["image"].shape, faces[1]["target"], faces[1]["index"], faces[1]["id"]
    (torch.Size([3, 48, 48]), tensor(1), 1, 'b.png')
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        ids: Sequence[str],
        targets: Tensor | ArrayLike,
        true_targets: Tensor | ArrayLike | None = None,
        votes: Tensor | ArrayLike | None = None,
        excluded: Mapping[str, int] | None = None,
    ) -> None:
        self.classes = tuple(check_ids(classes, name="classes", unique=True))
        self.excluded = dict(excluded or {})
        self._ids = _writable(check_ids(ids, unique=True))
        self._rows: Tensor | None = None
        # The ids of a subset, made at the first use.
        self._chosen_ids: Sequence[str] | None = None
        self._transform: Callable[[Tensor], Any] | None = None
        self.targets = self._checked("targets", targets, len(ids))
        self.true_targets: Tensor | None = None
        if true_targets is not None:
            self.true_targets = self._checked("true_targets", true_targets, len(ids))
        self.votes: Tensor | None = None
        if votes is not None:
            self.votes = to_tensor("votes", votes)
            check_shapes(votes=(self.votes, f"{len(ids)} {len(self.classes)}"))
            check_int64(votes=self.votes)
            check_within(0, math.inf, votes=self.votes)

    @abstractmethod
    def load_image(self, row: int) -> Tensor:
        """Load the image of a row of the whole data set (before any :meth:`subset`).

        Shape:
            uint8 (3, H, W)
        """

    def load_landmarks(self, row: int) -> Tensor:
        """Load the points of a row of the whole data set, for :meth:`landmarks`."""
        raise ValueError(f"{type(self).__name__} has no landmarks; use LandmarkFile")

    def landmarks(self, row: int) -> Tensor:
        """Return the points (x, y) of a row of the whole data set, in pixels of its image.

        (0, 0) is the middle of the upper left pixel. Unknown points are NaN.

        Shape:
            float32 (K, 2)

        Raises:
            ValueError: the data set has no landmarks, or has a transform, which cannot move them.
        """
        if self._transform is not None:
            raise ValueError(
                "landmarks are of the image before the transform, which cannot move them; use "
                "with_transform(None), or transform both with robustfer.augmentations"
            )
        return self.load_landmarks(row)

    @property
    def ids(self) -> Sequence[str]:
        """Stable names of the samples, in row order."""
        if self._rows is None:
            return self._ids
        if self._chosen_ids is None:
            self._chosen_ids = [self._ids[row] for row in self._rows.tolist()]
        return self._chosen_ids

    @property
    def all_ids(self) -> Sequence[str]:
        """Names of the samples of the whole data set, before any :meth:`subset`."""
        return self._ids

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        try:
            place = operator.index(index)
        except TypeError:
            raise TypeError(
                f"index must be a whole number, got {index!r}; use subset(rows) for several rows"
            ) from None
        if not -len(self) <= place < len(self):
            raise IndexError(f"index {place} is outside a data set of {len(self)} samples")
        place %= len(self)
        sample = {
            "image": self._image(place),
            "target": self.targets[place].clone(),
            "index": row_in_concatenation(place),
            "id": self._ids[self._row(place)],
        }
        if self.votes is not None:
            sample["votes"] = self.votes[place].clone()
        return sample

    def with_targets(self, targets: Tensor | ArrayLike) -> Self:
        """Return the same images with other labels to train on.

        ``true_targets`` stay. If they are unknown, the replaced labels become ``true_targets``.

        Raises:
            ValueError: there is not one label per sample, or a label is outside the classes.
        """
        other = copy.copy(self)
        other.targets = self._checked("targets", targets, len(self))
        if self.true_targets is None and self.targets.ndim == 1:
            other.true_targets = self.targets.clone()
        return other

    def with_classes(self, classes: str | Sequence[str]) -> Self:
        """Return the same images with the classes in another order.

        Args:
            classes: names in order, or a data set of :data:`robustfer.data.NUMBERINGS`. Classes
                without a sample can be added or left out.

        Raises:
            ValueError: the order is unknown, or a sample's class is not part of it.
        """
        other = copy.copy(self)
        other.classes = after = class_order(classes)
        other.targets = renumber(self.targets, source=self.classes, target=after)
        if self.true_targets is not None:
            other.true_targets = renumber(self.true_targets, source=self.classes, target=after)
        if self.votes is not None:
            # Votes for a class that is left out are dropped: other votes remain, unlike for labels.
            known = [name in after for name in class_order(self.classes)]
            kept = self.votes * torch.tensor(known, device=self.votes.device)
            other.votes = renumber(kept, source=self.classes, target=after)
        return other

    def with_transform(self, transform: Callable[[Tensor], Any] | None) -> Self:
        """Return the same data set with a function that is applied to each loaded image.

        Args:
            transform: takes an image, uint8 (3, H, W), and returns the ``image`` of the sample, for
                example one of ``torchvision.transforms.v2``. ``None``: no function. It cannot move
                landmarks, so :meth:`landmarks` is an error while it is set.

        Raises:
            TypeError: ``transform`` cannot be called.

        >>> from robustfer.data import DemoFaces
        >>> faces = DemoFaces(7).with_transform(lambda image: image[:, 8:40, 8:40])
        >>> faces[0]["image"].shape
        torch.Size([3, 32, 32])
        """
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be a function of an image, got {transform!r}")
        other = copy.copy(self)
        other._transform = transform
        return other

    def subset(self, index: Tensor | ArrayLike) -> Self:
        """Return a data set of the chosen rows, in this order. Its own rows start at 0.

        Raises:
            ValueError: there is no row, or a row occurs twice or is outside the data set.
        """
        rows = to_tensor("index", index)
        if rows.numel() and (rows.dtype == torch.bool or rows.is_floating_point()):
            raise ValueError(f"index must be row numbers, got {rows.dtype}")
        if rows.ndim != 1 or not len(rows) or len(set(rows.tolist())) != len(rows):
            raise ValueError(f"index must have at least one row, and each row once, got {rows}")
        check_within(0, len(self) - 1, index=rows)
        other = copy.copy(self)
        other._rows = rows if self._rows is None else self._rows[rows]
        other._chosen_ids = None
        other.targets = self.targets[rows]
        other.true_targets = None if self.true_targets is None else self.true_targets[rows]
        other.votes = None if self.votes is None else self.votes[rows]
        return other

    def split(self, share: float, *, seed: int) -> tuple[Self, Self]:
        """Split into two data sets: a share of each class, and the rest.

        The classes are those of ``targets``. The part of a sample depends on the seed and the ids
        of its class, not on the order of the rows.

        Args:
            share: share of the samples in the first part, between 0 and 1.
            seed: seed of the split, a whole number.

        Raises:
            ValueError: an argument is out of its range, or a part would be empty.

        >>> from robustfer.data import DemoFaces
        >>> train, held_out = DemoFaces(70).split(0.9, seed=0)
        >>> train.targets.bincount(), held_out.targets.bincount()
        (tensor([9, 9, 9, 9, 9, 9, 9]), tensor([1, 1, 1, 1, 1, 1, 1]))
        """
        check_range("share", share, 0.0, 1.0, open_low=True, open_high=True)
        seed = check_whole_number("seed", seed, None)
        labels = self.targets if self.targets.ndim == 1 else self.targets.argmax(1)
        quotas = [share * size for size in labels.bincount(minlength=len(self.classes)).tolist()]
        sizes = [math.floor(quota) for quota in quotas]
        # Sizes are rounded down, so the classes with the largest remainders get one more.
        by_remainder = sorted(range(len(sizes)), key=lambda label: sizes[label] - quotas[label])
        for label in by_remainder[: round(sum(quotas)) - sum(sizes)]:
            sizes[label] += 1
        if not 0 < sum(sizes) < len(self):
            raise ValueError(
                f"share must leave a sample in both parts, got {share} of {len(self)} samples"
            )
        words = two_words(b"split", seed, self.ids)
        drawn = torch.from_numpy(np.lexsort((words[:, 1], words[:, 0])))
        drawn_labels = labels[drawn]
        in_first = torch.zeros(len(self), dtype=torch.bool, device="cpu")
        for label, size in enumerate(sizes):
            in_first[drawn[drawn_labels == label][:size]] = True
        return self.subset(in_first.nonzero()[:, 0]), self.subset((~in_first).nonzero()[:, 0])

    def summary(self) -> str:
        """Describe in a few lines the images per class, the excluded ones, and wrong labels.

        Classes are counted by ``targets``. Probabilities are summed.
        """
        soft = self.targets.ndim == 2
        counts = self.targets.sum(0) if soft else self.targets.bincount(minlength=len(self.classes))
        named = zip(self.classes, counts.tolist(), strict=True)
        shown = ", ".join(f"{name} {count:.0f}" for name, count in named)
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.excluded.items())
        lines = [f"{len(self)} images: {shown}", f"left out: {left_out or 'nothing'}"]
        if self.true_targets is not None and not soft:
            wrong = int((self.targets != self.true_targets).sum())
            lines.append(f"{wrong} labels ({wrong / len(self):.1%}) differ from the true ones")
        return "\n".join(lines)

    def _row(self, place: int) -> int:
        """Return the row in the whole data set of a row here."""
        return place if self._rows is None else int(self._rows[place])

    def _image(self, place: int) -> Any:
        image = self.load_image(self._row(place))
        return image if self._transform is None else self._transform(image)

    def _checked(self, name: str, labels: Tensor | ArrayLike, samples: int) -> Tensor:
        targets = to_tensor(name, labels)
        if targets.ndim != 2:
            return to_labels(name, targets, num_classes=len(self.classes), count=samples)
        check_shapes(**{name: (targets, f"{samples} {len(self.classes)}")})
        check_floating(**{name: targets})
        check_distribution(**{name: targets})
        return targets.float()


def check_faces(dataset: LabeledFaces) -> None:
    """Require one of robustfer's data sets, not torch's ``Subset`` of one."""
    if not isinstance(dataset, LabeledFaces):
        raise TypeError(
            f"dataset must be one of robustfer's data sets, got {type(dataset).__name__}; use "
            "dataset.subset(rows) instead of torch's Subset, JoinedFaces instead of ConcatDataset, "
            "and WrappedFaces for any other data set"
        )


def check_one_class(dataset: LabeledFaces) -> None:
    """Require one of robustfer's data sets whose targets are classes, not probabilities."""
    check_faces(dataset)
    if dataset.targets.ndim != 1:
        raise ValueError(
            "dataset must have one class per sample as targets, got probabilities; use with_targets"
        )


def _writable(ids: list[str]) -> list[str]:
    if not ids:
        raise ValueError("ids must have at least one name, got none")
    try:
        "\n".join(ids).encode()
    except UnicodeEncodeError:
        name = next(name for name in ids if any("\ud800" <= letter <= "\udfff" for letter in name))
        raise ValueError(
            f"ids must be names that UTF-8 can encode, got {name!a}, which no list or report could "
            "contain. Rename the file; its name may come from an archive of another system"
        ) from None
    return ids
