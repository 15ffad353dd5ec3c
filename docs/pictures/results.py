"""Draw the results: ``python docs/pictures/results.py`` writes accuracy.png and relabelling.png.

Both come from the rows in ``benchmarks/results/accuracy.jsonl``: figures over thousands of faces.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROWS = Path(__file__).parents[2] / "benchmarks" / "results" / "accuracy.jsonl"
TASKS = {"symmetric30": "30 % symmetric noise", "fer2013": "FER2013's own labels"}
COLOURS = {"precision": "#1f6fb4", "recall": "#d1651b", "changed": "#888888"}
LABELS = {
    "precision": "precision: of the changed labels, those now right",
    "recall": "recall: of the wrong labels, those now right",
    "changed": "share of all labels that is changed",
}
Rows = Sequence[Mapping[str, Any]]


def accuracy(rows: Rows, path: Path) -> None:
    """Each method's last epochs, a dot a seed, and the best epochs as rings beside them."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(TASKS), sharey=True)
    names = sorted({_name(row) for row in rows}, key=lambda name: (not name.startswith("ce"), name))
    for axes, (task, title) in zip(panels, TASKS.items(), strict=True):
        for height, name in enumerate(reversed(names)):
            own = [row for row in rows if row["task"] == task and _name(row) == name]
            for epoch, fill in (("best", "none"), ("last", COLOURS["precision"])):
                values = [100 * row[epoch]["accuracy"] for row in own]
                shift = 0.16 if epoch == "best" else -0.16
                axes.plot(
                    values, np.full(len(values), height + shift), "o", markerfacecolor=fill,
                    markeredgecolor=COLOURS["precision"], markersize=7,
                    label=f"{epoch} epoch" if height == 0 else None,
                )  # fmt: skip
                if epoch == "last" and values:
                    axes.plot(
                        [np.mean(values)] * 2, [height - 0.4, height + 0.08], "-", color="#222222"
                    )
        axes.set(title=title, xlabel="accuracy by the crowd's labels, %")
        axes.set_yticks(range(len(names)), reversed(names))
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    figure.savefig(path, dpi=90)


def relabelling(rows: Rows, path: Path) -> None:
    """Precision and recall of the changed labels by epoch: a thin line a seed, their mean thick."""
    rows = [row for row in rows if any(row.get("recall_by_epoch") or ())]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(11, 3.8 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(methods), len(TASKS), sharex=True, sharey=True, squeeze=False)
    for line, method in zip(panels, methods, strict=True):
        for axes, (task, title) in zip(line, TASKS.items(), strict=True):
            own = [row for row in rows if (row["method"], row["task"]) == (method, task)]
            for figure_name, colour in COLOURS.items():
                _curves(axes, [_shares(row, figure_name) for row in own], figure_name, colour)
            axes.set_title(f"{method}: {title}")
            axes.set(ylim=(0, 100), ylabel="%")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0, 0].legend(frameon=False)
    figure.savefig(path, dpi=90)


def _shares(row: Mapping[str, Any], name: str) -> np.ndarray:
    """A figure by epoch in percent, NaN before the first label is changed."""
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


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['method']}, {row['epochs']} epochs"


def main() -> None:
    """Read the reported rows and draw both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    reported = [row for row in rows if row["phase"] == "report"]
    accuracy(reported, options.output / "accuracy.png")
    relabelling(reported, options.output / "relabelling.png")


if __name__ == "__main__":
    main()
