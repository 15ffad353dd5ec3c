"""Compute the content of a card: the rows of its tables, and its pictures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import torch

from examples.train.card.differences import Difference, find_differences
from examples.train.card.runs import Group, differing
from examples.train.judgement import at_temperature, fit_temperature, judge
from examples.train.options import DataOptions
from examples.train.pictures import as_bytes, draw_confusion, draw_curves, draw_reliability
from examples.train.predictions import Predictions
from examples.train.trained import group_of, split_of


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds. The deviation of one seed is ``None``."""

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Row:
    """A group's row in the table of results, with figures over its seeds."""

    name: str
    seeds: int
    epochs: int
    steps: int
    passes: int
    last: Spread
    best: Spread
    best_epochs: str
    mean_class: Spread
    calibration: Spread
    temperature: Spread
    calibrated: Spread


@dataclass(frozen=True)
class Variant:
    """Another prediction of a group's runs: with averaged weights, or with the mirror image."""

    name: str
    prediction: str
    last: Spread
    mean_class: Spread


@dataclass(frozen=True)
class Picture:
    """A picture and the name of its file."""

    name: str
    title: str
    svg: bytes


@dataclass(frozen=True)
class Card:
    """Everything on a card.

    Attributes:
        title: the first line.
        evaluated: the evaluation set.
        rows: results of each group.
        variants: other predictions of the same runs.
        differences: differences of each group to the baselines of its budget.
        fitted: number of images that the temperature is fitted on.
        judged: number of images that calibration is reported on.
        columns: names of the groups.
        settings: options whose values differ, with their value in each group.
        pictures: curves, reliability, confusion.
        notes: further remarks.
    """

    title: str
    evaluated: str
    rows: list[Row]
    variants: list[Variant]
    differences: list[Difference]
    fitted: int
    judged: int
    columns: list[str]
    settings: list[tuple[str, list[str]]]
    pictures: list[Picture]
    notes: list[str]


@dataclass(frozen=True)
class Calibration:
    """Calibration error of half of the images, before and after a temperature is applied.

    The temperature is fitted on the other half.
    """

    before: float
    temperature: float
    after: float


def make_card(groups: Sequence[Group], baselines: Sequence[Group]) -> Card:
    """Compute everything on the card."""
    first = groups[0].first
    half = first.predictions.first_half
    settings = first.settings
    options = group_of(DataOptions, settings)
    data = options.evaluate_data or options.data
    images = int(first.record["evaluation_images"])
    return Card(
        title=" · ".join(group.name for group in groups),
        evaluated=f"{data}, {split_of(options)}: {images:,} images",
        rows=[_row(group) for group in groups],
        variants=[variant for group in groups for variant in _variants(group)],
        differences=find_differences(groups, baselines),
        fitted=int(half.sum()),
        judged=int((~half).sum()),
        columns=[group.name for group in groups],
        settings=_settings(groups),
        pictures=[
            *_curves(groups),
            _reliability(groups),
            *starmap(_confusion, enumerate(groups, 1)),
        ],
        notes=_notes(groups),
    )


def calibration(found: Predictions) -> Calibration:
    """Fit a temperature on half of the images, and judge the other half with it."""
    fitted, judged = found.first_half, ~found.first_half
    logits, targets = found.logits[judged], found.targets[judged]
    temperature = fit_temperature(found.logits[fitted], found.targets[fitted])
    before, after = (
        judge(at_temperature(logits, value), targets, found.classes).calibration_error
        for value in (1.0, temperature)
    )
    return Calibration(before, temperature, after)


def spread(values: Sequence[float]) -> Spread:
    """Return the mean and the standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation)


def _row(group: Group) -> Row:
    calibrations = [calibration(run.predictions) for run in group.runs]
    run = group.first
    best = sorted({int(epoch) for epoch in group.best("epoch")})
    return Row(
        name=group.name,
        seeds=len(group.runs),
        epochs=len(run.record["epochs"]),
        steps=run.steps,
        passes=run.passes,
        last=spread(group.last("accuracy")),
        best=spread(group.best("accuracy")),
        best_epochs=", ".join(map(str, best)),
        mean_class=spread(group.last("mean_class_accuracy")),
        calibration=spread([one.before for one in calibrations]),
        temperature=spread([one.temperature for one in calibrations]),
        calibrated=spread([one.after for one in calibrations]),
    )


def _variants(group: Group) -> list[Variant]:
    names = [name.removeprefix("accuracy") for name in group.first.history.last
             if name.startswith("accuracy_")]  # fmt: skip
    words = {"ema": "averaged weights", "mirrored": "image and mirror image"}
    return [
        Variant(
            name=group.name,
            prediction=", ".join(words.get(part, part) for part in name.split("_") if part),
            last=spread(group.last(f"accuracy{name}")),
            mean_class=spread(group.last(f"mean_class_accuracy{name}")),
        )
        for name in names
    ]


def _settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    columns = [
        {
            **group.first.settings,
            "device": group.first.record.get("device"),
            "processes": group.first.record.get("processes"),
            **{f"{k} version": v for k, v in group.first.record.get("versions", {}).items()},
        }
        for group in groups
    ]
    return [
        (name.replace("_", " "), [_shown(own[name]) if name in own else "-" for own in columns])
        for name in differing(columns)
    ]


def _notes(groups: Sequence[Group]) -> list[str]:
    second = [group.name for group in groups if any(group.first.before.values())]
    told = [f"Steps and image passes include the first training of {name}." for name in second]
    return [*_wrong_labels(groups), *told]


def _wrong_labels(groups: Sequence[Group]) -> list[str]:
    wrong = {group.name: group.first.record.get("wrong_labels") for group in groups}
    known = {share for share in wrong.values() if share is not None}
    if not known:
        return []
    if len(set(wrong.values())) == 1:
        return [f"{known.pop():.1%} of the training labels are wrong."]
    told = ", ".join(f"{name} {share:.1%}" for name, share in wrong.items() if share is not None)
    return [f"Wrong training labels: {told}."]


def _curves(groups: Sequence[Group]) -> list[Picture]:
    values = {
        group.name: [[epoch["accuracy"] for epoch in run.record["epochs"]] for run in group.runs]
        for group in groups
    }
    epochs = {group.name: range(1, 1 + len(group.first.record["epochs"])) for group in groups}
    thousands = {
        group.name: [(before + epoch * (group.first.passes - before) / len(numbers)) / 1000
                     for epoch in numbers]
        for group, numbers in zip(groups, epochs.values(), strict=True)
        for before in [group.first.before["passes"]]
    }  # fmt: skip
    drawn = [("epochs", "epoch", epochs), ("passes", "image passes, thousands", thousands)]
    return [
        Picture(
            f"curve-{name}.svg",
            f"Accuracy by {label.partition(',')[0]}: each seed thin, their mean thick",
            as_bytes(draw_curves(values, positions, label=label), "svg"),
        )
        for name, label, positions in drawn
    ]


def _reliability(groups: Sequence[Group]) -> Picture:
    bins = {}
    for group in groups:
        logits = torch.cat([run.predictions.logits for run in group.runs])
        targets = torch.cat([run.predictions.targets for run in group.runs])
        bins[group.name] = judge(logits.softmax(1), targets, _classes(group)).reliability
    figure = draw_reliability(bins)
    title = "Reliability after the last epoch, without temperature"
    return Picture("reliability.svg", title, as_bytes(figure, "svg"))


def _confusion(number: int, group: Group) -> Picture:
    confusion = sum(
        judge(run.predictions.logits.softmax(1), run.predictions.targets, _classes(group)).confusion
        for run in group.runs
    )
    figure = draw_confusion(confusion, _classes(group))
    title = f"{group.name}: confusion after the last epoch, % of a row, all seeds"
    return Picture(f"confusion-{number}.svg", title, as_bytes(figure, "svg"))


def _classes(group: Group) -> tuple[str, ...]:
    return group.first.predictions.classes


def _shown(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
