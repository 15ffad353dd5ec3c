"""Compute paired differences to a baseline with equal steps or equal image passes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.train.card.runs import Group, Run
from examples.train.earlier import cost
from examples.train.options import Refused

FIGURES = ("accuracy", "mean_class_accuracy")


@dataclass(frozen=True)
class Paired:
    """Mean of a difference over seeds, and its standard error (``None`` for one seed)."""

    mean: float
    error: float | None


@dataclass(frozen=True)
class Difference:
    """The difference of a group to a baseline of the same budget.

    Attributes:
        group: name of the group.
        budget: ``steps``, ``image passes``, or both.
        baseline: name of the baseline. ``None``: there is none of this budget.
        seeds: number of runs paired by their seed.
        figures: the difference of each figure.
        note: a remark, or what to train.
    """

    group: str
    budget: str
    baseline: str | None
    seeds: int
    figures: dict[str, Paired]
    note: str


def find_baselines(groups: Sequence[Group], asked: str | None) -> list[Group]:
    """Return the groups to compare with.

    Args:
        groups: all groups.
        asked: a method, or the folder of a run. ``None``: ce, or the first group without ce.

    Raises:
        Refused: no group matches.
    """
    if asked is None:
        return [group for group in groups if group.method == "ce"] or list(groups[:1])
    found = [group for group in groups if group.method == asked]
    if not found:
        place = Path(asked).expanduser().resolve()
        found = [
            group for group in groups
            if any(place in (run.path.resolve(), run.path.resolve().parent) for run in group.runs)
        ]  # fmt: skip
    if not found:
        methods = ", ".join(dict.fromkeys(group.method for group in groups))
        raise Refused(f"--baseline must be {methods}, or one of the runs given, got {asked}")
    return found


def find_differences(groups: Sequence[Group], baselines: Sequence[Group]) -> list[Difference]:
    """Compare each group with the baselines of its budget."""
    found = []
    for group in groups:
        if group in baselines:
            continue
        same_steps = _strongest([one for one in baselines if one.first.steps == group.first.steps])
        same_passes = _strongest([
            one for one in baselines
            if math.isclose(one.first.passes, group.first.passes, rel_tol=0.01)
        ])  # fmt: skip
        if same_steps is same_passes and same_steps is not None:
            found.append(_difference(group, same_steps, "steps and image passes"))
            continue
        for budget, one in (("steps", same_steps), ("image passes", same_passes)):
            if one is None:
                note = _what_to_train(group, baselines[0], budget)
                found.append(Difference(group.name, budget, None, 0, {}, note))
            else:
                found.append(_difference(group, one, budget))
    return found


def _difference(group: Group, baseline: Group, budget: str) -> Difference:
    by_seed = {run.seed: run for run in baseline.runs}
    pairs = [(run, by_seed[run.seed]) for run in group.runs if run.seed in by_seed]
    if not pairs:
        note = "no seed in common; train both with the same seeds"
        return Difference(group.name, budget, baseline.name, 0, {}, note)
    figures = {
        name: paired([one.history.last[name] - other.history.last[name] for one, other in pairs])
        for name in FIGURES
    }
    note = "" if all(map(_same_labels, pairs)) else "trained on other labels than the baseline"
    return Difference(group.name, budget, baseline.name, len(pairs), figures, note)


def paired(differences: Sequence[float]) -> Paired:
    """Return the mean of paired differences and its standard error."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return Paired(mean, None)
    return Paired(mean, statistics.stdev(differences) / math.sqrt(len(differences)))


def _strongest(groups: Sequence[Group]) -> Group | None:
    return max(groups, key=Group.mean, default=None)


def _same_labels(pair: tuple[Run, Run]) -> bool:
    one, other = (run.record.get("trained_on") for run in pair)
    return one == other


def _what_to_train(group: Group, baseline: Group, budget: str) -> str:
    one = baseline.first
    unit = "steps" if budget == "steps" else "passes"
    wanted = getattr(group.first, unit) - one.before[unit]
    epochs = max(1, round(wanted * len(one.record["epochs"]) / cost(one.record)[unit]))
    return f"no run of {baseline.method} with as many {budget}; train it with --epochs {epochs}"
