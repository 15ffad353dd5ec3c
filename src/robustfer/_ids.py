"""Names of samples: an ordered sequence of texts, and the bytes of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any


def check_ids(ids: Sequence[str], *, name: str = "ids", count: int | None = None) -> list[str]:
    """Return names of samples as a list, if they are an ordered sequence of ``count`` texts.

    A set has no order, and a single text is a sequence of letters: either would give samples
    other samples' labels.

    >>> check_ids({"a.png", "b.png"})
    Traceback (most recent call last):
    ...
    TypeError: ids must be a list of names, in the order of the samples, got set
    """
    ordered: Any = ids  # an array or a column of a table serves too
    unordered = isinstance(ordered, (str, bytes, Set, Mapping))
    if unordered or not (hasattr(ordered, "__len__") and hasattr(ordered, "__getitem__")):
        raise TypeError(
            f"{name} must be a list of names, in the order of the samples, got {type(ids).__name__}"
        )
    names = list(ordered)
    strange = next((row for row, one in enumerate(names) if not isinstance(one, str)), None)
    if strange is not None:
        raise TypeError(f"{name} must be texts, got {names[strange]!r} at position {strange}")
    if count is not None and len(names) != count:
        raise ValueError(f"{name} must name each of {count} samples, got {len(names)} names")
    return names


def name_bytes(name: str) -> bytes:
    r"""Return a name of a file as bytes: UTF-8, and what is not UTF-8 as on the disk.

    >>> name_bytes("é"), name_bytes("\udce9")
    (b'\xc3\xa9', b'\xe9')
    """
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {name!r} cannot be written as text: {error.reason}") from None
