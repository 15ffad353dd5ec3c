"""Files that are there whole or not at all, and cells that a spreadsheet does not run."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete.

    Raises:
        OSError: it cannot be written; an existing file stays as it was.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{path} is not a file; give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:  # an interrupt too leaves nothing half-written behind
        unfinished.unlink(missing_ok=True)
        raise


def no_formula(text: str) -> str:
    """Return a cell of a csv file so that a spreadsheet shows it, and does not run it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
