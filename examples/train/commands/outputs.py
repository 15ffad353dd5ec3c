"""Name what a command writes by default, and refuse names that would destroy something."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from examples.train.options import Refused
from examples.train.predictions import PREDICTIONS
from examples.train.recording import DYNAMICS, FINAL
from examples.train.run_folder import AVERAGE, CONFIG, LOGS, RECORD, RESUME
from robustfer.checkpoint import MODEL_FILE

_OF_A_RUN = frozenset({CONFIG, RESUME, RECORD, MODEL_FILE, PREDICTIONS, DYNAMICS, FINAL})


def check_file(option: str, path: Path, run: Path, read: Iterable[str | Path] = ()) -> None:
    """Refuse to write a file over a folder, a file of a run, or a file that is read.

    Args:
        option: the option that names the file.
        path: the file.
        run: the folder of the run that the command reads.
        read: other files that it reads.

    Raises:
        Refused: the path is a folder, a file of a run, or a file that is read.
    """
    if path.is_dir():
        raise Refused(f"{option} {path} is a folder, expected a file; choose another name")
    real = Path(os.path.realpath(path))
    folder = real.parent.parent if real.parent.name == LOGS else real.parent
    own = real.name in _OF_A_RUN or real.parent.name == LOGS
    if own and (folder == run.resolve() or _is_run(folder)):
        raise Refused(f"{option} must not be a file of a run, got {path}; choose another name")
    files = [one for one in (Path(name).expanduser() for name in read) if one.is_file()]
    if path.is_file() and any(map(path.samefile, files)):
        raise Refused(
            f"{option} must not be a file that the command reads, got {path}; choose another name"
        )


def name_of(path: str | Path, *facts: object) -> str:
    """Return the last part of a path, with a hash of the whole path and of further facts.

    The hash tells apart folders of one name. An empty path has no last part.
    """
    real = str(Path(path).expanduser().resolve()) if str(path) else ""
    digest = blake2b(repr((real, *facts)).encode(errors="backslashreplace"), digest_size=4)
    # A file system has a limit for the length of a name.
    return "-".join(filter(None, [Path(real).name[:40], digest.hexdigest()]))


def count_of_images(count: int) -> str:
    """Return a number of images in words, such as ``1 image``."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def _is_run(folder: Path) -> bool:
    """Return whether this is the folder of a run, or that of its averaged weights."""
    return (folder / RECORD).is_file() or (
        folder.name == AVERAGE and (folder.parent / RECORD).is_file()
    )
