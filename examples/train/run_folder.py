"""Manage the folder of a run, and keep two runs from sharing one.

===========================  ===================================================================
``config.yaml``              all options, without ``resume`` and ``stop_after``
``resume.pt``                the state for a resumed run
``run.json``                 settings, classes and the figures of each epoch
``logs/``                    these figures for TensorBoard, and as metrics.csv
``model.safetensors``        the trained classifier
``predictions.safetensors``  its logits for the evaluation set
``dynamics.safetensors``     a record of its predictions for the training set in each epoch
``final.safetensors``        its predictions for the training set at the end, and what it learnt
``ema/``                     the model with averaged weights, if the run has one
===========================  ===================================================================
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from examples.train.files import write_whole
from examples.train.options import GROUPS, OF_ONE_CALL, Refused, Settings, as_yaml, differences
from examples.train.predictions import PREDICTIONS
from robustfer.checkpoint import MODEL_FILE, load_resume, save_resume

try:
    import fcntl
except ImportError:  # Windows cannot lock the folder, so a second run there is not noticed
    fcntl = None  # type: ignore[assignment]

CONFIG, RESUME, RECORD = "config.yaml", "resume.pt", "run.json"
LOGS, AVERAGE = "logs", "ema"


@dataclass
class RunFolder:
    """A folder that only this process uses until it ends.

    Attributes:
        path: the folder.
        state: the state to resume from. ``None``: the run starts.
        lock: the locked file, if this process locked the folder.
    """

    path: Path
    state: dict[str, Any] | None
    lock: IO[str] | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Write the state for a resumed run."""
        save_resume(self.path / RESUME, state)

    def record(self, values: dict[str, Any]) -> None:
        """Write ``run.json``."""
        write_text(self.path / RECORD, json.dumps(values, indent=1) + "\n")

    def close(self) -> None:
        """Release the folder."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None


def path_of(settings: Settings) -> Path:
    """Return the folder of a run: ``--output``, or runs/DATA-METHOD-SEED-HASH."""
    return Path(settings.run.output or Path("runs", settings.name())).expanduser()


def check_folder(settings: Settings) -> None:
    """Refuse a folder that the run cannot use. Nothing is written.

    A run that ended before its first epoch left only its settings. They can change.

    Raises:
        Refused: the folder has a run with other settings, has files but no run, or has this run
            while ``--resume`` was not given.
    """
    path = path_of(settings)
    if path.exists() and not path.is_dir():
        raise Refused(f"{path} is a file; choose another folder with --output")
    if _is_not_begun(path):
        return
    config = path / CONFIG
    if not config.exists():
        raise Refused(
            f"{path} has files but no {CONFIG}, so it is not the folder of a run; choose another "
            "--output"
        )
    _check_same_settings(config, settings)
    _check_resumed(path, settings)


def open_folder(settings: Settings, own: type) -> RunFolder:
    """Take the folder of a run, or refuse it before anything is written.

    Raises:
        Refused: as for :func:`check_folder`, or the folder is in use.
    """
    check_folder(settings)
    path = path_of(settings)
    path.mkdir(parents=True, exist_ok=True)
    lock = _locked(path)
    try:
        check_folder(settings)  # another process can have written since
        resume = path / RESUME
        state = load_resume(resume) if resume.exists() else None
    except BaseException:
        if lock is not None:
            lock.close()
        raise
    for folder in (path, path / AVERAGE):
        for left_over in folder.glob(".*.tmp"):  # unfinished files of a killed run
            left_over.unlink()
    if _is_not_begun(path):
        write_text(path / CONFIG, as_yaml(settings, own, leave_out=OF_ONE_CALL))
    return RunFolder(path, state, lock)


def is_finished(settings: Settings) -> bool:
    """Return whether the folder has this run with all its epochs."""
    path = path_of(settings)
    if not all((path / name).is_file() for name in (CONFIG, MODEL_FILE, PREDICTIONS)):
        return False
    _check_same_settings(path / CONFIG, settings)
    return True


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    write_whole(path, text.encode())


def _check_resumed(path: Path, settings: Settings) -> None:
    if not (path / RESUME).exists():
        if settings.run.resume and is_finished(settings):
            return
        raise Refused(
            f"{path} holds results of this run, but no {RESUME} to continue from; choose another "
            "--seed or --output"
        )
    if settings.run.resume:
        return
    done, epochs = len(load_resume(path / RESUME)["history"]["epochs"]), settings.optimizer.epochs
    raise Refused(
        f"{path} holds this run already, {done} of {epochs} epochs done; continue with "
        "--resume, or choose another --seed or --output"
    )


def _check_same_settings(config: Path, settings: Settings) -> None:
    try:
        before = yaml.safe_load(config.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise Refused(f"{config} is damaged: {error}; choose another --output") from error
    now = settings.identity()
    known = {name: value for name, value in (before or {}).items() if name in now}
    other = differences(known, now)
    if other:
        raise Refused(
            f"{config.parent} has a run with other settings: {'; '.join(other)}; choose another "
            "--output, or remove the option"
        )


def _is_not_begun(path: Path) -> bool:
    """Return whether the folder has no files, or those of a run without a finished epoch."""
    if not path.is_dir() or all(map(_is_ours, path.iterdir())):
        return True
    results = (RESUME, RECORD, MODEL_FILE, PREDICTIONS)
    return _is_config(path / CONFIG) and not any((path / name).exists() for name in results)


def _is_config(path: Path) -> bool:
    """Return whether a file has the options that every run saves."""
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    shared = {f.name for group in GROUPS.values() for f in dataclasses.fields(group)}
    return isinstance(options, dict) and options.keys() >= shared - OF_ONE_CALL


def _is_ours(path: Path) -> bool:
    """Return whether a run that was killed at its start can have left this file."""
    return path.name == ".lock" or (path.name.startswith(".") and path.suffix == ".tmp")


def _locked(path: Path) -> IO[str] | None:
    """Lock the folder until this process ends, even if it is killed.

    Data-loader workers can outlive a killed process. They would inherit a lock of ``flock``, but do
    not inherit this record lock. Some file systems of clusters have no locks: a second run there is
    not noticed.
    """
    if fcntl is None:
        return None
    file = (path / ".lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        who = file.read().strip() or "another process"
        file.close()
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return None
        raise Refused(
            f"{path} is in use by {who}; wait for it, or choose another --seed or --output"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}")
    file.flush()
    return file
