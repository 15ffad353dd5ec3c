"""Measure how well wrong labels are found on real faces, compared with cleanlab.

    python -m benchmarks.label_errors run   --scale face --task fer2013
    python -m benchmarks.label_errors run   --scale look --task symmetric30 --folds 1 2 5
    python -m benchmarks.label_errors score
    python -m benchmarks.label_errors table --write

The protocol was fixed before any row was made, except for the second training and the stratified
draws, which came later:

- Faces, tasks, scales and seeds are those of ``accuracy.py``. The network is trained with cross
  entropy on the given labels, with the setting that was tuned there.
- ``--folds 1`` is our way: one training on all faces, which records its predictions. More folds are
  cleanlab's way: each of as many trainings predicts the faces that it did not see.
- All scores use the same networks: the last and the averaged weights. cleanlab's row is the best of
  its scores with either, chosen by the true labels.
- Ours is the default of ``robustfer audit``: the mean over all visits, and the averaged weights.
- A hundred verified labels are drawn five times per seed, uniformly or equally many of each given
  label. They are excluded from the ranking that is judged.
- The second training is that of ``accuracy.py``, with the hundred labels that it drew. It is kept
  if ``accuracy.py`` has run it.
- ``run`` saves predictions in a folder that git ignores. ``score`` makes the rows from all saved
  predictions. Rows only have figures of whole data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import accuracy, accuracy_records
from benchmarks.accuracy import SCALES, SEEDS, Scale
from benchmarks.accuracy_methods import METHODS
from benchmarks.accuracy_shares import VERIFIED
from benchmarks.label_errors_tables import (
    CLEANLAB,
    FIRST,
    FIRST_METHOD,
    NETWORKS,
    SECOND_METHOD,
    STRATIFIED,
    UNIFORM,
    table,
    title_of_cleanlab,
    with_table,
)
from examples.train.data import seed_of
from examples.train.devices import fast_precision
from examples.train.engine import train
from examples.train.recording import DYNAMICS
from examples.train.transition import draw_verified
from robustfer.audit import audit
from robustfer.data import LabeledFaces
from robustfer.noise import rows_to_verify

RESULTS = Path(__file__).parent / "results" / "label_errors.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "label_errors.md"
RECORDS = Path(__file__).parents[1] / "runs" / "label_errors"
TASKS = ("fer2013", "symmetric30")
SETTINGS: Mapping[str, Mapping[str, float | str]] = {
    # The tuned setting of cross entropy for a small network from random weights.
    "look": {"learning-rate": 0.002, "weight-decay": 0.5},
    "face": {},
}
DRAWS = 5
RECALL = 0.25
FEW = 64
NONE = torch.empty(0, dtype=torch.int64)
RECORDED = ("mean", "early_mean", "visits", "margin_sum", "forgotten")

Figures = dict[str, float]


class Kept(NamedTuple):
    """Saved predictions for the faces, and their labels.

    Attributes:
        given: labels that were trained on, (N).
        true: the crowd's labels, (N).
        windows: predictions (N, C) by name.
        scores: other scores (N). A higher one is more suspicious.
    """

    given: Tensor
    true: Tensor
    windows: dict[str, Tensor]
    scores: dict[str, Tensor]

    @property
    def wrong(self) -> Tensor:
        """Whether each given label is wrong."""
        return self.given != self.true


def rows() -> list[dict[str, Any]]:
    """Return all rows so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def record_path(scale: Scale, task: str, seed: int, folds: int | str) -> Path:
    """Return the path of the saved predictions of a training, of its folds, or of the second."""
    return RECORDS / f"{scale.name}-{task}-{seed}-{folds}.safetensors"


def run(task: str, *, seed: int, folds: int, scale: Scale, root: Path, device: str) -> None:
    """Train and save the predictions, unless they exist."""
    path = record_path(scale, task, seed, folds)
    if path.exists():
        print(f"already there: {path.name}")
        return
    faces, judged = accuracy.load(root, task, "try", scale, seed)
    judged = judged.subset(list(range(min(FEW, len(judged)))))  # the program must judge some faces
    start = time.perf_counter()
    seconds = None
    if folds == 1:
        found, seconds = recorded(FIRST_METHOD, SETTINGS[scale.name], task, seed, scale)
        if not found:
            found = one_training(faces, judged, seed=seed, scale=scale, root=root, device=device)
    else:
        found = {}
        fold = torch.arange(len(faces)) % folds  # random: rows are in the order of a hash
        for number in range(folds):
            seen, others = (fold != number).nonzero()[:, 0], (fold == number).nonzero()[:, 0]
            parts = one_training(
                faces.subset(seen.tolist()), judged, faces.subset(others.tolist()),
                seed=seed, scale=scale, root=root, device=device,
            )  # fmt: skip
            for name in NETWORKS:
                whole = found.setdefault(name, torch.zeros(len(faces), len(faces.classes)))
                whole[others] = parts[name]
    seconds = seconds or round(time.perf_counter() - start, 1)
    about = {"method": FIRST_METHOD, "folds": folds, "seconds": seconds}
    keep(path, faces, found, about, task=task, seed=seed, scale=scale, device=device)


def keep_second(task: str, *, seed: int, scale: Scale, root: Path, device: str) -> None:
    """Save the predictions of the second training, if ``accuracy.py`` has run it."""
    path = record_path(scale, task, seed, "second")
    if path.exists():
        return
    [setting] = accuracy.grid(SECOND_METHOD, scale)
    found, seconds = recorded(SECOND_METHOD, setting, task, seed, scale)
    if not found:
        return
    faces, _ = accuracy.load(root, task, "try", scale, seed)
    about = {"method": SECOND_METHOD, "folds": 1, "seconds": seconds}
    keep(path, faces, found, about, task=task, seed=seed, scale=scale, device=device)


def keep(
    path: Path,
    faces: LabeledFaces,
    found: dict[str, Tensor],
    about: Mapping[str, Any],
    *,
    task: str,
    seed: int,
    scale: Scale,
    device: str,
) -> None:
    """Save predictions, the labels, and a description of the training."""
    about = {
        "scale": scale.name, "task": task, "seed": seed, **about, "epochs": scale.epochs,
        "device": device, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "machine": platform.machine(), "commit": accuracy.commit(),
    }  # fmt: skip
    assert faces.true_targets is not None
    found |= {"given": faces.targets, "true": faces.true_targets}
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in found.items()}
    save_file(tensors, path, metadata={"about": json.dumps(about)})
    print(f"kept {path.name} after {about['seconds']} seconds")


def recorded(
    method: str, setting: Mapping[str, float | str], task: str, seed: int, scale: Scale
) -> tuple[dict[str, Tensor], float | None]:
    """Return the record and the duration of a run by ``accuracy.py``, if it exists."""
    own = {
        "method": method, "task": task, "phase": "report", "setting": dict(setting),
        "seed": seed, "epochs": scale.epochs, "scale": scale.name,
    }  # fmt: skip
    row = next((row for row in accuracy.rows() if accuracy.identity(row) == own), None)
    record = accuracy_records.read(own)
    if row is None or record is None:
        return {}, None
    return {name: record[name] for name in (*NETWORKS, *RECORDED)}, row["seconds"]


def one_training(
    faces: LabeledFaces,
    judged: LabeledFaces,
    others: LabeledFaces | None = None,
    *,
    seed: int,
    scale: Scale,
    root: Path,
    device: str,
) -> dict[str, Tensor]:
    """Train, and return predictions for other faces, or else for the training faces."""
    with TemporaryDirectory(prefix="label-errors-") as folder:
        shared = [
            f"--seed={seed}", f"--epochs={scale.epochs}", f"--backbone={scale.backbone}",
            f"--precision={fast_precision(device.partition(':')[0])}", f"--device={device}",
            f"--output={folder}",
        ]  # fmt: skip
        settings = accuracy.settings_of(
            METHODS[FIRST_METHOD], SETTINGS[scale.name], root, shared, first=scale.arguments
        )
        outcome = train(settings, (faces, judged))
        networks = accuracy.networks_of(outcome, faces)
        found = {
            "last": accuracy.predictions(networks[""], others or faces),
            "ema": accuracy.predictions(networks["_ema"], others or faces),
        }
        if others is None:
            record = load_file(outcome.folder / DYNAMICS)
            found |= {name: record[name] for name in RECORDED}
    return found


def read(path: Path) -> tuple[Kept, dict[str, Any]]:
    """Read saved predictions, and the description of their training."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    found = load_file(path)
    windows = {name: found[name].double() for name in NETWORKS}
    scores = {}
    if "mean" in found:
        windows["mean"] = found["mean"].double()
        windows["early"] = found["early_mean"].double()
        windows["mean and ema"] = (windows["mean"] + windows["ema"]) / 2
        scores["area under the margin"] = -found["margin_sum"] / found["visits"].clamp(min=1)
        scores["forgetting"] = found["forgotten"].double()
    for name, value in windows.items():
        total = value.sum(dim=1, keepdim=True)  # 0 for a face that was not visited
        windows[name] = (value / total).where(total > 0, 1 / value.shape[1])
    return Kept(found["given"], found["true"], windows, scores), about


def average_precision(ranking: Tensor, wrong: Tensor) -> float:
    """Return the average precision: the mean of the precision at each wrong label."""
    found = wrong[ranking].double()
    places = torch.arange(1, len(found) + 1)
    return float((found * found.cumsum(0) / places).sum() / found.sum())


def judge(kept: Kept, ranking: Tensor, suggestion: Tensor) -> Figures:
    """Return figures of a ranking and its suggestions."""
    wrong, true = kept.wrong, kept.true
    hits = wrong[ranking].double().cumsum(0)
    quarter = ranking[: int((hits < RECALL * wrong[ranking].sum()).sum()) + 1]
    return {
        "average_precision": average_precision(ranking, wrong),
        "first_wrong": float(wrong[ranking[:FIRST]].double().mean()),
        "suggestions_right": float((suggestion[quarter] == true[quarter]).double().mean()),
    }


def likeliest_other(given: Tensor, probabilities: Tensor) -> Tensor:
    """Return the most probable class other than the given one."""
    return probabilities.scatter(1, given[:, None], -1.0).argmax(dim=1)


def score_of_cleanlab(kept: Kept) -> dict[str, Figures]:
    """Judge each of cleanlab's scores with each prediction, and the sets that it finds."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    found = {}
    given = kept.given.numpy()
    for window in NETWORKS:
        rows = kept.windows[window]
        suggestion = likeliest_other(kept.given, rows)
        for method, adjusted in CLEANLAB:
            quality = get_label_quality_scores(
                given, rows.numpy(), method=method, adjust_pred_probs=adjusted
            )
            ranking = torch.from_numpy(quality).argsort(stable=True)
            found[title_of_cleanlab(method, adjusted, window)] = judge(kept, ranking, suggestion)
        issues = torch.from_numpy(find_label_issues(given, rows.numpy(), n_jobs=1))
        found[f"find_label_issues, {window}"] = {
            "found": float(issues.double().mean()),
            "precision": float(kept.wrong[issues].double().mean()),
            "recall": float((issues & kept.wrong).sum() / kept.wrong.sum()),
        }
    return found


def score_of_ours(kept: Kept, *, seed: int) -> dict[str, Figures]:
    """Judge each of our scores with each prediction, without and with verified labels."""
    found = score_of_windows(kept)
    suggestion = likeliest_other(kept.given, kept.windows.get("mean", kept.windows["last"]))
    for name, score in kept.scores.items():
        found[name] = judge(kept, score.argsort(descending=True, stable=True), suggestion)
    if kept.scores:
        best = audit(kept.given, kept.windows["mean"])
        both = best.score, kept.scores["area under the margin"]
        ranks = torch.stack([score.argsort().argsort() for score in both]).sum(dim=0)
        order = ranks.argsort(descending=True, stable=True)
        found["mean rank of posterior and margin"] = judge(kept, order, best.suggestion)
    for name, stratified in ((UNIFORM, False), (STRATIFIED, True)):
        draws = [
            score_of_verified(kept, name, seed=1000 * seed + draw, stratified=stratified)
            for draw in range(DRAWS)
        ]
        for title in draws[0]:
            found[title] = {
                figure: statistics.mean(draw[title][figure] for draw in draws)
                for figure in draws[0][title]
            }
    return found


def score_of_windows(kept: Kept, *, told: Tensor = NONE) -> dict[str, Figures]:
    """Judge the scores of ``audit`` with each prediction, without the rows that it was told."""
    found = {}
    for score in ("posterior", "log_margin"):
        for window, rows in kept.windows.items():
            result = audit(kept.given, rows, score=score)
            others = result.ranking[~torch.isin(result.ranking, told)]
            found[f"{score}, {window}"] = judge(kept, others, result.suggestion)
    return found


def score_of_verified(
    kept: Kept, name: str, *, seed: int, stratified: bool = True
) -> dict[str, Figures]:
    """Judge the posterior of a draw of verified labels with each prediction, on the other faces."""
    drawn, estimate = draw_verified(
        kept.given, kept.true, VERIFIED, num_classes=kept.windows["last"].shape[1],
        seed=seed, stratified=stratified,
    )  # fmt: skip
    found = {}
    for window, rows in kept.windows.items():
        result = audit(kept.given, rows, transition=estimate)
        others = result.ranking[~torch.isin(result.ranking, drawn)]
        found[f"{name}, {window}"] = judge(kept, others, result.suggestion)
    return found


def score() -> None:
    """Make the rows of all saved predictions, and keep the other rows."""
    made = {}
    for path in sorted(RECORDS.glob("*.safetensors")):
        kept, about = read(path)
        if about["method"] == SECOND_METHOD:
            seed = seed_of(about["seed"], 0)  # of the labels that it was trained with
            found = score_of_windows(kept, told=rows_to_verify(kept.given, VERIFIED, seed=seed))
            found |= score_of_verified(kept, STRATIFIED, seed=seed)
        else:
            found = score_of_ours(kept, seed=about["seed"])
        if about["folds"] > 1:
            found |= score_of_cleanlab(kept)
        row = {
            **about,
            "faces": len(kept.given),
            "wrong_labels": float(kept.wrong.double().mean()),
            "fitted_labels": {
                name: float((kept.windows[name].argmax(1) == kept.given).double().mean())
                for name in kept.windows
            },
            "figures": {
                title: {name: round(value, 4) for name, value in figures.items()}
                for title, figures in found.items()
            },
        }
        made[identity(row)] = row
    whole = {identity(row): row for row in rows()} | made
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("".join(json.dumps(whole[key]) + "\n" for key in sorted(whole)))
    print(f"{len(made)} rows made, {len(whole)} in all")


def identity(row: Mapping[str, Any]) -> tuple[str, str, str, int, int]:
    """Return what identifies a row."""
    return row["scale"], row["task"], row["method"], row["folds"], row["seed"]


def main() -> None:
    """Train and save predictions, make rows from them, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=["run", "score", "table"])
    parser.add_argument("--scale", choices=SETTINGS, default="look")
    parser.add_argument("--task", choices=TASKS, nargs="+", default=TASKS)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--root", type=Path, default=os.environ.get("ROBUSTFER_FERPLUS"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="table: update the docs page")
    options = parser.parse_args()
    if options.phase == "run":
        if options.root is None:
            parser.error("--root (or ROBUSTFER_FERPLUS) is needed")
        for seed in options.seeds:
            for task in options.task:
                where = {
                    "seed": seed, "scale": SCALES[options.scale], "root": options.root,
                    "device": options.device,
                }  # fmt: skip
                for folds in options.folds:
                    run(task, folds=folds, **where)
                keep_second(task, **where)
    elif options.phase == "score":
        score()
    else:
        print(table(rows()))
        if options.write:
            PAGE.write_text(with_table(PAGE.read_text(), rows()))


if __name__ == "__main__":
    main()
