"""Write files whole or not at all, and cells that a spreadsheet does not run."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from uuid import uuid4


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete.

    A replaced file keeps its mode.

    Raises:
        OSError: the file cannot be written, or it is write-protected. An existing file stays
            unchanged.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{path} exists and is not a file; choose another name")
    if target.exists() and not target.stat().st_mode & 0o222:
        raise PermissionError(f"{path} is write-protected; make it writable to replace it")
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    target.parent.mkdir(parents=True, exist_ok=True)
    # Another process may write the same file, so each has its own unfinished one.
    unfinished = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        with unfinished.open("xb") as file:
            if mode is not None:
                unfinished.chmod(mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:  # also on an interrupt
        unfinished.unlink(missing_ok=True)
        raise


def no_formula(text: str) -> str:
    """Return the text of a csv cell that a spreadsheet shows and does not run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
