"""Find the class of each label in a table, or of each class folder."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from robustfer import _shown
from robustfer._checks import check_choice
from robustfer._tables import parse_whole_number
from robustfer.data.classes import (
    EXPRESSION_WORDS,
    EXPRESSIONS_WITH_CONTEMPT,
    NUMBERINGS,
    class_name,
    class_order,
    classes_of,
)

# Words for a missing value.
_MISSING = ("nan", "none", "null", "na", "n/a", "<na>", "nat")
# Words, without what is around and between them, for an image without a clear expression.
_UNCLEAR = frozenset({"uncertain", "unsure", "unknown", "nf", "noface", "nonface", "notaface"})
_WORDS = re.compile(r"[^\W\d_]+")
_NOT_A_LETTER = re.compile(r"[\W\d_]+")
# Numbers and signs around a word: "0_angry", "happy (2)".
_AROUND = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]*")


def name_classes(
    labels: Mapping[str, str],
    *,
    numbers: str | None,
    classes: str | Sequence[str] | None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the class of each label, and the ordered classes.

    Without ``classes`` the order is that of :func:`classes_of`. Labels that probably are mistakes
    are then an error: one letter away from an expression, another spelling of a label, a number, a
    word for a missing value, or beside expressions a word for an unclear image ("non-face").

    Args:
        labels: label -> its place, for messages.
        numbers: the meaning of numbers: a key of :data:`NUMBERINGS`, or ``"classes"`` for positions
            in ``classes``.
        classes: names of the classes, or a key of :data:`NUMBERINGS`.
    """
    order = None if classes is None else class_order(classes)
    codes: Mapping[int, str] | None = None
    if numbers == "classes":
        if order is None:
            raise ValueError("numbers='classes' needs names; pass them as classes=")
        codes = dict(enumerate(order))
    elif numbers is not None:
        codes = NUMBERINGS[check_choice("numbers", numbers, (*NUMBERINGS, "classes"))]
    names = {label: _name(label, where, codes, order) for label, where in labels.items()}
    if order is None:
        _check_new_classes(labels, names)
        order = classes_of(names.values())
    return names, order


def _name(
    label: str,
    where: str,
    codes: Mapping[int, str] | None,
    order: Sequence[str] | None,
) -> str:
    if not label:
        raise ValueError(f"{where}: label is empty")
    if order is not None and label in order and (codes is None or not is_number(label)):
        return label
    if label.lower() in _MISSING:
        raise ValueError(
            f"{where}: label {label!r} stands for a missing value; remove the image, or pass the "
            "names of all classes as classes="
        )
    name = class_name(label)
    if is_number(label):
        if codes is None:
            raise ValueError(
                f"{where}: label is the number {_shown.value(label)}, whose meaning differs "
                f"between data sets; pass numbers=, one of {', '.join(NUMBERINGS)} or classes. If "
                "numbers are the names, pass all of them as classes="
            )
        number = parse_whole_number(label)
        if number is None or number not in codes:
            raise ValueError(
                f"{where}: label must be a whole number from {min(codes)} to {max(codes)}, "
                f"got {_shown.value(label)}"
            )
        name = codes[number]
    if order is not None and name not in order:
        raise ValueError(
            f"{where}: label must be one of {', '.join(order)}, got {_shown.value(label)}"
            + _shown.near(name, order)
        )
    return name


def _check_new_classes(labels: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Refuse classes that probably are misspelt names of other classes."""
    own = [label for label, name in names.items() if name not in EXPRESSIONS_WITH_CONTEMPT]
    # "bear" beside "dog" is not a misspelt "fear", so data of other things are not checked.
    beside_expressions = len(own) < len(names)
    if beside_expressions or all(map(_one_letter_from, own)):
        for label in own:
            near = _one_letter_from(label) or _word_in(label)
            if near is not None:
                raise ValueError(
                    f"{labels[label]}: label {label!r} is not an expression; did you mean "
                    f"{near!r}? If it is another class, pass the names of all classes as classes="
                )
            if _NOT_A_LETTER.sub("", _loose(label)) in _UNCLEAR:
                raise ValueError(
                    f"{labels[label]}: label {label!r} is not an expression; leave these images "
                    "out. If it is a class, pass the names of all classes as classes="
                )
    spellings: dict[str, str] = {}
    for label in own:
        other = spellings.setdefault(_loose(label), label)
        if other != label:
            raise ValueError(
                f"{labels[label]}: label {label!r} is another spelling of {other!r}; use one "
                "spelling, or pass the names of all classes as classes="
            )


def is_number(label: str) -> bool:
    """Return whether a label is a number, whose meaning differs between data sets."""
    try:
        float(label)
    except ValueError:
        return _DECIMAL_COMMA.fullmatch(label) is not None
    return True


def _one_letter_from(label: str) -> str | None:
    """Return the word for an expression that is at most one letter away, if any."""
    written = _AROUND.sub("", _loose(label))
    for word in EXPRESSION_WORDS:
        same = min(len(written), len(word))
        start = next((i for i in range(same) if written[i] != word[i]), same)
        left, wanted = written[start:], word[start:]
        swapped = left[1::-1] + left[2:]
        if wanted in (left[1:], swapped) or left == wanted[1:] or left[1:] == wanted[1:]:
            return word
    return None


def _word_in(label: str) -> str | None:
    """Return the word for an expression in a label, such as "happy - Copy", if any."""
    return next((word for word in _WORDS.findall(_loose(label)) if word in EXPRESSION_WORDS), None)


def _loose(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())
