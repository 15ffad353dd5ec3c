"""Find plugins among the installed packages, some of which may be damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distribution, distributions

from robustfer import _shown

GROUP = "robustfer"


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A package whose entry points cannot be read."""

    name: str
    folder: str
    error: Exception

    def __str__(self) -> str:
        return (
            f"package {self.name!r} in {self.folder} has a file entry_points.txt that cannot be "
            f"read ({_shown.error(self.error)}); reinstall or remove the package"
        )


def find() -> Iterator[EntryPoint | Unreadable]:
    """Yield the entry points of the group, and every package that cannot be read.

    ``importlib.metadata.entry_points`` would raise if it cannot read one package.
    """
    seen = set()
    for package in distributions():
        found: list[EntryPoint | Unreadable] = []
        try:
            found += package.entry_points.select(group=GROUP)
            if not found:
                _check_encoding(package)
        except Exception as error:
            folder = str(package.locate_file(""))
            found = [Unreadable(name=_name(package) or "?", folder=folder, error=error)]
        if not found:
            continue
        name = _name(package)
        if name is not None:
            key = re.sub("[-_.]+", "-", name).lower()
            if key in seen or not _goes_first(package, name):
                continue
            seen.add(key)
        yield from found


def _check_encoding(package: Distribution) -> None:
    """Require UTF-8: in other encodings Python silently finds no section."""
    text = package.read_text("entry_points.txt") or ""
    if text.startswith("\ufeff") or "\0" in text:
        raise ValueError("it is not UTF-8 without a byte order mark")


def _name(package: Distribution) -> str | None:
    try:
        return package.metadata["Name"]
    except Exception:
        # A half-removed package has no metadata.
        return None


def _goes_first(package: Distribution, name: str) -> bool:
    """Return whether Python imports this package, not another of the same name on the path."""
    try:
        return distribution(name).locate_file("") == package.locate_file("")
    except Exception:
        # The folder has another name than the package.
        return True
