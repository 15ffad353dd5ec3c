"""Draw speed.png: how many times longer the literal and the plain form take than ours.

    python docs/pictures/speed.py

The rows are those of ``benchmarks/results/speed.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROWS = Path(__file__).parents[2] / "benchmarks" / "results" / "speed.json"
COLOURS = {"literal": "#d1651b", "plain": "#1f6fb4"}


def speed(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A bar for each form of each benchmark, as a multiple of ours."""
    seconds: dict[str, dict[str, float]] = {}
    for row in rows:
        seconds.setdefault(row["what"].removesuffix(", cpu"), {})[row["form"]] = row["seconds"]
    shown = {what: forms for what, forms in seconds.items() if {"plain", "ours"} <= set(forms)}
    figure = Figure(figsize=(9, 0.42 * len(shown) + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, forms in enumerate(reversed(shown.values())):
        for form, shift in (("literal", 0.2), ("plain", -0.2)):
            if form in forms:
                axes.barh(place + shift, forms[form] / forms["ours"], 0.36, color=COLOURS[form])
    axes.axvline(1.0, color="#222222")
    axes.set(xscale="log", xlabel="time of the form, divided by the time of ours")
    axes.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500])
    axes.set_xticklabels(["0.5", "1", "2", "5", "10", "20", "50", "100", "200", "500"])
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.spines[["top", "right"]].set_visible(False)
    for form, colour in COLOURS.items():
        axes.plot([], [], "s", color=colour, label=form)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    kept = json.loads(ROWS.read_text(encoding="utf-8"))
    speed(kept["rows"], Path(__file__).with_name("speed.png"))
