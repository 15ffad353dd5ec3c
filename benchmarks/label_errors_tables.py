"""Make the tables of ``docs/label_errors.md`` from the rows of ``label_errors.py``.

The names of the scores are here too.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.accuracy_shares import VERIFIED
from benchmarks.accuracy_tables import TASKS, folded, with_marked
from examples.train.tables import markdown_table

TITLES = {"look": "Small network from scratch", "face": "Backbone pre-trained on faces"}
FIRST_METHOD, SECOND_METHOD = "ce", "retrain-verified"
# So many of the first suspects are counted.
FIRST = 200
# cleanlab cannot adjust the last one.
CLEANLAB = (
    ("self_confidence", False),
    ("self_confidence", True),
    ("normalized_margin", False),
    ("normalized_margin", True),
    ("confidence_weighted_entropy", False),
)
NETWORKS = ("last", "ema")  # the last weights, and the average of the weights
UNIFORM = f"posterior of {VERIFIED} verified"
STRATIFIED = f"posterior of {VERIFIED} stratified"
OURS = {
    "robustfer": "posterior, mean and ema",
    f"robustfer, {VERIFIED} verified": f"{UNIFORM}, mean and ema",
    f"robustfer, {VERIFIED} verified, stratified": f"{STRATIFIED}, mean and ema",
}
AGAIN = {"robustfer, the same after a second training": f"{STRATIFIED}, mean and ema"}


def title_of_cleanlab(method: str, adjusted: bool, window: str) -> str:
    """Return the name of one of cleanlab's scores with one of the predictions."""
    return f"{method}{', adjusted' if adjusted else ''}, {window}"


CLEANLAB_TITLES = [
    title_of_cleanlab(method, adjusted, window)
    for method, adjusted in CLEANLAB
    for window in NETWORKS
]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Make the tables of the docs: ours and cleanlab's, then all scores."""
    parts = []
    for scale, task in dict.fromkeys((row["scale"], row["task"]) for row in found):
        runs = [row for row in found if (row["scale"], row["task"]) == (scale, task)]
        first = runs[0]
        single = [row for row in runs if row["folds"] == 1]
        one = [row for row in single if row["method"] == FIRST_METHOD]
        second = [row for row in single if row["method"] == SECOND_METHOD]
        folds = {
            number: [row for row in runs if row["folds"] == number]
            for number in sorted({row["folds"] for row in runs} - {1})
        }
        parts.append(
            f"### {TITLES[scale]}, {TASKS[task]}\n\n{first['faces']:,} faces, "
            f"{first['wrong_labels']:.0%} of their labels wrong, {first['epochs']} epochs."
        )
        best = {number: best_of(own, CLEANLAB_TITLES) for number, own in folds.items()}
        held = [
            line(f"cleanlab: {best[number]}", own, best[number]) for number, own in folds.items()
        ]
        held += [line(name, one, title) for name, title in OURS.items() if one]
        held += [line(name, second, title) for name, title in AGAIN.items() if second]
        parts.append(markdown_table(held))
        sets = [
            set_line(number, own, window) for number, own in folds.items() for window in NETWORKS
        ]
        if sets:
            parts.append(markdown_table(sets))
        for name, own in (("All scores", one), ("All scores of the second training", second)):
            if own:
                whole = markdown_table([line(title, own, title) for title in own[0]["figures"]])
                parts.append("\n".join(folded(name, whole)).rstrip())
    return "\n\n".join(parts) + "\n"


def set_line(number: int, own: Sequence[Mapping[str, Any]], window: str) -> dict[str, str]:
    """The set of labels that cleanlab takes for wrong."""
    figures = [row["figures"][f"find_label_issues, {window}"] for row in own]
    return {
        "cleanlab's set": f"find_label_issues, {window}",
        "trainings": str(number),
        **{
            title: spread([each[name] for each in figures])
            for title, name in (
                ("share of the labels", "found"),
                ("of these wrong", "precision"),
                ("of the wrong ones in it", "recall"),
            )
        },
    }


def line(name: str, own: Sequence[Mapping[str, Any]], title: str) -> dict[str, str]:
    """Return a row of a table, with mean and standard deviation over the seeds."""
    figures = [row["figures"][title] for row in own]
    return {
        "score": name,
        "trainings": str(own[0]["folds"] + (own[0]["method"] == SECOND_METHOD)),
        "seeds": str(len(own)),
        "average precision": spread([each["average_precision"] for each in figures]),
        f"wrong of the first {FIRST}": spread([each["first_wrong"] for each in figures]),
        "suggestions right": spread([each["suggestions_right"] for each in figures]),
    }


def best_of(own: Sequence[Mapping[str, Any]], titles: Sequence[str]) -> str:
    """Return the title with the best average precision, averaged over the seeds."""

    def mean(title: str) -> float:
        return statistics.mean(row["figures"][title]["average_precision"] for row in own)

    return max(titles, key=mean)


def spread(values: Sequence[float]) -> str:
    """Return the mean and the standard deviation as text."""
    text = f"{statistics.mean(values):.3f}"
    return f"{text} ± {statistics.stdev(values):.3f}" if len(values) > 1 else text


def with_table(page: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Return the docs page with its tables updated from the rows."""
    return with_marked(page, "label errors", table(found))
