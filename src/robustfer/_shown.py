"""Safe and short texts of values and errors from plugins: this never raises."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from difflib import get_close_matches

#: Length at which the text of a value or an error is cut.
LIMIT = 500


def value(given: object) -> str:
    """Return the repr of a value, cut if it is long."""
    return _text(repr, given, f"a {type(given).__name__} whose repr cannot be made")


def error(given: BaseException) -> str:
    """Return the type and the text of an error."""
    return f"{type(given).__name__}: {_text(str, given, 'its text cannot be made')}"


def line(text: str) -> str:
    """Return text for a console, with control characters and lone surrogates escaped."""
    return "".join(
        sign.encode("unicode_escape").decode() if is_control(sign) else sign for sign in text
    )


def is_control(sign: str) -> bool:
    """Return whether a character is a control character or a lone surrogate, except a new line."""
    return sign != "\n" and unicodedata.category(sign) in ("Cc", "Cs")


def near(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" for a misspelt name, or "" if no name is near."""
    found = get_close_matches(name, list(names), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _text(make: Callable[[object], str], given: object, otherwise: str) -> str:
    try:
        text = make(given)
        return text if len(text) <= LIMIT else f"{text[:LIMIT]} ..."
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{otherwise}: {type(error).__name__}>"
