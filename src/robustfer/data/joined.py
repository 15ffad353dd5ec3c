"""Join several data sets."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from robustfer.data.dataset import LabeledFaces, check_faces


class JoinedFaces(LabeledFaces):
    """Join data sets into one, so that label noise and a LabelStore cover all of them.

    Rows are numbered from the first part to the last. ``true_targets`` and ``votes`` are kept if
    every part has them. A part keeps its transform and its landmarks.

    Args:
        parts: the data sets, or name -> data set. Names and a slash are put before ``ids``.

    Raises:
        TypeError: a part is not one of robustfer's data sets.
        ValueError: there is no part, two parts share an id, or parts differ in classes, kind of
            labels or size of images.

    >>> from robustfer.data import DemoFaces
    >>> joined = JoinedFaces({"a": DemoFaces(7), "b": DemoFaces(14).subset([3])})
    >>> len(joined), joined[7]["index"], joined[7]["id"]
    (8, 7, 'b/demo-train-0-000003')
    """

    def __init__(self, parts: Sequence[LabeledFaces] | Mapping[str, LabeledFaces]) -> None:
        named = isinstance(parts, Mapping)
        members = parts if isinstance(parts, Mapping) else dict(enumerate(parts))
        if not members:
            raise ValueError("parts must be at least one data set, got none")
        for part in members.values():
            check_faces(part)
        _check_alike(members)
        ids = [
            f"{name}/{one}" if named else one for name, part in members.items() for one in part.ids
        ]
        twice = [name for name, count in Counter(ids).items() if count > 1]
        if twice:
            raise ValueError(
                f"parts must not share ids, got {twice[0]!r} (and {len(twice) - 1} more) twice; "
                "name the parts, {'a': ..., 'b': ...}, and the names become part of the ids"
            )
        self._parts = list(members.values())
        self._ends = list(accumulate(map(len, self._parts)))
        super().__init__(
            classes=self._parts[0].classes,
            ids=ids,
            targets=torch.cat([part.targets for part in self._parts]),
            true_targets=_joined([part.true_targets for part in self._parts]),
            votes=_joined([part.votes for part in self._parts]),
            excluded=sum((Counter(part.excluded) for part in self._parts), Counter()),
        )

    def load_image(self, row: int) -> Tensor:
        part, place = self._part(row)
        image: Tensor = part._image(place)
        return image

    def load_landmarks(self, row: int) -> Tensor:
        part, place = self._part(row)
        return part.landmarks(part._row(place))

    def _part(self, row: int) -> tuple[LabeledFaces, int]:
        number = bisect_right(self._ends, row)
        return self._parts[number], row - (self._ends[number - 1] if number else 0)


def _joined(labels: Sequence[Tensor | None]) -> Tensor | None:
    known = [one for one in labels if one is not None]
    return torch.cat(known) if len(known) == len(labels) else None


def _check_alike(parts: Mapping[str, LabeledFaces] | Mapping[int, LabeledFaces]) -> None:
    alike: dict[str, tuple[Callable[[LabeledFaces], object], str]] = {
        "classes": (lambda part: part.classes, "give them one order by with_classes"),
        "kind of labels": (
            lambda part: "classes" if part.targets.ndim == 1 else "probabilities",
            "make all labels classes, or all probabilities, by with_targets",
        ),
        "shape of images": (
            lambda part: getattr(part._image(0), "shape", None),
            "resize all to one size by the readers' size=",
        ),
    }
    (first_name, first), *others = parts.items()
    for what, (of, cure) in alike.items():
        for name, part in others:
            if of(part) != of(first):
                raise ValueError(
                    f"parts must have the same {what}, got {of(first)} in part {first_name!r} and "
                    f"{of(part)} in part {name!r}; {cure}"
                )
