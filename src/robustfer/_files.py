"""Write files whole or not at all, and make cells of a csv file safe."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

if sys.platform != "win32":
    import fcntl


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file by ``write``, so it appears under its name only when it is complete.

    ``~`` is the home folder. A replaced file keeps its mode. A symbolic link stays a link, and its
    target is replaced. A missing folder is made. Unfinished files of killed processes are removed
    first. If it fails, an OSError names the path, and an existing file does not change.
    """
    path = path.expanduser()
    # An error that the caller is handling is not the cause of an error here.
    handled = sys.exc_info()[1]
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
                # Windows renames only closed files.
                file.close()
            unfinished.replace(target)
    except BaseException as error:
        # An interrupt too must not leave a half-written file.
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
        cause = _system_error(error, handled)
        if cause is None or cause.errno is None:
            raise
        reason = f"cannot write the file: {cause.strerror}"
        raise OSError(cause.errno, reason, str(path)) from error


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path]) -> None:
    """Refuse to replace a file that is read too, or to write two files under one name.

    Args:
        outputs: option -> the file to write, or ``None``.
        inputs: the files and folders that are read. A name before a colon or an equals sign, as in
            ``rafdb:PATH``, is ignored.
    """
    read = [Path(name) for text in map(str, inputs) for name in _names(text)]
    earlier: dict[str, str] = {}
    for option, given in outputs.items():
        if given is None:
            continue
        path = given.expanduser()
        real = os.path.realpath(path)
        other = earlier.setdefault(real, option)
        if other != option:
            raise ValueError(f"{option} and {other} must be two files, got {given} for both")
        if not path.is_file():
            continue
        if any(one.is_file() and path.samefile(one) for one in read):
            raise ValueError(
                f"{option} must not be a file that the command reads, got {given}; choose another "
                "name"
            )
        if path.suffix == ".html":  # a page of an earlier audit, which no reader reads
            continue
        for one in read:
            if one.is_dir() and Path(real).is_relative_to(os.path.realpath(one)):
                raise ValueError(
                    f"{option} must not replace a file of the data, got {given}, which exists in "
                    f"{one}; choose a new name"
                )


def _names(text: str) -> Iterable[str]:
    """Yield the existing paths among a text and its ends after a colon or an equals sign."""
    spec = text.partition("=")[2]
    ends = [text, spec, text.partition(":")[2], spec.partition(":")[2]]
    for end in dict.fromkeys(map(os.path.expanduser, ends)):
        # Unlike Path.exists, this is not an error for a long text that is not a path.
        if end and os.path.lexists(end):
            yield end


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a csv file, whole or not at all, without text that a spreadsheet runs as a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for row in (header, *rows):
        writer.writerow([no_formula(cell) if isinstance(cell, str) else cell for cell in row])
    # File names are not always UTF-8.
    content = text.getvalue().encode(errors="surrogateescape")
    write_whole(path, lambda file: file.write(content))


def no_formula(text: str) -> str:
    """Return a cell of a csv file that a spreadsheet does not run as a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def without_quote(cell: str) -> str:
    """Return the text that :func:`no_formula` was given."""
    text = cell.removeprefix("'")
    return text if no_formula(text) == cell else cell


def _mode_of_file(path: Path) -> int | None:
    """Return the mode of the file to replace, or ``None`` if it does not exist."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder has this name", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "cannot replace a path that is not a regular file", str(path))
    if not mode & 0o222:
        raise PermissionError(
            errno.EACCES, "the file is write-protected; make it writable to replace it", str(path)
        )
    return stat.S_IMODE(mode)


def _new_file_beside(target: Path) -> IO[bytes]:
    """Open a new file beside the target, locked against removal by another save."""
    while True:
        file = target.with_name(f".{target.name}.{uuid4().hex}.tmp").open("x+b")
        if sys.platform != "win32":
            # The file system may have no locks.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        if Path(file.name).exists():
            return file
        # Another save removed it before it was locked.
        file.close()


def _remove_left_over(target: Path) -> None:
    """Remove the unfinished files of killed processes, which would fill the disk."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}\.tmp")
    for left in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
        # Another process may be writing it, or may have just finished.
        with suppress(OSError):
            if sys.platform == "win32":
                # Windows raises while the file is open.
                left.unlink()
            else:
                with left.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()


def _system_error(error: BaseException | None, handled: BaseException | None) -> OSError | None:
    """Return the OSError behind an error: torch hides a full disk behind its own error."""
    while error is not None and error is not handled:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None
