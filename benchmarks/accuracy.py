"""Measure accuracy under label noise on real faces, with one protocol for every method.

    python -m benchmarks.accuracy tune   --method eac
    python -m benchmarks.accuracy report --method eac --task symmetric30
    python -m benchmarks.accuracy ablate --method lanet
    python -m benchmarks.accuracy try    --method teacher --task fer2013 --setting q=0.4 decay=0.99
    python -m benchmarks.accuracy adjust
    python -m benchmarks.accuracy table

The protocol was fixed before any method was run:

- Faces: FERPlus in the folder ``--root`` or ``ROBUSTFER_FERPLUS``. A fixed part of FER2013Train is
  for training, another part for tuning. FER2013Valid is for reported results. The crowd's majority
  is the true label.
- Tasks: ``symmetric30`` makes 30 % of the crowd's labels wrong (also 0, 10 and 20 %). ``fer2013``
  has the original labels of FER2013. ``twin`` puts noise like theirs on the crowd's labels.
- Scales: ``cpu`` and ``gpu`` train small networks from random weights. ``look`` is a quick ``cpu``.
  ``face`` starts from a backbone pre-trained on face recognition (see ``face_backbone.py``), for a
  short and a long training. ``memorise`` does so with a third of the faces. Its long training shows
  each face sixty times, so cross entropy has the time to learn wrong labels by heart.
- Predictions: the last and the averaged weights, each with and without the mirror image. With
  mirror images only at the end, because they double the cost.
- Tuning: at most six settings per method and for the baseline, each run once (seed 0) on
  ``symmetric30``. The setting with the best last epoch on the tuning faces is reported on all
  tasks, with up to three other seeds. A run in the results is never repeated.
- Budgets: a method with two views does two image passes per step. Methods are compared at equal
  steps and at equal image passes. Cross entropy is therefore also trained for as many passes as the
  most expensive method.
- ``try`` runs any setting on the tuning faces, before a method is final.
- ``adjust`` computes what a hundred verified labels are worth without using them in training (see
  ``accuracy_shares.py``) anew, for the rows whose predictions are kept in ``runs``.
- Precision: bf16, and float32 on a CPU without instructions for bf16. Rows say which.
- Each run adds a row to ``benchmarks/results/accuracy.jsonl``, with the last and the best epoch.
  The best epoch is chosen on the reported faces, so it is optimistic. ``fitted_wrong_labels`` is
  the share of wrong training labels that the last weights predict: how much they memorised.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks import accuracy_pictures, accuracy_records, accuracy_tables
from benchmarks.accuracy_methods import BASELINE, FACE_GRIDS, METHODS, Method
from benchmarks.accuracy_shares import adjusted_figures, figures_of
from examples.train.devices import fast_precision, is_native
from examples.train.engine import Outcome, train
from examples.train.files import write_whole
from examples.train.methods import METHODS as COMMANDS
from examples.train.options import Settings, ViewOptions, parse
from examples.train.recording import FINAL, LEARNT
from examples.train.run_folder import AVERAGE
from examples.train.views import Views
from examples.train.weights import pixels_of
from robustfer.checkpoint import load_model
from robustfer.data import FERPlus, LabeledFaces
from robustfer.models import CAMClassifier
from robustfer.noise import NoiseProfile, with_noise_like, with_symmetric_noise

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS.parent / "README.md", DOCS / "results.md", DOCS / "robust.md")
SEEDS = (1, 2, 3)
READ: dict[str, Any] = {"in_memory": True, "duplicates": "drop"}
NOT_KEPT = ("loss", "learning_rate", "images_per_second")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The size of an experiment, for CPUs or for a GPU.

    Attributes:
        name: name of the scale.
        train_faces: number of faces to train on.
        tune_faces: number of other faces to tune on.
        epochs: epochs of a run for tuning.
        backbone: backbone, as for the training program.
        budgets: epochs of reported runs. Default: those for tuning.
        tuned_epochs: epochs to tune cross entropy over, instead of its own settings.
        image_size: side of the images in pixels. Default: unchanged.
        arguments: arguments of all runs. A setting can override them.
    """

    name: str
    train_faces: int
    tune_faces: int
    epochs: int
    backbone: str
    budgets: tuple[int, ...] = ()
    tuned_epochs: tuple[int, ...] = ()
    image_size: int | None = None
    arguments: tuple[str, ...] = ()


AVERAGED = ("--ema-decay=0.99",)
FACE = "benchmarks.face_backbone:pretrained"
FINE_TUNED = ("--learning-rate=0.0005", "--ema-decay=0.995")
SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="cpu", train_faces=6000, tune_faces=2000, epochs=30, backbone="tiny",
            arguments=AVERAGED,
        ),
        Scale(
            name="look", train_faces=3000, tune_faces=2000, epochs=15, backbone="tiny",
            arguments=AVERAGED,
        ),
        # The faces of FER2013Train with a clear majority, without those to tune on.
        Scale(
            name="gpu", train_faces=12000, tune_faces=2000, epochs=40, backbone="small",
            arguments=AVERAGED,
        ),
        Scale(
            name="face", train_faces=6000, tune_faces=2000, epochs=8, backbone=FACE,
            budgets=(8, 24), tuned_epochs=(5, 8, 12), image_size=96, arguments=FINE_TUNED,
        ),
        Scale(
            name="memorise", train_faces=2000, tune_faces=2000, epochs=20, backbone=FACE,
            budgets=(20, 60), image_size=96, arguments=FINE_TUNED,
        ),
    )
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of all runs so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def identity(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies a run."""
    names = ("method", "task", "phase", "setting", "seed", "epochs", "scale")
    return {name: row[name] for name in names}


def fixed_rows(faces: LabeledFaces, scale: Scale) -> tuple[list[int], list[int]]:
    """Return the rows to train and to tune on, in the order of a hash of their names."""
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
    """Return training faces with noisy labels, and evaluation faces with the crowd's labels."""
    read = {**READ, "size": scale.image_size}
    crowd = FERPlus(root, "train", **read)
    train, tune = fixed_rows(crowd, scale)
    if task == "fer2013":
        own = root / "fer2013_emotion.csv"
        noisy: LabeledFaces = FERPlus(root, "train", labels="fer2013", fer2013_labels=own, **read)
    elif task == "twin":
        assert crowd.votes is not None
        shares = crowd.votes / crowd.votes.sum(1, keepdim=True)
        profile = NoiseProfile.load("fer2013")
        noisy = with_noise_like(crowd, profile, seed=seed, probabilities=shares)
    else:
        rate = int(task.removeprefix("symmetric")) / 100
        noisy = with_symmetric_noise(crowd, rate=rate, seed=seed)
    tuning = phase in ("tune", "try")
    judged = crowd.subset(tune) if tuning else FERPlus(root, "validation", **read)
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
    """Train once, and add the row of the run unless it exists."""
    own = {
        "method": name, "task": task, "phase": phase, "setting": dict(setting), "seed": seed,
        "epochs": epochs, "scale": scale.name,
    }  # fmt: skip
    if any(identity(row) == own for row in rows()):
        print(f"already there: {own}")
        return
    at, precision = commit(), fast_precision(device.partition(":")[0])
    method = METHODS[name]
    train_set, judged = load(root, task, phase, scale, seed)
    start = time.perf_counter()
    with TemporaryDirectory(prefix="accuracy-") as folder:
        shared = [
            f"--seed={seed}", f"--epochs={epochs}", f"--backbone={scale.backbone}",
            f"--precision={precision}", f"--device={device}", f"--output={folder}",
        ]  # fmt: skip
        if method.again:
            shared.append(f"--first={first_record(task, seed=seed, epochs=epochs, scale=scale)}")
        settings = settings_of(method, setting, root, shared, first=scale.arguments)
        outcome = train(settings, (train_set, judged))
        history = outcome.history
        predicted = predictions(outcome.classifier, train_set)
        mirrored = {
            name: predictions(network, judged, mirror=True)
            for name, network in networks_of(outcome, train_set).items()
        }
        said = mirrored.get("_ema", mirrored[""])
        final = load_file(outcome.folder / FINAL)["probabilities"]
        accuracy_records.keep(
            outcome.folder, train_set, own, last=predicted, ema=final, judged=said
        )
    last = _kept(history.last)
    for name, probabilities in mirrored.items():
        last |= {
            f"{figure}{name}_mirrored": value
            for figure, value in figures_of(probabilities, judged.targets).items()
        }
    row = {
        **own,
        "last": last,
        **{
            f"best{name.removeprefix('accuracy')}": _kept(history.best(name))
            for name in _kept(history.last)
            if name.startswith("accuracy")
        },
        **{
            f"{name}_by_epoch": [_number(epoch[name], digits=4) for epoch in history.epochs]
            for name in _kept(history.last)
            if name != "epoch" and not name.startswith("mean_class_accuracy")
        },
        "fitted_wrong_labels": fitted_wrong_labels(predicted, train_set),
        "adjusted": adjusted_of(own, judged.targets),
        "train_faces": len(train_set),
        "wrong_labels": float((train_set.targets != train_set.true_targets).float().mean()),
        "judged_faces": len(judged),
        "backbone": scale.backbone,
        "seconds": round(time.perf_counter() - start, 1),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "commit": at,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    told = ", ".join(f"{k} {100 * v:.1f} %" for k, v in last.items() if "accuracy" in k)
    print(f"{own}: {history.summary('accuracy')}; last epoch: {told}")


def settings_of(
    method: Method,
    setting: Mapping[str, float | str],
    root: Path,
    shared: Sequence[str],
    *,
    first: Sequence[str] = (),
) -> Settings:
    """Return the training program's settings for a setting. Later arguments override earlier."""
    own = COMMANDS[method.command].load().Options
    return parse(method.command, own, [*first, *method.arguments_of(setting, root), *shared])


@torch.no_grad()
def predictions(
    classifier: CAMClassifier, faces: LabeledFaces, *, mirror: bool = False
) -> torch.Tensor:
    """Return the predictions for faces (N, C), optionally averaged with their mirror images."""
    mean, std = pixels_of(classifier)
    views = Views(tuple(faces[0]["image"].shape[1:]), ViewOptions(), mean=mean, std=std)
    device = next(classifier.parameters()).device
    half = is_native("bf16-mixed", device.type)  # as in training
    classifier.eval()
    parts = []
    for rows in torch.arange(len(faces)).split(256):
        images = torch.stack([faces[row]["image"] for row in rows.tolist()]).to(device)
        pixels = views.plain(images)
        both = [pixels, pixels.flip(-1)] if mirror else [pixels]
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits = [classifier(pixels).logits for pixels in both]
        said = [own.float().softmax(1) for own in logits]
        parts.append(torch.stack(said).mean(0).cpu())
    return torch.cat(parts)


def fitted_wrong_labels(predicted: torch.Tensor, faces: LabeledFaces) -> float | None:
    """Return the share of the wrong labels of a training set that a network predicts."""
    assert faces.true_targets is not None
    wrong = faces.targets != faces.true_targets
    if not wrong.any():
        return None
    return float((predicted.argmax(1) == faces.targets)[wrong].double().mean())


def first_record(task: str, *, seed: int, epochs: int, scale: Scale) -> Path:
    """Return the record of the reported run of cross entropy that a second training starts from."""
    setting = tuned(BASELINE, scale, rows())
    folder = accuracy_records.folder_of({
        "method": BASELINE, "task": task, "phase": "report", "seed": seed, "epochs": epochs,
        "setting": {name: value for name, value in setting.items() if name != "epochs"},
        "scale": scale.name,
    })  # fmt: skip
    if not (folder / FINAL).exists():
        raise SystemExit(f"report {BASELINE} first: no record of its run, seed {seed}, in {folder}")
    return folder


def adjusted_of(own: Mapping[str, Any], targets: torch.Tensor) -> dict[str, dict[str, float]]:
    """Return the figures of a run's predictions changed by a hundred verified labels.

    Args:
        own: identity of the run, whose record is read.
        targets: true classes of its evaluation faces.
    """
    method, folder = METHODS[own["method"]], accuracy_records.folder_of(own)
    kept = load_file(folder / accuracy_records.NETWORKS)
    other_labels = method.again or method.told == "votes"
    final = load_file(folder / FINAL)
    return adjusted_figures(
        kept["judged"],
        targets,
        kept["given"],
        kept["true"],
        seed=own["seed"],
        with_matrix="--transition=verified" in method.arguments,
        shares=final["probabilities"].double().mean(0) if other_labels else None,
        learnt=final[LEARNT].double() if method.again else None,
        recorded=None if other_labels else kept["mean"],
    )


def adjust(root: Path) -> None:
    """Compute the adjusted figures of all rows anew, from the records that are kept."""
    found: list[dict[str, Any]] = rows()
    targets: dict[tuple[str, bool], torch.Tensor] = {}
    for row in found:
        own, scale = identity(row), SCALES[row["scale"]]
        if "adjusted" not in row or not (accuracy_records.folder_of(own) / FINAL).exists():
            continue
        key = (scale.name, row["phase"] in ("tune", "try"))
        if key not in targets:
            targets[key] = load(root, row["task"], row["phase"], scale, row["seed"])[1].targets
        row["adjusted"] = adjusted_of(own, targets[key])
    write_whole(RESULTS, "".join(json.dumps(row) + "\n" for row in found).encode())


def networks_of(outcome: Outcome, faces: LabeledFaces) -> dict[str, CAMClassifier]:
    """Return the network with its last weights, and with their average if there is one.

    The keys are the suffixes of their figures.
    """
    networks = {"": outcome.classifier}
    if (outcome.folder / AVERAGE).is_dir():
        networks["_ema"] = copy.deepcopy(outcome.classifier)
        load_model(outcome.folder / AVERAGE, networks["_ema"], classes=faces.classes)
    return networks


def budgets(name: str, scale: Scale, setting: Mapping[str, float | str]) -> list[int]:
    """Return the epochs of a method's reported runs.

    Cross entropy is also trained for the image passes of the most expensive method, and for the
    epochs that its tuning chose.
    """
    found = set(scale.budgets or (scale.epochs,))
    if name == BASELINE:
        found.add(min(found) * max(method.passes for method in METHODS.values()))
        found |= {int(setting["epochs"])} if "epochs" in setting else set()
    return sorted(found)


def grid(name: str, scale: Scale) -> Sequence[Mapping[str, float | str]]:
    """Return the settings to tune a method over."""
    if name == BASELINE and scale.tuned_epochs:
        return [{"epochs": epochs} for epochs in scale.tuned_epochs]
    return FACE_GRIDS[name] if scale.backbone == FACE else METHODS[name].grid


def tuned(name: str, scale: Scale, found: Sequence[Mapping[str, Any]]) -> dict[str, float | str]:
    """Return the setting with the best last epoch on the tuning faces.

    A single setting needs no run.
    """
    if len(grid(name, scale)) == 1:
        return dict(grid(name, scale)[0])
    tries = [
        row
        for row in found
        if (row["method"], row["phase"], row["scale"]) == (name, "tune", scale.name)
    ]
    if len(tries) < len(grid(name, scale)):
        raise SystemExit(f"tune {name} first: {len(tries)} of its settings were run")
    return max(tries, key=lambda row: row["last"]["accuracy"])["setting"]


def read_setting(texts: Sequence[str]) -> dict[str, float | str]:
    """Read OPTION=VALUE ... as a setting, and convert numbers."""
    setting: dict[str, float | str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            setting[name] = int(value) if value.isdigit() else float(value)
        except ValueError:
            setting[name] = value
    return setting


def _kept(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return the figures of an epoch that a row contains."""
    return {
        name: _number(value)
        for name, value in figures.items()
        if name.partition("/")[0] not in NOT_KEPT
    }


def _number(value: float, *, digits: int = 15) -> float | None:
    return None if math.isnan(value) else round(value, digits)  # JSON has no NaN


def commit() -> str:
    """Return the current commit, and whether the code has changed since."""
    dirty = _git("status", "--porcelain", "--", "../src", "../plugins", "../examples", "*.py")
    return _git("rev-parse", "HEAD") + ("+changes" if dirty else "")


def _git(*arguments: str) -> str:
    where = Path(__file__).parent
    done = subprocess.run(
        ["git", *arguments], cwd=where, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def main() -> None:
    """Run a phase of the protocol for a method, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("phase", choices=["tune", "report", "ablate", "try", "adjust", "table"])
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--task", choices=accuracy_tables.TASKS)
    parser.add_argument("--root", type=Path, default=os.environ.get("ROBUSTFER_FERPLUS"))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="number of seeds")
    parser.add_argument("--scale", choices=SCALES, help="default: gpu on a GPU, otherwise cpu")
    parser.add_argument("--epochs", type=int, help="only this budget; default: those of the scale")
    parser.add_argument("--setting", nargs="*", default=[], help="try: OPTION=VALUE ...")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", action="store_true", help="table: update pages and pictures")
    options = parser.parse_args()
    if options.phase == "table":
        print(accuracy_tables.table(rows()))
        if options.write:
            for page in PAGES:
                page.write_text(accuracy_tables.with_tables(page.read_text(), rows()))
            accuracy_pictures.draw(rows(), DOCS / "pictures")
        return
    if options.phase == "adjust" and options.root is not None:
        adjust(options.root)
        return
    if options.root is None or options.method is None:
        parser.error("--method and --root (or ROBUSTFER_FERPLUS) are needed")
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    scale = SCALES[options.scale or ("cpu" if device == "cpu" else "gpu")]
    common = {"scale": scale, "root": options.root, "device": device}
    if options.phase == "tune":
        for setting in grid(options.method, scale):
            run(
                options.method, "symmetric30", "tune", setting,
                seed=0, epochs=int(setting.get("epochs", scale.epochs)), **common,
            )  # fmt: skip
        return
    if options.phase == "try":
        if options.task is None:
            parser.error("try needs --task")
        run(
            options.method, options.task, "try", read_setting(options.setting),
            seed=0, epochs=options.epochs or scale.epochs, **common,
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
    whole = budgets(options.method, scale, setting)
    setting = {name: value for name, value in setting.items() if name != "epochs"}
    for seed in SEEDS[: options.seeds]:
        for epochs in [options.epochs] if options.epochs else whole:
            run(
                options.method, options.task, "report", setting,
                seed=seed, epochs=epochs, **common,
            )  # fmt: skip


if __name__ == "__main__":
    main()
