"""Read finished runs, and group those that differ only in their seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from examples.train.earlier import cost, earlier_cost, with_names
from examples.train.options import Refused
from examples.train.predictions import Predictions, read_predictions
from examples.train.trained import check_finished, read_record
from robustfer.metrics import History

# Seeds beside that of the run. Their default is the seed of the run.
_SEEDS = ("noise_seed", "verified_seed")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        record: its ``run.json``.
        predictions: its predictions for the evaluation set after the last epoch.
    """

    path: Path
    record: dict[str, Any]
    predictions: Predictions

    @property
    def settings(self) -> dict[str, Any]:
        """The options that decided the result, without the seed."""
        return {name: value for name, value in with_names(self.record).items() if name != "seed"}

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.record["settings"]["seed"])

    @property
    def history(self) -> History:
        """The figures of each epoch."""
        history = History()
        history.load_state_dict(self.record)
        return history

    @property
    def before(self) -> dict[str, int]:
        """Steps and passes of the runs whose predictions this one takes."""
        return earlier_cost(self.record)

    @property
    def steps(self) -> int:
        """The number of steps of the optimizer, with those of the runs before."""
        return self.before["steps"] + cost(self.record)["steps"]

    @property
    def passes(self) -> int:
        """The number of images that passed through the network in training, as the steps."""
        return self.before["passes"] + cost(self.record)["passes"]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        name: the method, and the options that differ from other groups of the method.
        runs: the runs, sorted by seed.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The first run, for what all of them share."""
        return self.runs[0]

    @property
    def method(self) -> str:
        """The name of the method."""
        return str(self.first.settings["method"])

    def last(self, name: str) -> list[float]:
        """Return a figure of the last epoch of each run."""
        return [run.history.last[name] for run in self.runs]

    def best(self, name: str) -> list[float]:
        """Return a figure of each run's epoch with the best accuracy."""
        return [run.history.best("accuracy")[name] for run in self.runs]

    def mean(self) -> float:
        """Return the mean accuracy of the last epoch over the runs."""
        return statistics.fmean(self.last("accuracy"))


def read_runs(folders: Sequence[str]) -> list[Run]:
    """Read finished runs. A folder of several seeds stands for all its runs.

    Raises:
        Refused: a run is not finished or given twice, or the evaluation sets differ.
    """
    paths = [found for folder in folders for found in _runs_of(Path(folder).expanduser())]
    twice = [path for n, path in enumerate(paths) if path.resolve() in
             [other.resolve() for other in paths[:n]]]  # fmt: skip
    if twice:
        raise Refused(f"{twice[0]} is given twice; name each run once")
    runs = []
    for path in paths:
        check_finished(path)
        runs.append(Run(path, read_record(path), read_predictions(path)))
    first = runs[0]
    for run in runs[1:]:
        same = [one.record.get("evaluated_on") for one in (run, first)]
        if run.record["classes"] != first.record["classes"] or same[0] != same[1]:
            raise Refused(
                f"{run.path} was evaluated on other images or classes than {first.path}; choose "
                "runs with the same --data, --evaluate-on and --reader.classes"
            )
    return runs


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group the runs that differ only in their seed, in the order they were given.

    Raises:
        Refused: two runs have the same settings and seed.
    """
    groups = [
        sorted(found, key=lambda run: run.seed)
        for alike in _grouped(runs, without=_SEEDS)
        for found in _grouped([_following(run, alike) for run in alike])
    ]
    for found in groups:
        for one, other in pairwise(found):
            if one.seed == other.seed:
                raise Refused(f"{one.path} and {other.path} are the same run; leave one out")
    names = _names([found[0].settings for found in groups])
    return [Group(name, tuple(found)) for name, found in zip(names, groups, strict=True)]


def _grouped(runs: Sequence[Run], without: tuple[str, ...] = ()) -> list[list[Run]]:
    """Group the runs by their settings, in the order they were given."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        settings = {name: value for name, value in run.settings.items() if name not in without}
        grouped.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    return list(grouped.values())


def _following(run: Run, alike: Sequence[Run]) -> Run:
    """Return the run without its other seeds that equal the run's in all runs: the default."""
    settings = dict(run.record["settings"])
    for name in _SEEDS:
        if all(one.settings.get(name) in (None, one.seed) for one in alike):
            settings |= {name: None} if name in settings else {}
    return replace(run, record={**run.record, "settings": settings})


def differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the options whose values differ, in their order."""
    names = list(dict.fromkeys(name for one in settings for name in one))
    return [
        name for name in names
        if len({json.dumps(one.get(name), sort_keys=True) for one in settings}) > 1
    ]  # fmt: skip


def _names(settings: Sequence[dict[str, Any]]) -> list[str]:
    names = []
    for number, own in enumerate(settings):
        alike = [other for other in settings if other["method"] == own["method"]]
        told = [f"{name.replace('_', ' ')} {own.get(name, 'default')}" for name in differing(alike)]
        if len(told) > 3:
            before = sum(other["method"] == own["method"] for other in settings[:number])
            told = [f"settings {before + 1}"]
        names.append(", ".join([own["method"], *told]))
    return names


def _runs_of(folder: Path) -> list[Path]:
    """Return the folders seed-0, seed-1, ... of a folder, or the folder itself."""
    seeds = [found for found in folder.glob("seed-*") if found.is_dir()]
    return sorted(seeds, key=lambda path: (len(path.name), path.name)) or [folder]
