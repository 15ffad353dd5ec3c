"""Draw the pictures of the results page, for ``python -m benchmarks.accuracy table --write``.

They show the rows of ``benchmarks/results/accuracy.jsonl``.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.accuracy_methods import BASELINE, METHODS
from benchmarks.accuracy_tables import (
    ADJUSTED,
    LONG,
    PREDICTIONS,
    REAL,
    RECIPE,
    SCALES,
    SHOWN,
    TASKS,
    Group,
    adjusted_gains,
    baseline_of,
    groups_of,
    prediction_of,
    scales_of,
)

COLOURS = {"precision": "#1f6fb4", "recall": "#d1651b", "changed": "#888888"}
LABELS = {
    "precision": "precision: of the changed labels, those now right",
    "recall": "recall: of the wrong labels, those now right",
    "changed": "share of all labels that is changed",
}
# Colours by what a training knows besides the given labels.
TOLD = {"": "#1f6fb4", "100 verified": "#d1651b", "votes": "#666666"}
MEANING = {"": "given labels", "100 verified": "100 verified labels", "votes": "the crowd's votes"}
MOVED = TOLD["100 verified"]
MANY = 3  # seeds that a training needs to be drawn with its balance
SMALL = "cpu"  # the runs of another scale have other epochs
RELABELLED = ("symmetric30", "fer2013")
Rows = Sequence[Mapping[str, Any]]


def gains(rows: Rows, scale: str, path: Path) -> None:
    """Draw each method's gain over the baseline: a dot per seed, and a bar for their mean."""
    own = scales_of(groups_of(rows))[scale]
    prediction = prediction_of(own)
    panels = [[group for group in own if group.task == task] for task in SHOWN]
    most = 1 + max(map(len, panels))
    figure = Figure(figsize=(10.5, 1.1 + 0.27 * most), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, task, found in zip(figure.subplots(1, 2), SHOWN, panels, strict=True):
        baseline = baseline_of(found, prediction)
        _panel(axes, found, baseline, prediction)
        level = f"0 is cross entropy, {baseline.epochs} epochs: {baseline.mean(prediction):.1f} %"
        axes.set_title(f"{TASKS[task]}\n{SCALES[scale].lower()}\n{level}", fontsize=10)
        axes.set_xlabel(f"points ahead ({PREDICTIONS[prediction]})")
    known = {METHODS[group.method].told for group in own}
    marks = [
        Patch(color=TOLD[told], alpha=0.5, label=label)
        for told, label in MEANING.items()
        if told in known
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=90)


def _panel(axes: Any, groups: Sequence[Group], baseline: Group, prediction: str) -> None:
    bars = [
        (_short(group), group.gains(baseline, prediction), METHODS[group.method].told)
        for group in groups
        if group is not baseline
    ]
    # Changed predictions only of the baseline and the recipe: the table has the others. They are
    # averaged and mirrored, so the baseline must be too.
    bars += [
        (
            f"{_short(group)}, {words}",
            adjusted_gains(group, way, baseline, prediction),
            "100 verified",
        )
        for group in groups
        if prediction == "_ema_mirrored" and (group is baseline or group.method == RECIPE)
        for way, words in (("corrected", "corrected"), ("half", "half way"))
    ]
    found = sorted((bar for bar in bars if bar[1]), key=lambda bar: np.mean(bar[1]))
    for height, (_, values, told) in enumerate(found):
        colour = TOLD[told]
        axes.barh(height, np.mean(values), height=0.6, color=colour, alpha=0.35)
        axes.plot(values, np.full(len(values), height), "o", color=colour, markersize=4)
    axes.axvline(0, color="#222222", linewidth=1.5)
    axes.set_yticks(range(len(found)), [name for name, *_ in found], fontsize=8)
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _short(group: Group) -> str:
    return f"{METHODS[group.method].title}, {group.epochs} epochs"


def balance(rows: Rows, path: Path) -> None:
    """Draw accuracy over mean-class accuracy, with real noise: cross entropy and the recipe.

    The large mark of each is the training as it is. The small ones are changed predictions.
    """
    groups = [group for group in groups_of(rows) if group.task == REAL]
    _, own = next(iter(scales_of(groups).items()))
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for group in own:
        runs = [row for row in group.runs.values() if "adjusted" in row]
        if group.method not in (BASELINE, RECIPE, "retrain-choices") or len(runs) < MANY:
            continue
        corrected, half = (
            _point([row["adjusted"][way] for row in runs]) for way in ("corrected", "half")
        )
        itself = _point([row["last"] for row in runs], "_ema_mirrored")
        colour = TOLD[METHODS[group.method].told]
        axes.plot(*np.transpose([corrected, itself, half]), color=MOVED, alpha=0.4, zorder=1)
        axes.plot(*corrected, "^", *half, "s", color=MOVED, markersize=5)
        axes.plot(*itself, "o", color=colour, markersize=10)
        axes.annotate(_short(group), itself, (10, -4), textcoords="offset points", fontsize=9)
    marks = [
        Line2D([], [], color=colour, marker=mark, linestyle="", label=label)
        for colour, mark, label in (
            (TOLD[""], "o", MEANING[""]),
            (MOVED, "o", MEANING["100 verified"]),
            (MOVED, "^", ADJUSTED["corrected"]),
            (MOVED, "s", ADJUSTED["half"]),
        )
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    axes.set(xlabel="mean-class accuracy, %", ylabel="accuracy, %")
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)


def _point(figures: Sequence[Mapping[str, float]], prediction: str = "") -> list[float]:
    """Return the mean over the seeds of both accuracies, in percent."""
    return [
        100 * statistics.mean(one[name + prediction] for one in figures)
        for name in ("mean_class_accuracy", "accuracy")
    ]


def relabelling(rows: Rows, path: Path) -> None:
    """Draw precision and recall of changed labels by epoch: each seed thin, the mean thick."""
    rows = [row for row in rows if any(row.get("recall_by_epoch") or ()) and row["scale"] == SMALL]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(11, 3.8 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(methods), len(RELABELLED), sharex=True, sharey=True, squeeze=False)
    for line, method in zip(panels, methods, strict=True):
        for axes, task in zip(line, RELABELLED, strict=True):
            own = [row for row in rows if (row["method"], row["task"]) == (method, task)]
            for figure_name, colour in COLOURS.items():
                _curves(axes, [_shares(row, figure_name) for row in own], figure_name, colour)
            axes.set_title(f"{METHODS[method].title}: {TASKS[task]}")
            axes.set(ylim=(0, 100), ylabel="%")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=90)


def _shares(row: Mapping[str, Any], name: str) -> np.ndarray:
    """Return a figure by epoch in percent. It is NaN before the first label is changed."""
    if name == "changed":
        values = np.array(row["changed_by_epoch"]) / row["train_faces"]
    else:
        values = np.array(row[f"{name}_by_epoch"], dtype=float)
    return np.where(np.array(row["changed_by_epoch"]) > 0, 100 * values, np.nan)


def _curves(axes: Any, curves: Sequence[np.ndarray], name: str, colour: str) -> None:
    for curve in curves:
        axes.plot(range(1, len(curve) + 1), curve, color=colour, alpha=0.35, linewidth=1)
    if curves:
        mean = np.mean(curves, axis=0)
        axes.plot(range(1, len(mean) + 1), mean, color=colour, linewidth=2.4, label=LABELS[name])


def memorising(rows: Rows, path: Path) -> None:
    """Draw accuracy by epoch where wrong labels are memorised: a line per method."""
    groups = scales_of(groups_of(rows))[LONG]
    longest = max(group.epochs for group in groups)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    others = sorted({group.method for group in groups} - {BASELINE})
    colours = {BASELINE: "#222222"} | {method: f"C{i}" for i, method in enumerate(others)}
    for group in sorted(groups, key=lambda group: -group.mean("_ema")):
        runs = list(group.runs.values())
        values = 100 * np.mean([row["accuracy_ema_by_epoch"] for row in runs], axis=0)
        fitted = 100 * statistics.mean(row["fitted_wrong_labels"] for row in runs)
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=colours[group.method],
            linewidth=2,
            linestyle="-" if group.epochs == longest else ":",
            label=f"{_short(group)}: {fitted:.0f} % of the wrong labels fitted",
        )
    axes.set(xlabel="epoch", ylabel="accuracy of the averaged weights, %", ylim=(55, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)


def draw(rows: Rows, folder: Path) -> None:
    """Draw the pictures into a folder."""
    reported = [row for row in rows if row["phase"] == "report"]
    gains(reported, "face", folder / "accuracy.png")
    gains(reported, SMALL, folder / "accuracy_small.png")
    balance(reported, folder / "balance.png")
    memorising(reported, folder / "memorising.png")
    relabelling(reported, folder / "relabelling.png")
