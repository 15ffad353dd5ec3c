"""Make the tables of the results page from the rows of ``benchmarks/results/accuracy.jsonl``."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from benchmarks.accuracy_methods import BASELINE, METHODS
from benchmarks.ranks import kendall, spearman
from examples.train.tables import markdown_table

Row = Mapping[str, Any]
Rows = Sequence[Row]

TASKS = {
    "symmetric0": "the crowd's labels",
    "symmetric10": "10 % symmetric noise",
    "symmetric20": "20 % symmetric noise",
    "symmetric30": "30 % symmetric noise",
    "fer2013": "FER2013's original labels",
    "twin": "noise like FER2013's",
}
SHORT = {
    "symmetric0": "0 %",
    "symmetric10": "10 %",
    "symmetric20": "20 %",
    "symmetric30": "30 %",
    "fer2013": "FER2013",
    "twin": "twin",
}
RECIPE = "retrain-verified"
LONG = "memorise"  # the scale whose runs are long enough to memorise labels
REAL, COPIES = "fer2013", ("symmetric30", "twin")
# Shown side by side. The twin only tells how noise ranks methods, and rates have their own table.
SHOWN = ["symmetric30", REAL]
RATES = ["symmetric0", "symmetric10", "symmetric20", "symmetric30"]
SCALES = {
    "face": "Backbone pre-trained on faces",
    "memorise": "The same backbone, until it memorises 2,000 labels",
    "cpu": "Small network from scratch",
    "gpu": "Larger network from scratch",
}
# Predictions changed by verified labels, see accuracy_shares.py.
ADJUSTED = {
    "corrected": "corrected",
    "truth": "true shares",
    "half": "half way to equal shares",
}
PREDICTIONS = {
    "": "last weights",
    "_mirrored": "last, mirrored",
    "_ema": "averaged weights",
    "_ema_mirrored": "averaged, mirrored",
}


class Group:
    """The runs of a method with one setting and budget on one task, one per seed."""

    def __init__(self, runs: Rows) -> None:
        self.runs = {row["seed"]: row for row in runs}
        first = runs[0]
        self.scale, self.task = first["scale"], first["task"]
        self.method, self.epochs = first["method"], first["epochs"]
        self.setting = first["setting"]

    @property
    def title(self) -> str:
        """The title of the method, and what it is told."""
        return METHODS[self.method].name

    def values(self, prediction: str, *, figure: str = "accuracy") -> dict[int, float]:
        """Return a figure of the last epoch by seed, in percent, for the runs that have it."""
        return {
            seed: 100 * row["last"][figure + prediction]
            for seed, row in self.runs.items()
            if figure + prediction in row["last"]
        }

    def mean(self, prediction: str) -> float:
        """Return the mean accuracy over the seeds, in percent."""
        return statistics.mean(self.values(prediction).values())

    def gains(self, baseline: Group, prediction: str) -> list[float]:
        """Return by how many points each seed is ahead of the same seed of the baseline."""
        other = baseline.values(prediction)
        return [v - other[seed] for seed, v in self.values(prediction).items() if seed in other]


def adjusted_gains(group: Group, way: str, baseline: Group, prediction: str) -> list[float]:
    """By how many points each seed is ahead of the baseline's, with changed predictions."""
    other = baseline.values(prediction)
    return [
        100 * row["adjusted"][way]["accuracy"] - other[seed]
        for seed, row in group.runs.items()
        if way in row.get("adjusted", {}) and seed in other
    ]


def groups_of(rows: Rows, phase: str = "report") -> list[Group]:
    """Group the runs of a phase."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["phase"] == phase:
            setting = tuple(sorted((name, str(v)) for name, v in row["setting"].items()))
            key = (row["scale"], row["task"], row["method"], row["epochs"], setting)
            found.setdefault(key, []).append(row)
    return [Group(runs) for runs in found.values()]


def prediction_of(groups: Iterable[Group]) -> str:
    """Return the prediction to show: averaged and mirrored if every run has it."""
    every = all(len(g.values("_ema_mirrored")) == len(g.runs) for g in groups)
    return "_ema_mirrored" if every else ""


def baseline_of(groups: Iterable[Group], prediction: str) -> Group:
    """Return the baseline of a task: cross entropy with its best budget."""
    own = [group for group in groups if group.method == BASELINE]
    return max(own, key=lambda group: group.mean(prediction))


def scales_of(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return the groups of each scale, in the order of the page."""
    found = {scale: [g for g in groups if g.scale == scale] for scale in SCALES}
    return {scale: own for scale, own in found.items() if own}


def table(rows: Rows) -> str:
    """Make a table per scale: accuracy, gain over the baseline, mean-class accuracy per task."""
    lines = []
    for scale, all_groups in scales_of(groups_of(rows)).items():
        own = [group for group in all_groups if group.task in SHOWN]
        prediction = prediction_of(own)
        tasks = [task for task in SHOWN if any(g.task == task for g in own)]
        by_task = {task: [g for g in own if g.task == task] for task in tasks}
        baselines = {task: baseline_of(found, prediction) for task, found in by_task.items()}
        keys = {(g.method, g.epochs, g.title) for g in own}
        shown = []
        for method, epochs, title in keys:
            cells: dict[str, Any] = {"method": title}
            order = []
            for task in tasks:
                mine = [g for g in by_task[task] if (g.method, g.epochs) == (method, epochs)]
                group = mine[0] if mine else None
                cells[TASKS[task]] = _with_gain(group, baselines[task], prediction)
                cells[f"mean class, {SHORT[task]}"] = (
                    "" if group is None
                    else spread(group.values(prediction, figure="mean_class_accuracy"))
                )  # fmt: skip
                if group is not None:
                    order.append(statistics.mean(group.gains(baselines[task], prediction) or [-99]))
            passes = METHODS[method].passes
            cells |= {"epochs": epochs, "image passes": epochs * passes}
            shown.append((-statistics.mean(order), title, epochs, cells))
        lines += [
            f"### {SCALES[scale]}",
            "",
            f"{_faces(own)} Prediction: {PREDICTIONS[prediction]}. In brackets: "
            "points ahead of the baseline, seed by seed, with the standard error.",
            "",
            markdown_table([cells for *_, cells in sorted(shown, key=lambda one: one[:3])]),
            "",
        ]
    return "\n".join(lines).strip() + "\n"


def rate_table(rows: Rows) -> str:
    """Make a table of accuracy by the rate of symmetric noise, for the same seeds and epochs."""
    groups = groups_of(rows)
    # The highest rate is in the main table.
    lower = [group for group in groups if group.task in RATES[:-1]]
    lower.sort(key=lambda group: (RATES.index(group.task), -group.mean("_ema_mirrored")))
    lowest: dict[tuple[Any, ...], Group] = {}
    for group in lower:
        lowest.setdefault((group.scale, group.method, group.epochs), group)
    tasks = [task for task in RATES if any(group.task == task for group in groups)]
    shown = []
    for first in lowest.values():
        cells: dict[str, Any] = {"method": first.title}
        for task in tasks:
            own, baseline = (_like(first, groups, name, task) for name in (first.method, BASELINE))
            if own is None:
                cells[TASKS[task]] = "not run"
                continue
            found = _both([row["last"] for row in own.runs.values()], "_ema_mirrored")
            ahead = own.method != BASELINE and baseline is not None
            gain = f" ({_gain(own, baseline, '_ema_mirrored')})" if ahead else ""
            cells[TASKS[task]] = f"{found}{gain}"
        shown.append({**cells, "epochs": first.epochs, "seeds": len(first.runs)})
    return f"{markdown_table(shown)}\n" if shown else "Not run yet.\n"


def _like(group: Group, groups: Sequence[Group], method: str, task: str) -> Group | None:
    """Return the runs of a method on a task, with the scale, epochs and seeds of a group."""
    asked = (group.scale, group.epochs, method, task)
    for other in groups:
        own = (other.scale, other.epochs, other.method, other.task)
        if own == asked and group.runs.keys() <= other.runs.keys():
            return Group([other.runs[seed] for seed in group.runs])
    return None


def summary_table(rows: Rows) -> str:
    """The README's: the baseline, the best method of the papers, and the recipe, by natural noise.

    The baseline is also shown with as many epochs as the recipe's. Both then have their predictions
    corrected.
    """
    groups = [group for group in groups_of(rows) if group.task == "fer2013"]
    scale, own = next(iter(scales_of(groups).items()))
    prediction = prediction_of(own)
    baseline = baseline_of(own, prediction)
    papers = [group for group in own if group.method in ("eac", "scn", "gsmc", "lanet")]
    best = sorted(papers, key=lambda group: -group.mean(prediction))[:1]
    recipes = [group for group in own if group.method == RECIPE]
    recipe = sorted(recipes, key=lambda group: (-len(group.runs), -group.epochs))[:1]
    epochs = {group.epochs for group in recipe} - {baseline.epochs}
    as_long = [group for group in own if group.method == BASELINE and group.epochs in epochs]
    shown = [_summary(baseline, baseline, prediction)]
    for group in (*as_long, *recipe):
        shown += [_summary(group, baseline, prediction), _corrected(group, baseline, prediction)]
    shown[1:1] = [_summary(group, baseline, prediction) for group in best]
    return (
        f"{markdown_table(shown)}\n\n{SCALES[scale]}. {_faces(own)} "
        "± is the standard deviation over the seeds, and of a gain the standard error.\n"
    )


def _summary(group: Group, baseline: Group, prediction: str) -> dict[str, Any]:
    return {
        "training": group.title,
        "epochs": _epochs(group),
        "accuracy, %": spread(group.values(prediction)),
        "gain": "" if group is baseline else _gain(group, baseline, prediction),
        "mean-class accuracy, %": spread(group.values(prediction, figure="mean_class_accuracy")),
        "seeds": len(group.runs),
    }


def _epochs(group: Group) -> str:
    """The epochs of a training, or of both."""
    again = METHODS[group.method].again
    return f"{group.epochs} + {group.epochs}" if again else str(group.epochs)


def _corrected(group: Group, baseline: Group, prediction: str) -> dict[str, Any]:
    """The same group, with corrected predictions."""
    found = [row["adjusted"]["corrected"] for row in group.runs.values()]
    return {
        "training": "the same, predictions corrected"
        + ("" if METHODS[group.method].told else ", 100 verified"),
        "epochs": _epochs(group),
        "accuracy, %": spread([100 * one["accuracy"] for one in found]),
        "gain": _mean_and_error(adjusted_gains(group, "corrected", baseline, prediction)),
        "mean-class accuracy, %": spread([100 * one["mean_class_accuracy"] for one in found]),
        "seeds": len(found),
    }


def long_tables(rows: Rows) -> str:
    """Make tables of all groups: every prediction, the last and the best epoch, the setting."""
    lines = []
    for scale, own in scales_of(groups_of(rows)).items():
        for task, name in TASKS.items():
            mine = sorted((g for g in own if g.task == task), key=lambda g: (g.title, g.epochs))
            if not mine:
                continue
            shown = [
                {
                    "method": g.title,
                    "epochs": g.epochs,
                    "seeds": len(g.runs),
                    **{title: spread(g.values(form)) for form, title in PREDICTIONS.items()},
                    "mean class, last weights": spread(g.values("", figure="mean_class_accuracy")),
                    "best epoch": spread({
                        seed: 100 * row["best"]["accuracy"] for seed, row in g.runs.items()
                    }),
                    "wrong labels fitted": _fitted(g),
                    "setting": shown_setting(g.setting),
                }
                for g in mine
            ]  # fmt: skip
            lines += folded(f"{SCALES[scale]}: {name}", markdown_table(shown))
    return "\n".join(lines).strip() + "\n"


def ablation_table(rows: Rows) -> str:
    """Make the ablation table: tuned methods without one part, and the whole methods."""
    shown = []
    for name, method in METHODS.items():
        own = [row for row in rows if row["method"] == name and row["task"] == "symmetric30"]
        ablated = [row for row in own if row["phase"] == "ablation"]
        if not ablated:
            continue
        runs = {_place_of(row) for row in ablated}
        whole = [row for row in own if row["phase"] == "report" and _place_of(row) in runs]
        parts = {
            part: [row for row in ablated if change.items() <= row["setting"].items()]
            for part, change in method.parts.items()
        }
        for part, runs in {"whole": whole, **parts}.items():
            shown.append({"method": method.name, "part": part, **_outcome(runs)})
    return markdown_table(shown) + "\n" if shown else ""


def _place_of(row: Row) -> tuple[str, int, int]:
    """Return what a run without a part shares with that of the whole method."""
    return row["scale"], row["epochs"], row["seed"]


def rank_table(rows: Rows) -> str:
    """Make tables of how similarly synthetic noise and real labels rank the methods."""
    lines = []
    for scale, own in scales_of(groups_of(rows)).items():
        found: dict[tuple[str, int], dict[str, Group]] = {}
        for group in sorted(own, key=lambda group: group.epochs):
            if group.task in (REAL, *COPIES):
                found.setdefault((group.method, group.epochs), {})[group.task] = group
        whole: dict[str, dict[str, Group]] = {}  # each method once, for its fewest epochs
        for (method, _), by_task in found.items():
            if len(by_task) == 1 + len(COPIES):
                whole.setdefault(method, by_task)
        if len(whole) < 3:
            continue
        prediction = prediction_of(g for by_task in whole.values() for g in by_task.values())
        means = {
            task: [by_task[task].mean(prediction) for by_task in whole.values()]
            for task in (REAL, *COPIES)
        }
        shown = [
            {"noise": TASKS[task], **_agreement([(means[task], means[REAL])])} for task in COPIES
        ]
        shown += _between_seeds([by_task[REAL] for by_task in whole.values()], prediction)
        titles = [METHODS[method].name for method in whole]
        orders = []
        for task in (REAL, *COPIES):
            best_first = sorted(zip(means[task], titles, strict=True), reverse=True)
            order = ", ".join(f"{title} {mean:.1f}" for mean, title in best_first)
            orders.append(f"- {TASKS[task]}: {order}")
        prediction_name = PREDICTIONS[prediction]
        lines += [
            f"**{SCALES[scale]}**: {len(whole)} methods. Accuracy of the {prediction_name}, mean "
            "over the seeds.",
            "",
            markdown_table(shown),
            "",
            *orders,
            "",
        ]
    return "\n".join(lines).strip() + "\n" if lines else "Not run yet.\n"


def _between_seeds(groups: Sequence[Group], prediction: str) -> list[dict[str, str]]:
    """How alike single seeds of the real labels rank the methods: what a copy can reach at most."""
    values = [group.values(prediction) for group in groups]
    seeds = sorted(set.intersection(*(set(own) for own in values)))
    pairs = [
        ([own[first] for own in values], [own[second] for own in values])
        for first, second in combinations(seeds, 2)
    ]
    if not pairs:
        return []
    return [{"noise": f"{TASKS[REAL]}, one seed with another", **_agreement(pairs)}]


def _agreement(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> dict[str, str]:
    """How alike pairs rank the methods, on average, and the range if any one method is left out."""

    def without(left_out: int | None) -> float:
        kept = [[[x for i, x in enumerate(one) if i != left_out] for one in pair] for pair in pairs]
        return statistics.mean(spearman(first, second) for first, second in kept)

    fewer = [without(method) for method in range(len(pairs[0][0]))]
    return {
        f"Spearman with {TASKS[REAL]}": f"{without(None):.2f}",
        "without any one method": f"{min(fewer):.2f} to {max(fewer):.2f}",
        f"Kendall with {TASKS[REAL]}": f"{statistics.mean(kendall(*p) for p in pairs):.2f}",
    }


def ladder_table(rows: Rows) -> str:
    """Make the table of the settings that were tried on the tuning faces, one seed each."""
    looks = [row for row in rows if row["phase"] == "try" and row["scale"] == "look"]
    shown = []
    for row in sorted(looks, key=lambda row: list(TASKS).index(row["task"])):
        last = row["last"]
        shown.append({
            "task": TASKS[row["task"]],
            "method": METHODS[row["method"]].name,
            **{
                title: f"{100 * last['accuracy' + form]:.1f}"
                for form, title in PREDICTIONS.items()
            },
            "mean class, averaged, mirrored": (
                f"{100 * last['mean_class_accuracy_ema_mirrored']:.1f}"
            ),
            "epochs": row["epochs"],
            "setting": shown_setting(row["setting"]),
        })  # fmt: skip
    if not looks:
        return ""
    title = (
        f"First tries: {looks[0]['train_faces']:,} faces, network {looks[0]['backbone']}, "
        "one seed, tested on the tuning faces"
    )
    return "\n".join(folded(title, markdown_table(shown))).strip() + "\n"


def shares_table(rows: Rows) -> str:
    """Make tables of predictions as they are, and as verified labels change them."""
    lines: list[str] = []
    for scale, own in scales_of(groups_of(rows)).items():
        for task in sorted(SHOWN, key=lambda task: task != REAL):
            shown = []
            for group in sorted(own, key=lambda g: (g.method != BASELINE, g.title, g.epochs)):
                runs = [row for row in group.runs.values() if "adjusted" in row]
                if group.task != task or not runs:
                    continue
                as_it_is = _both([row["last"] for row in runs], "_ema_mirrored")
                cells = {"training": group.title, "as it is": as_it_is}
                for way, meaning in ADJUSTED.items():
                    found = [row["adjusted"][way] for row in runs if way in row["adjusted"]]
                    cells[meaning] = _both(found) if found else "-"
                shown.append({**cells, "epochs": group.epochs, "seeds": len(runs)})
            if shown:
                title = f"{SCALES[scale]}, {TASKS[task]} (accuracy / mean-class accuracy, %)"
                made = markdown_table(shown)
                # The first is the one to read.
                lines += folded(title, made) if lines else [f"**{title}**", "", made, ""]
    return "\n".join(lines).strip() + "\n" if lines else ""


def corrections_table(rows: Rows) -> str:
    """Make the same tables with the baseline and the methods of the recipe's page only."""
    own = (BASELINE, RECIPE, "retrain", "retrain-choices", "teacher-landmarks")
    return shares_table([row for row in rows if row["method"] in own and row["scale"] != LONG])


def choices_table(rows: Rows) -> str:
    """Make the table of cross entropy whose predictions are corrected without verified labels."""
    shown = []
    for phase, faces in (("report", "test"), ("try", "tuning")):
        for group in sorted(groups_of(rows, phase), key=lambda g: (g.task, g.scale, g.epochs)):
            runs = list(group.runs.values())
            if group.scale not in SCALES or group.method != BASELINE:
                continue
            if not all("choices" in row.get("adjusted", {}) for row in runs):
                continue
            shown.append({
                "noise": TASKS[group.task],
                "network": SCALES[group.scale],
                "as it is": _both([row["last"] for row in runs], "_ema_mirrored"),
                "by its own choices": _both([row["adjusted"]["choices"] for row in runs]),
                "by 100 verified labels": _both([row["adjusted"]["corrected"] for row in runs]),
                "faces": faces,
                "epochs": group.epochs,
                "seeds": len(runs),
            })  # fmt: skip
    return markdown_table(shown) + "\n" if shown else ""


def _both(figures: Rows, prediction: str = "") -> str:
    """Accuracy and mean-class accuracy, in percent."""
    return " / ".join(
        spread([100 * one[name + prediction] for one in figures])
        for name in ("accuracy", "mean_class_accuracy")
    )


def tuning_table(rows: Rows) -> str:
    """Make the table of the settings that were tuned over."""
    shown = [
        {
            "method": METHODS[row["method"]].name,
            "last epoch": f"{100 * row['last']['accuracy']:.1f}",
            "best epoch": f"{100 * row['best']['accuracy']:.1f}",
            "scale": row["scale"],
            "epochs": row["epochs"],
            "setting": shown_setting(row["setting"]),
        }
        for row in sorted(rows, key=lambda row: (row["scale"], row["method"]))
        if row["phase"] == "tune"
    ]
    lines = folded("Settings that were tuned over", markdown_table(shown)) if shown else []
    return "\n".join(lines).strip() + "\n"


MADE = {
    "summary": summary_table,
    "accuracy": table,
    "rates": rate_table,
    "long": long_tables,
    "ablation": ablation_table,
    "ladder": ladder_table,
    "shares": shares_table,
    "corrections": corrections_table,
    "choices": choices_table,
    "ranks": rank_table,
    "tuning": tuning_table,
}


def with_tables(page: str, rows: Rows) -> str:
    """Return a page with its marked tables updated from the rows."""
    found = re.findall(r"<!-- (\w+):start -->", page)
    if not found:
        raise ValueError(f"the page must mark one of the tables {', '.join(MADE)}")
    for name in found:
        page = with_marked(page, name, MADE[name](rows))
    return page


def with_marked(page: str, name: str, text: str) -> str:
    """Return a page with the text between two marks replaced."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if page.count(start) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must have one {start} and one {end}")
    before, rest = page.split(start)
    return f"{before}{start}\n\n{text}\n{end}{rest.split(end)[1]}"


def folded(title: str, text: str) -> list[str]:
    """Return the lines of a part of the page that opens with a click."""
    return [f'<details markdown="1"><summary>{title}</summary>', "", text, "", "</details>", ""]


def shown_setting(setting: Mapping[str, float | str]) -> str:
    """Return a setting as text."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}"
        for name, value in setting.items()
    )


def spread(values: Mapping[int, float] | Sequence[float]) -> str:
    """Return the mean and the standard deviation over the seeds as text."""
    found = list(values.values() if isinstance(values, Mapping) else values)
    if not found:
        return "-"
    around = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{around}"


def _gain(group: Group, baseline: Group, prediction: str) -> str:
    """Mean paired difference to the baseline, with its standard error."""
    gains = group.gains(baseline, prediction)
    return _mean_and_error(gains) if gains else ""


def _mean_and_error(gains: Sequence[float]) -> str:
    error = f" ± {statistics.stdev(gains) / math.sqrt(len(gains)):.1f}" if len(gains) > 1 else ""
    return f"{statistics.mean(gains):+.1f}{error}"


def _with_gain(group: Group | None, baseline: Group, prediction: str) -> str:
    """Return the accuracy, and in brackets the mean paired difference to the baseline."""
    if group is None:
        return "not run"
    own = spread(group.values(prediction))
    if group is baseline:
        return f"{own} (baseline)"
    gain = _gain(group, baseline, prediction)
    return f"{own} ({gain})" if gain else own


def _faces(groups: Sequence[Group]) -> str:
    row = next(iter(groups[0].runs.values()))
    name = row["backbone"].partition(":")[0]
    return (
        f"Network `{name}`, trained on {row['train_faces']:,} faces, tested on "
        f"{row['judged_faces']:,} by the crowd's labels."
    )


def _fitted(group: Group) -> str:
    found = [row.get("fitted_wrong_labels") for row in group.runs.values()]
    return spread([100 * value for value in found if value is not None])


def _outcome(runs: Rows) -> dict[str, Any]:
    return {
        "last epoch": spread([100 * row["last"]["accuracy"] for row in runs]),
        "mean class": spread([100 * row["last"]["mean_class_accuracy"] for row in runs]),
        "best epoch": spread([100 * row["best"]["accuracy"] for row in runs]),
        "seeds": len(runs),
    }
