"""Draw confusion matrices, reliability diagrams and accuracy curves with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from examples.train.files import write_whole
from examples.train.judgement import Bin

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def draw_confusion(confusion: Tensor, classes: Sequence[str], *, title: str = "") -> Figure:
    """Draw a confusion matrix with rows in per cent."""
    names = [_shortened(name) for name in classes]
    counts = confusion.sum(1)
    shares = 100 * confusion.double() / counts.clamp(min=1)[:, None]
    side = 1.5 + 0.45 * len(names)
    figure, axes = _figure(side + 0.6, side)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    rows = [f"{name} ({count:,})" for name, count in zip(names, counts.tolist(), strict=True)]
    axes.set_yticks(range(len(names)), rows)
    axes.set(xlabel="predicted", ylabel="label (images)")
    axes.set_title(title, fontsize=10, wrap=True)
    if len(names) <= 20:
        for row, values in enumerate(shares.tolist()):
            for column, share in enumerate(values):
                axes.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=9,
                    color="white" if share > 55 else "black",
                )  # fmt: skip
    return figure


def draw_reliability(runs: Mapping[str, Sequence[Bin]], *, title: str = "") -> Figure:
    """Draw accuracy by confidence. Larger dots stand for more images."""
    figure, axes = _figure(4.8, 4.6)
    axes.plot([0, 100], [0, 100], "--", color="#888888", linewidth=1, label="perfect")
    for (name, bins), colour in zip(runs.items(), _colours(len(runs)), strict=True):
        total = max(1, sum(one.count for one in bins))
        sure, right = ([100 * value for value in column] for column in _columns(bins))
        sizes = [12 + 300 * one.count / total for one in bins]
        axes.plot(
            sure, right, "-", color=colour, linewidth=1.5, label=_shortened(name) or "the run"
        )
        axes.scatter(sure, right, s=sizes, color=colour, alpha=0.7, linewidths=0)
    axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 102), ylim=(0, 102))
    axes.set_title(title, fontsize=10, wrap=True)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    _tidy(axes)
    return figure


def draw_curves(
    groups: Mapping[str, Sequence[Sequence[float]]],
    positions: Mapping[str, Sequence[float]],
    *,
    label: str,
) -> Figure:
    """Draw the accuracy of each group by epoch: each seed thin, the mean thick.

    Args:
        groups: name -> for each seed the accuracy of each epoch.
        positions: name -> position of each epoch on the horizontal axis.
        label: label of that axis.
    """
    figure, axes = _figure(5.2, 4.6)
    for (name, seeds), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        places = positions[name]
        for values in seeds if len(seeds) > 1 else ():
            axes.plot(places, _percent(values), color=colour, linewidth=0.8, alpha=0.4)
        mean = _percent([sum(values) / len(values) for values in zip(*seeds, strict=True)])
        axes.plot(places, mean, color=colour, linewidth=2, label=_shortened(name))
        axes.plot(places[-1], mean[-1], "o", color=colour, markersize=5)
    axes.set(xlabel=label, ylabel="accuracy, %")
    axes.xaxis.get_major_locator().set_params(
        integer=all(isinstance(place, int) for place in places)
    )
    axes.legend(frameon=False, loc="best", fontsize=9)
    _tidy(axes)
    return figure


def written(path: Path, figure: Figure) -> None:
    """Write a picture in the format that the suffix of its path names."""
    content = as_bytes(figure, path.suffix.removeprefix("."))
    write_whole(path, content)


def as_bytes(figure: Figure, kind: str) -> bytes:
    """Return a picture as ``png`` or ``svg``. The same picture gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "robustfer"}):
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    return buffer.getvalue()


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _tidy(axes: Any) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _colours(number: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(number)]


def _columns(bins: Sequence[Bin]) -> tuple[list[float], list[float]]:
    return [one.confidence for one in bins], [one.accuracy for one in bins]


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def _shortened(name: str) -> str:
    # matplotlib would read an unescaped dollar sign as the start of a formula.
    name = name.replace("$", r"\$")
    return name if len(name) <= 40 else f"{name[:39]}…"
