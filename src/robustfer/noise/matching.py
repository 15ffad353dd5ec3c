"""Match a list of labels with a data set: names with rows, numbers with classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from robustfer.data.classes import NUMBERINGS, class_names, class_order
from robustfer.data.readers.label_lists import plain_name

_SEVERAL = -2
_OWN = "the data set"
_ALPHABET = "the alphabet"


def list_name(name: str) -> str:
    """Return a name for comparison: forward slashes, and no suffix of aligned copies."""
    return plain_name(name.replace("\\", "/"))


def match_names(path: Path, names: Sequence[str], ids: Sequence[str]) -> Tensor:
    """Return the row of each name among ``ids``, or -1.

    Two names match if they are equal, or one is the end of the other's path: ``train/1.jpg``
    matches ``/faces/train/1.jpg`` and ``1.jpg``, but not ``test/1.jpg``. A name that matches
    several samples is an error, and so are two names of one sample. ``path`` is for errors.
    """
    whole: dict[str, int] = {}
    ends: dict[str, int] = {}
    for row, name in enumerate(ids):
        end = list_name(name)
        if whole.setdefault(end, row) != row:
            raise ValueError(
                f"ids {ids[whole[end]]!r} and {name!r} are one name in a list of labels; rename one"
            )
        while "/" in end:
            end = end.partition("/")[2]
            ends[end] = _SEVERAL if end in ends else row
    rows = [_find(list_name(name), whole, ends) for name in names]
    if _SEVERAL in rows:
        name = names[rows.index(_SEVERAL)]
        raise ValueError(
            f"{path}: {name!r} fits several samples by the end of its name; write names with "
            f"folders, as in the ids of samples, like {ids[0]!r}"
        )
    twice = [row for row, count in Counter(rows).items() if row >= 0 and count > 1]
    if twice:
        both = [name for name, row in zip(names, rows, strict=True) if row == twice[0]]
        raise ValueError(f"{path} has several labels for {ids[twice[0]]!r}: {both}; keep one")
    return torch.tensor(rows, device="cpu")


def _find(name: str, whole: dict[str, int], ends: dict[str, int]) -> int:
    if name in whole:
        return whole[name]
    longer = ends.get(name, -1)
    while "/" in name:
        name = name.partition("/")[2]
        if name in whole:
            return whole[name] if longer == -1 else _SEVERAL
    return longer


class FittingOrder(NamedTuple):
    """An order of the classes in which more labels of a list agree with the clean ones."""

    order: str
    base: int
    differ: float

    def hint(self) -> str:
        """Return a sentence on how many labels would differ in that order."""
        return f"In that of {self.order}, counted from {self.base}, {self.differ:.1%} differ."

    def options(self) -> str:
        """Return the options to read the list in that order."""
        order = {_OWN: "dataset.classes", _ALPHABET: "sorted(dataset.classes)"}
        return f"classes={order.get(self.order, repr(self.order))}, base={self.base}"


def fitting_order(
    numbers: Tensor,
    true: Tensor,
    classes: Sequence[str],
    *,
    read: tuple[Sequence[str], int] | None = None,
) -> FittingOrder | None:
    """Return the known order of classes in which clearly more numbers of a list fit, if any.

    With much noise few labels agree in the right order, and by chance as many in a wrong one.
    Another order is therefore only returned if most labels agree in it, or more than by chance. Its
    numbers must also be the most frequent ones in most classes whose number changes.

    Args:
        numbers: numbers of the list, int64 (N).
        true: the true class of each, a position in ``classes``, int64 (N).
        classes: names of the classes.
        read: the order and the base that the list was read with. ``None``: none fits.
    """
    # torchvision numbers folders like this.
    alphabet = class_names(sorted(classes))
    classes = class_names(classes)
    orders = {_OWN: classes} | {name: class_order(name) for name in NUMBERINGS}
    orders[_ALPHABET] = alphabet
    least, greatest = int(numbers.min()), int(numbers.max())
    if greatest > max(map(len, orders.values())):
        return None
    given = torch.zeros(len(classes), greatest + 1, dtype=torch.int64, device=numbers.device)
    given.index_put_((true, numbers), torch.ones_like(true), accumulate=True)
    there = given.sum(dim=1) > 0
    given = given[there]
    names = [name for name, occurs in zip(classes, there.tolist(), strict=True) if occurs]
    order, base = read or ((), 0)
    own = numbers_of(names, class_names(order), base)
    best, most = None, 0
    for name, order in orders.items():
        for base in (0, 1):
            if not set(names) <= set(order) or not base <= least <= greatest < base + len(order):
                continue
            other = numbers_of(names, order, base)
            agreeing = int(_agreeing(given, other).sum())
            if agreeing > most and _fits_better(given, own, other, num_classes=len(classes)):
                best, most = FittingOrder(name, base, 1 - agreeing / len(true)), agreeing
    return best


def _fits_better(given: Tensor, own: Tensor, other: Tensor, *, num_classes: int) -> bool:
    """Return whether the numbers of another order fit the given labels clearly better."""
    told = own != other
    if not bool(told.any()):
        return False
    mostly = 2 * _agreeing(given, other).sum() > given.sum() > 2 * _agreeing(given, own).sum()
    given = given[told]
    fitting, samples = _agreeing(given, other[told]), int(given.sum())
    agree, most = int(_agreeing(given, own[told]).sum()), int(fitting.sum())
    # If the present order is right, random wrong labels agree with another order this often.
    chance = max(agree, (samples - agree) / max(1, num_classes - 1))
    commonest = float((fitting == given.amax(dim=1)).double().mean())
    clearly = bool(mostly) or most - chance > 2 * (most + chance) ** 0.5
    return clearly and commonest > 0.5


def numbers_of(names: Sequence[str], order: Sequence[str], base: int = 0) -> Tensor:
    """Return the number of each class in an order, or -1."""
    places = [base + order.index(name) if name in order else -1 for name in names]
    return torch.tensor(places, device="cpu")


def _agreeing(given: Tensor, numbers: Tensor) -> Tensor:
    """Return how many samples of each class were given its number."""
    places = numbers.clamp(0, given.shape[1] - 1)
    return given.gather(1, places[:, None])[:, 0] * (places == numbers)
