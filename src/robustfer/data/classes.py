"""Define the expression classes: names, synonyms, and the numbers of each data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robustfer._checks import check_choice
from robustfer._inputs import check_ids

EXPRESSIONS: tuple[str, ...] = (
    "surprise",
    "fear",
    "disgust",
    "happiness",
    "sadness",
    "anger",
    "neutral",
)
"""The seven basic expressions, in the order of ``target`` everywhere in robustfer."""

EXPRESSIONS_WITH_CONTEMPT: tuple[str, ...] = (*EXPRESSIONS, "contempt")
"""The same with contempt, which some data sets have too."""


def expressions(num_classes: int) -> tuple[str, ...]:
    """Return the seven expressions, or eight with contempt."""
    if num_classes not in (7, 8) or not isinstance(num_classes, int):
        raise ValueError(f"num_classes must be 7, or 8 with contempt, got {num_classes}")
    return EXPRESSIONS if num_classes == 7 else EXPRESSIONS_WITH_CONTEMPT


_SYNONYMS = {
    "surprise": ("surprised", "astonishment", "astonished"),
    "fear": ("fearful", "afraid", "scared"),
    "disgust": ("disgusted",),
    "happiness": ("happy", "joy", "joyful"),
    "sadness": ("sad",),
    "anger": ("angry",),
    "neutral": ("neutrality",),
    "contempt": ("contemptuous",),
}
_CANONICAL = {word: name for name, words in _SYNONYMS.items() for word in (name, *words)}

#: All accepted words for expressions.
EXPRESSION_WORDS: tuple[str, ...] = tuple(_CANONICAL)


def _counted(first: int, names: str) -> Mapping[int, str]:
    return MappingProxyType(dict(enumerate(names.split(), start=first)))


NUMBERINGS: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "rafdb": _counted(1, "surprise fear disgust happiness sadness anger neutral"),
        "affectnet": _counted(0, "neutral happiness sadness surprise fear disgust anger contempt"),
        "ferplus": _counted(0, "neutral happiness surprise sadness anger disgust fear contempt"),
        "fer2013": _counted(0, "anger disgust fear happiness sadness surprise neutral"),
        "lanet": _counted(0, "anger disgust fear happiness sadness surprise neutral"),
    }
)
"""The class of each number in the files of a data set: data set -> number -> class.

``lanet`` is the order of LA-Net's public program for all its data sets.
"""


def class_name(name: str) -> str:
    """Return robustfer's name of an expression, and any other name unchanged."""
    return _CANONICAL.get(name.strip().lower(), name)


def class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return robustfer's names of expressions, to compare the classes of two sources.

    If two classes would get one name, all names stay unchanged.
    """
    found = tuple(map(class_name, names))
    return found if len(set(found)) == len(found) else tuple(names)


def classes_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the ordered classes that contain these names.

    If all are expressions, they are robustfer's seven, or eight with contempt. Otherwise they are
    the sorted names.
    """
    found = set(map(class_name, names))
    for known in (EXPRESSIONS, EXPRESSIONS_WITH_CONTEMPT):
        if found <= set(known):
            return known
    return tuple(sorted(found))


def class_order(classes: str | Sequence[str]) -> tuple[str, ...]:
    """Return ordered class names, with robustfer's names for expressions.

    Args:
        classes: a key of :data:`NUMBERINGS`, or names. Names of other classes stay unchanged.

    Raises:
        TypeError: ``classes`` are not names, or have no order.
        ValueError: the data set is unknown, there are fewer than two classes, or one occurs twice.

    >>> class_order("fer2013")
    ('anger', 'disgust', 'fear', 'happiness', 'sadness', 'surprise', 'neutral')
    >>> class_order(["Sad", "happy", "bored"])
    ('sadness', 'happiness', 'bored')
    """
    if isinstance(classes, str):
        return tuple(NUMBERINGS[check_choice("classes", classes, tuple(NUMBERINGS))].values())
    names = tuple(map(class_name, check_ids(classes, name="classes")))
    if len(names) < 2:
        raise ValueError(f"classes must have at least two names, got {list(classes)}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"classes must name each class once, got {twice!r} twice in {classes}")
    return names


def renumber(
    targets: Tensor, *, source: str | Sequence[str], target: str | Sequence[str]
) -> Tensor:
    """Convert labels (N), or probabilities (N, C), to another order of the classes.

    Both orders are names or keys of :data:`NUMBERINGS`. ``target`` must contain every class that
    occurs, and can contain others.

    >>> renumber(torch.tensor([0, 3]), source="fer2013", target=EXPRESSIONS)
    tensor([5, 3])
    """
    before, after = class_order(source), class_order(target)
    where = [after.index(name) if name in after else -1 for name in before]
    places = torch.tensor(where, device=targets.device)
    soft = targets.ndim == 2
    occurs = targets.sum(0) if soft else targets.bincount(minlength=len(before))
    if len(occurs) != len(before):
        raise ValueError(f"targets must be labels of {len(before)} classes, got {len(occurs)}")
    lost = [name for name, n, place in zip(before, occurs, places, strict=True) if n and place < 0]
    if lost:
        raise ValueError(
            f"labels {', '.join(lost)} are not among the new classes {list(after)}; add them"
        )
    if not soft:
        return places[targets]
    kept = places >= 0
    moved = targets.new_zeros(len(targets), len(after))
    moved[:, places[kept]] = targets[:, kept]
    return moved
