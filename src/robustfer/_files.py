"""Files that are there whole or not at all, and cells of a csv file."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

if sys.platform != "win32":
    import fcntl


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a file that appears under its name only when it is complete.

    A file that is replaced keeps its mode, and a symbolic link stays a link: the file it leads to
    is replaced. What a killed process left of writing the same file is removed first. A missing
    folder is made. An OSError names the path, and leaves an existing file as it was.
    """
    handled = sys.exc_info()[1]  # of the caller: no cause of an error here
    mode = _mode_of_file(path)
    target = Path(os.path.realpath(path))
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_over(target)
        with _new_file_beside(target) as file:
            unfinished = Path(file.name)
            if mode not in (None, stat.S_IMODE(unfinished.stat().st_mode)):
                unfinished.chmod(mode)
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # Windows renames only closed files
            unfinished.replace(target)
    except BaseException as error:  # an interrupt too must leave nothing half-written behind
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
        cause = _system_error(error, handled)
        if cause is None or cause.errno is None:
            raise
        reason = f"cannot write the file: {cause.strerror}"
        raise OSError(cause.errno, reason, str(path)) from error


def no_formula(text: str) -> str:
    """Return a cell of a csv file so that a spreadsheet shows it, and does not run it."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _mode_of_file(path: Path) -> int | None:
    """The mode of a file that may be replaced; ``None`` where there is no file yet."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder has this name", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "cannot replace what is not a regular file", str(path))
    if not mode & 0o222:
        raise PermissionError(
            errno.EACCES, "the file is write-protected; make it writable to replace it", str(path)
        )
    return stat.S_IMODE(mode)


def _new_file_beside(target: Path) -> IO[bytes]:
    """Open a new file beside the target, locked so that no other save clears it away."""
    while True:
        file = target.with_name(f".{target.name}.{uuid4().hex}.tmp").open("x+b")
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if Path(file.name).exists():
            return file
        file.close()  # removed before it was locked


def _remove_left_over(target: Path) -> None:
    """Remove the unfinished files of killed processes, which would fill the disk unseen."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}\.tmp")
    for left in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
        with suppress(OSError):  # another process is writing it, or has just finished
            if sys.platform == "win32":
                left.unlink()  # refused while the file is open
            else:
                with left.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()


def _system_error(error: BaseException | None, handled: BaseException | None) -> OSError | None:
    """The system's error behind an error: torch hides a full disk behind one of its own."""
    while error is not None and error is not handled:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None
