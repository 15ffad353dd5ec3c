"""Accuracy under label noise, by one protocol for every method, on real faces.

    python -m benchmarks.accuracy tune   --method eac
    python -m benchmarks.accuracy report --method eac --task symmetric30
    python -m benchmarks.accuracy ablate --method lanet
    python -m benchmarks.accuracy table

The protocol, fixed before any method was run:

- Faces: FERPlus in the folder that ``--root`` or ``ROBUSTFER_FERPLUS`` names. 6,000 fixed faces of
  FER2013Train train, 2,000 others of it tune, FER2013Valid reports. The truth is the crowd's
  majority.
- Tasks: ``symmetric30``, 30 % of the crowd's labels made wrong; ``fer2013``, the labels that
  FER2013 came with.
- Tuning: at most six settings a method and as many for the baseline, each run once (seed 0) on
  ``symmetric30``; the setting of the best last epoch on the tuning faces is reported on both tasks,
  with up to three other seeds. A run that stands in the results is never run again.
- Budgets: a method of two views does two image passes a step. Compared are equal steps and equal
  image passes: cross entropy is also trained for as many passes as the dearest method.
- A row a run goes to ``benchmarks/results/accuracy.jsonl``: the last epoch, and the best one apart,
  which was picked by looking at the reported faces and so flatters.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.accuracy_methods import BASELINE, METHODS, Method
from examples.train.engine import train
from examples.train.methods import METHODS as COMMANDS
from examples.train.options import Settings, parse
from examples.train.tables import markdown_table
from robustfer.data import FERPlus, LabeledFaces
from robustfer.noise import with_symmetric_noise

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
SEEDS = (1, 2, 3)
READ: dict[str, Any] = {"in_memory": True, "duplicates": "drop"}
NOT_KEPT = ("loss", "learning_rate", "images_per_second")
TASKS = {
    "symmetric30": "30 % symmetric noise on the crowd's labels",
    "fer2013": "FER2013's own labels",
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is trained: the small one for two CPU cores, the large one for a GPU."""

    name: str
    train_faces: int
    tune_faces: int
    epochs: int
    backbone: str


CPU = Scale(name="cpu", train_faces=6000, tune_faces=2000, epochs=30, backbone="tiny")
# The 14,000 faces of FER2013Train with a clear majority, less those to tune on.
GPU = Scale(name="gpu", train_faces=12000, tune_faces=2000, epochs=40, backbone="small")


def rows() -> list[dict[str, Any]]:
    """All runs so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two runs the same run."""
    names = ("method", "task", "phase", "setting", "seed", "epochs", "scale")
    return {name: row[name] for name in names}


def fixed_rows(faces: LabeledFaces, scale: Scale) -> tuple[list[int], list[int]]:
    """Rows to train and to tune on: the order of a hash of their names, the same everywhere."""
    order = sorted(
        range(len(faces)), key=lambda row: blake2b(faces.ids[row].encode(), digest_size=8).digest()
    )
    needed = scale.train_faces + scale.tune_faces
    if len(order) < needed:
        raise ValueError(f"the protocol needs {needed} training faces, got {len(order)}")
    return order[: scale.train_faces], order[scale.train_faces : needed]


def load(
    root: Path, task: str, phase: str, scale: Scale, seed: int
) -> tuple[LabeledFaces, LabeledFaces]:
    """Training faces with their noisy labels, and faces with the crowd's labels to judge on."""
    crowd = FERPlus(root, "train", **READ)
    train, tune = fixed_rows(crowd, scale)
    if task == "symmetric30":
        noisy: LabeledFaces = with_symmetric_noise(crowd, rate=0.3, seed=seed)
    else:
        own = root / "fer2013_emotion.csv"
        noisy = FERPlus(root, "train", labels="fer2013", fer2013_labels=own, **READ)
    judged = crowd.subset(tune) if phase == "tune" else FERPlus(root, "validation", **READ)
    return noisy.subset(train), judged


def run(
    name: str,
    task: str,
    phase: str,
    setting: Mapping[str, float | str],
    *,
    seed: int,
    epochs: int,
    scale: Scale,
    root: Path,
    device: str,
) -> None:
    """One run, unless its row is there already."""
    own = {
        "method": name, "task": task, "phase": phase, "setting": dict(setting), "seed": seed,
        "epochs": epochs, "scale": scale.name,
    }  # fmt: skip
    if any(identity(row) == own for row in rows()):
        print(f"already there: {own}")
        return
    dirty = _git("status", "--porcelain", "--", "../src", "../plugins", "../examples", "*.py")
    commit = _git("rev-parse", "HEAD") + ("+changes" if dirty else "")
    method = METHODS[name]
    train_set, judged = load(root, task, phase, scale, seed)
    start = time.perf_counter()
    with TemporaryDirectory(prefix="accuracy-") as folder:  # only the row is kept of a run
        shared = [
            f"--seed={seed}", f"--epochs={epochs}", f"--backbone={scale.backbone}",
            "--precision=bf16-mixed", f"--device={device}", f"--output={folder}",
        ]  # fmt: skip
        settings = settings_of(method, setting, root, shared)
        history = train(settings, (train_set, judged)).history
    row = {
        **own,
        "last": _kept(history.last),
        "best": _kept(history.best("accuracy")),
        **{
            f"{name}_by_epoch": [_number(epoch[name], digits=4) for epoch in history.epochs]
            for name in _kept(history.last)
            if name not in ("epoch", "mean_class_accuracy")
        },
        "train_faces": len(train_set),
        "wrong_labels": float((train_set.targets != train_set.true_targets).float().mean()),
        "judged_faces": len(judged),
        "backbone": scale.backbone,
        "seconds": round(time.perf_counter() - start, 1),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "commit": commit,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{own}: {history.summary('accuracy')}")


def settings_of(
    method: Method, setting: Mapping[str, float | str], root: Path, shared: Sequence[str]
) -> Settings:
    """The training program's settings for a setting of a method."""
    own = COMMANDS[method.command].load().Options
    return parse(method.command, own, [*method.arguments_of(setting, root), *shared])


def tuned(name: str, scale: Scale, found: Sequence[Mapping[str, Any]]) -> dict[str, float | str]:
    """The setting of the best last epoch on the tuning faces."""
    tries = [
        row
        for row in found
        if (row["method"], row["phase"], row["scale"]) == (name, "tune", scale.name)
    ]
    if len(tries) < len(METHODS[name].grid):
        raise SystemExit(f"tune {name} first: {len(tries)} of its settings were run")
    return max(tries, key=lambda row: row["last"]["accuracy"])["setting"]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The docs' table of reported runs: mean and spread over the seeds, last epoch and best."""
    lines = []
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in found:
        if row["phase"] == "report":
            key = (row["scale"], row["task"], row["method"], row["epochs"])
            groups.setdefault(key, []).append(row)
    for scale, task in dict.fromkeys(key[:2] for key in groups):
        runs = {key: value for key, value in groups.items() if key[:2] == (scale, task)}
        first = next(iter(runs.values()))[0]
        lines += [
            f"**{TASKS[task]}** ({first['train_faces']:,} faces, {first['wrong_labels']:.0%} of "
            f"their labels wrong; backbone `{first['backbone']}`; {first['judged_faces']:,} faces "
            "judged by the crowd's labels)",
            "",
        ]
        shown = []
        for (_, _, method, epochs), own in sorted(runs.items(), key=lambda item: item[0][2:]):
            shown.append({
                "method": method,
                "setting": _shown(own[0]["setting"]),
                "epochs": epochs,
                "image passes": epochs * METHODS[method].passes,
                **_outcome(own),
            })  # fmt: skip
        lines += [markdown_table(shown), ""]
    return "\n".join(lines).strip() + "\n"


def ablation_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Each part taken out of a tuned method, beside the whole method with the same seeds."""
    shown = []
    for name, method in METHODS.items():
        own = [row for row in found if row["method"] == name and row["task"] == "symmetric30"]
        ablated = [row for row in own if row["phase"] == "ablation"]
        if not ablated:
            continue
        seeds = {row["seed"] for row in ablated}
        whole = [row for row in own if row["phase"] == "report" and row["seed"] in seeds]
        shown.append({"method": name, "part": "whole", **_outcome(whole)})
        for part, change in method.parts.items():
            runs = [row for row in ablated if change.items() <= row["setting"].items()]
            shown.append({"method": name, "part": part, **_outcome(runs)})
    return markdown_table(shown) + "\n" if shown else ""


def _outcome(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "seeds": len(runs),
        "last epoch": _spread([row["last"]["accuracy"] for row in runs]),
        "mean class": _spread([row["last"]["mean_class_accuracy"] for row in runs]),
        "best epoch": _spread([row["best"]["accuracy"] for row in runs]),
    }


def tuning_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Every setting that was tried, with what it gave on the tuning faces."""
    shown = [
        {
            "method": row["method"],
            "setting": _shown(row["setting"]),
            "last epoch": f"{row['last']['accuracy']:.1%}",
            "best epoch": f"{row['best']['accuracy']:.1%}",
        }
        for row in sorted(found, key=lambda row: (row["scale"], row["method"]))
        if row["phase"] == "tune"
    ]
    return markdown_table(shown) + "\n"


def with_tables(page: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Return the docs' page with its tables made anew from the rows."""
    made = {"accuracy": table, "ablation": ablation_table, "tuning": tuning_table}
    for name, make in made.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        if page.count(start) != 1 or page.count(end) != 1:
            raise ValueError(f"the page must have one {start} and one {end}")
        before, rest = page.split(start)
        page = f"{before}{start}\n\n{make(found)}\n{end}{rest.split(end)[1]}"
    return page


def _shown(setting: Mapping[str, float | str]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}"
        for name, value in setting.items()
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "not run"
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread} %"


def _kept(figures: Mapping[str, float]) -> dict[str, float | None]:
    """What a row keeps of an epoch: how good the network is, and how the labels stand."""
    return {
        name: _number(value)
        for name, value in figures.items()
        if name.partition("/")[0] not in NOT_KEPT
    }


def _number(value: float, *, digits: int = 15) -> float | None:
    return None if math.isnan(value) else round(value, digits)  # JSON has no NaN


def _git(*arguments: str) -> str:
    where = Path(__file__).parent
    done = subprocess.run(
        ["git", *arguments], cwd=where, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def main() -> None:
    """Tune or report one method on one task, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=["tune", "report", "ablate", "table"])
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--root", type=Path, default=os.environ.get("ROBUSTFER_FERPLUS"))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of the seeds")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", action="store_true", help="table: put it into docs/results.md")
    options = parser.parse_args()
    if options.phase == "table":
        print(table(rows()), ablation_table(rows()), tuning_table(rows()), sep="\n")
        if options.write:
            page = Path(__file__).parents[1] / "docs" / "results.md"
            page.write_text(with_tables(page.read_text(), rows()))
        return
    if options.root is None or options.method is None:
        parser.error("--method and --root (or ROBUSTFER_FERPLUS) are needed")
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    scale = CPU if device == "cpu" else GPU
    common = {"scale": scale, "root": options.root, "device": device}
    if options.phase == "tune":
        for setting in METHODS[options.method].grid:
            run(
                options.method, "symmetric30", "tune", setting,
                seed=0, epochs=scale.epochs, **common,
            )  # fmt: skip
        return
    setting = tuned(options.method, scale, rows())
    if options.phase == "ablate":
        for seed in SEEDS[: options.seeds]:
            for change in METHODS[options.method].parts.values():
                run(
                    options.method, "symmetric30", "ablation", {**setting, **change},
                    seed=seed, epochs=scale.epochs, **common,
                )  # fmt: skip
        return
    if options.task is None:
        parser.error("report needs --task")
    most = max(method.passes for method in METHODS.values())
    for seed in SEEDS[: options.seeds]:
        for longer in sorted({1, most}) if options.method == BASELINE else [1]:
            run(
                options.method, options.task, "report", setting,
                seed=seed, epochs=longer * scale.epochs, **common,
            )  # fmt: skip


if __name__ == "__main__":
    main()
