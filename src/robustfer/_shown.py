"""Safe and short texts of values and errors for messages: making one never raises."""

from __future__ import annotations

import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

# An error may take some lines to say what to do. A value only has to be recognized.
_LONGEST_ERROR, _LONGEST_VALUE = 500, 80


def value(given: object) -> str:
    """Return the repr of a value, cut if it is long.

    >>> value("a" * 1000)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... (1002 characters)"
    """
    # Python refuses to convert an integer of thousands of digits.
    what = "of thousands of digits" if isinstance(given, int) else "whose repr cannot be made"
    text = _text(repr, given, f"{type(given).__name__} {what}")
    cut = f"{text[:60]}... ({len(text)} characters)"
    return text if len(text) <= _LONGEST_VALUE else cut


def error(given: BaseException) -> str:
    """Return the type and the text of an error, cut if it is long."""
    text = _text(str, given, "its text cannot be made")
    cut = text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]} ..."
    return f"{type(given).__name__}: {cut}"


def line(text: str) -> str:
    """Return text for a console, with control characters and lone surrogates escaped."""
    return "".join(
        sign.encode("unicode_escape").decode() if is_control(sign) else sign for sign in text
    )


def command(words: Iterable[str], *, platform: str = sys.platform) -> str:
    """Return a command line to copy into the shell of the platform.

    >>> print(command(["cd", "my faces"], platform="linux"))
    cd 'my faces'
    >>> print(command(["cd", "my faces"], platform="win32"))
    cd "my faces"
    """
    if platform != "win32":
        return shlex.join(words)
    # Imported here, because no other command needs it.
    from subprocess import list2cmdline

    return list2cmdline(words)


def is_control(sign: str) -> bool:
    """Return whether a character is a control character or a lone surrogate, except a new line."""
    return sign != "\n" and unicodedata.category(sign) in ("Cc", "Cs")


def table(rows: Iterable[Sequence[str]], align: str) -> str:
    """Return rows as lines, with each column padded to one width.

    Args:
        rows: the cells of each line.
        align: "<" for a column aligned left, ">" for one aligned right.

    >>> print(table([("class", "faces"), ("sad", "7")], "<>"))
    class  faces
    sad        7
    """
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    formats = [f"{{:{side}{width}}}" for side, width in zip(align, widths, strict=False)]
    return "\n".join("  ".join(formats).format(*row).rstrip() for row in cells)


def near(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a misspelt name, or "" if no name is near."""
    found = get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _text(make: Callable[[object], str], given: object, otherwise: str) -> str:
    try:
        return make(given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{otherwise}: {type(error).__name__}>"
