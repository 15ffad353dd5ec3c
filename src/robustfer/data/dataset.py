"""What every data set of robustfer is: images with labels, class names and stable ids."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robustfer._checks import check_class_index, check_distribution

if TYPE_CHECKING:
    from typing_extensions import Self


class LabeledFaces(Dataset[dict[str, Any]], ABC):
    """Images with labels. A sample is ``{"image", "target", "index"}``.

    Attributes:
        classes: names of the classes; ``target`` is a position in it.
        ids: a stable name for each sample, whatever its row.
        targets: what training sees: (N,) int64, or (N, C) float32 probabilities. Possibly wrong.
        true_targets: the labels known to be better ((N,) int64), for evaluation alone and never
            part of a sample: the labels before synthetic noise, or a crowd's; ``None`` if unknown.

    Shape:
        ``image`` uint8 (3, H, W); ``target`` int64 scalar or float32 (C,); ``index`` the row here.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        ids: Sequence[str],
        targets: Tensor,
        true_targets: Tensor | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self._ids = ids
        self._rows: Tensor | None = None
        self.targets = self._checked("targets", targets, len(ids))
        self.true_targets: Tensor | None = None
        if true_targets is not None:
            self.true_targets = self._checked("true_targets", true_targets, len(ids))

    @abstractmethod
    def load_image(self, row: int) -> Tensor:
        """Image of a row of the whole data set (before any :meth:`subset`), uint8 (3, H, W)."""

    @property
    def ids(self) -> Sequence[str]:
        """Stable names of the samples, in row order."""
        if self._rows is None:
            return self._ids
        return [self._ids[row] for row in self._rows.tolist()]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside a data set of {len(self)} samples")
        index %= len(self)
        row = index if self._rows is None else int(self._rows[index])
        return {"image": self.load_image(row), "target": self.targets[index], "index": index}

    def with_targets(self, targets: Tensor) -> Self:
        """Return the same images with other labels to train on; ``true_targets`` stay.

        Where no better labels were known, those replaced become ``true_targets``.

        Raises:
            ValueError: not one label a sample, or a label outside the classes.
        """
        other = copy.copy(self)
        other.targets = self._checked("targets", targets, len(self))
        if self.true_targets is None and self.targets.ndim == 1:
            other.true_targets = self.targets
        return other

    def subset(self, index: Tensor | Sequence[int]) -> Self:
        """Return the chosen rows, in the order given, as a data set with rows of its own from 0.

        Raises:
            ValueError: no row, a row twice or outside the data set.
        """
        rows = torch.as_tensor(index, dtype=torch.int64)
        if rows.ndim != 1 or not len(rows) or len(rows.unique()) != len(rows):
            raise ValueError(f"index must hold at least one row and none twice, got {rows}")
        if int(rows.min()) < 0 or int(rows.max()) >= len(self):
            raise ValueError(
                f"index must hold rows from 0 to {len(self) - 1}, "
                f"got {int(rows.min())} to {int(rows.max())}"
            )
        other = copy.copy(self)
        other._rows = rows if self._rows is None else self._rows[rows]
        other.targets = self.targets[rows]
        other.true_targets = None if self.true_targets is None else self.true_targets[rows]
        return other

    def _checked(self, name: str, targets: Tensor, samples: int) -> Tensor:
        if targets.ndim == 2:
            if tuple(targets.shape) != (samples, len(self.classes)):
                raise ValueError(
                    f"{name} must have shape ({samples}, {len(self.classes)}), "
                    f"got {tuple(targets.shape)}"
                )
            check_distribution(**{name: targets})
            return targets.float()
        if tuple(targets.shape) != (samples,) or targets.dtype != torch.int64:
            raise ValueError(
                f"{name} must be int64 of shape ({samples}), got {targets.dtype} of shape "
                f"{tuple(targets.shape)}"
            )
        check_class_index(len(self.classes), **{name: targets})
        return targets
