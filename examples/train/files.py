"""Write files whole or not at all, and cells that a spreadsheet does not run."""

from __future__ import annotations

from pathlib import Path

from robustfer import _files
from robustfer._files import no_formula


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete.

    Raises:
        OSError: the file cannot be written, or it is write-protected. An existing file stays
            unchanged.
    """
    _files.write_whole(path, lambda file: file.write(content))


__all__ = ["no_formula", "write_whole"]
