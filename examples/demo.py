"""Go from wrong labels to a better model, on synthetic faces.

Cross entropy and EAC train on labels with the mistakes that people make. An audit of the first
training finds suspect labels. A hundred labels are verified, here with the known truth. They tell
how labels go wrong. This corrects what the first network predicts, and with its predictions it
corrects the labels for a third training. The demo writes a table, a picture and a review page.

python -m examples.demo    # or: make demo
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from examples._demo_picture import NAMES, Result, picture
from examples.train.devices import auto_device, fast_precision
from examples.train.engine import train
from examples.train.methods import METHODS
from examples.train.options import parse
from examples.train.predictions import read_predictions
from examples.train.tables import markdown_table
from robustfer.audit import Audit, audit, read_decisions, read_probabilities, write_review
from robustfer.data import LabeledFaces, load
from robustfer.metrics import accuracy, confusion_matrix, correct_predictions, mean_class_accuracy
from robustfer.noise import (
    TransitionEstimate,
    rows_to_verify,
    with_class_noise,
    write_noise_list,
)

# Share of each class's faces that get another label. Many neutral faces do, as in real data sets:
# the class shares of the labels differ from the true ones.
CONFUSIONS = {
    "surprise": {"fear": 0.2, "happiness": 0.05},
    "fear": {"surprise": 0.2, "sadness": 0.1},
    "disgust": {"anger": 0.4, "sadness": 0.1},
    "happiness": {"neutral": 0.05, "surprise": 0.05},
    "sadness": {"fear": 0.2, "neutral": 0.1},
    "anger": {"sadness": 0.1, "fear": 0.05},
    "neutral": {"sadness": 0.3, "anger": 0.15, "fear": 0.15},
}
SUSPECTS = 200
# Test faces in the picture.
SHOWN = 6
CORRECTED = "predictions corrected"
# The best options on real faces (docs/results.md). Nothing was tuned on synthetic faces.
TUNED = {
    "ce": ["--learning-rate=0.002", "--weight-decay=0.5"],
    "eac": ["--learning-rate=0.004", "--weight-decay=0.5", "--consistency-weight=1"],
    "retrain": ["--learning-rate=0.002", "--weight-decay=0.5"],
}


def verify(path: Path, result: Audit, faces: LabeledFaces, count: int, seed: int) -> None:
    """Write the decisions of a reviewer who knows the truth, for the faces drawn on the page."""
    assert faces.true_targets is not None
    drawn = rows_to_verify(faces.targets, count, seed=seed)
    lines = ["audit,part,id,label"] + [
        f"{result.fingerprint},stratified,{faces.ids[row]},{faces.classes[faces.true_targets[row]]}"
        for row in drawn.tolist()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def share_wrong(result: Audit, wrong: Tensor, count: int) -> float:
    """Return the share of the first suspects whose label is wrong."""
    return float(wrong[result.ranking[:count]].double().mean())


def with_corrected(rows: list[dict[str, str]], run: Path, estimate: TransitionEstimate) -> None:
    """Add a row below the first one, for the same training with corrected predictions."""
    logits, targets, _, classes = read_predictions(run)
    predicted = correct_predictions(logits.softmax(1), estimate.matrix, estimate.shares)
    confusion = confusion_matrix(predicted.argmax(1), targets, num_classes=len(classes))
    row = dict.fromkeys(rows[0], "") | {
        "method": f"{rows[0]['method']}, {CORRECTED}",
        "last epoch": f"{accuracy(confusion):.1%}",
        "mean class": f"{mean_class_accuracy(confusion):.1%}",
    }
    rows.insert(1, row)


def main() -> None:
    """Run the demo and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--train-faces", type=int, default=3000)
    parser.add_argument("--test-faces", type=int, default=1000)
    parser.add_argument("--verified", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    options = parser.parse_args()
    problem = problem_of(options)
    if problem is not None:
        parser.error(problem)
    with TemporaryDirectory(prefix="demo-") as folder:  # the runs themselves are not kept
        demonstrate(options, Path(folder))


def problem_of(options: argparse.Namespace) -> str | None:
    """Return why the options cannot be used, or ``None``."""
    least = {"epochs": 1, "train_faces": SUSPECTS, "test_faces": SHOWN, "verified": len(CONFUSIONS)}
    for name, smallest in least.items():
        given = getattr(options, name)
        if given < smallest:
            option = f"--{name.replace('_', '-')}"
            return f"{option} must be {smallest} or more, got {given}; choose a larger number"
    if options.verified > options.train_faces:
        return (
            f"--verified must be at most --train-faces, {options.train_faces}, got "
            f"{options.verified}; choose a smaller number"
        )
    return None


def demonstrate(options: argparse.Namespace, runs: Path) -> None:
    """Train, audit, verify, train again, and print what came out.

    Args:
        options: those of the command line.
        runs: folder for the runs.
    """
    start, precision = time.perf_counter(), fast_precision(auto_device())
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    labels, page, said = output / "labels.txt", output / "review.html", output / "decisions.csv"
    faces = load("demo", num_samples=options.train_faces)
    faces = with_class_noise(faces, CONFUSIONS, rate=1.0, seed=options.seed)
    assert faces.true_targets is not None
    wrong = faces.targets != faces.true_targets
    write_noise_list(labels, faces.ids, faces.targets)

    def train_by(method: str, *further: str) -> Result:
        began = time.perf_counter()
        arguments = [
            *TUNED[method], *further, f"--epochs={options.epochs}", f"--seed={options.seed}",
            "--data=demo", f"--reader.num_samples={options.train_faces}",
            f"--evaluate-reader.num_samples={options.test_faces}",
            "--noise=list", f"--noise-list={labels}",
            "--backbone=tiny", f"--precision={precision}", f"--output={runs / method}",
        ]  # fmt: skip
        print(f"\npython -m examples.train {method} {' '.join(arguments)}\n")
        run = train(parse(method, METHODS[method].load().Options, arguments))
        seconds = time.perf_counter() - began
        found = read_probabilities(runs / method).probabilities
        result = audit(faces.targets, found, classes=faces.classes, ids=faces.ids)
        return Result(run, result, seconds)

    results = {method: train_by(method) for method in ("ce", "eac")}

    print("\nthe audit of the first training:\n")
    suspects = results["ce"].audit
    print(suspects.text())
    write_review(
        page, suspects, faces, random=options.verified, suspects=SUSPECTS, seed=options.seed
    )

    verify(said, suspects, faces, options.verified, options.seed)
    estimate = read_decisions(said, faces.targets, classes=faces.classes, ids=faces.ids).estimate()
    print(f"\n{options.verified} random faces, verified with the known truth:\n")
    print(estimate.text(faces.classes))
    results["retrain"] = train_by("retrain", f"--first={runs / 'ce'}", f"--decisions={said}")

    rows = [
        {
            "method": NAMES[method],
            "last epoch": f"{one.run.history.last['accuracy']:.1%}",
            "mean class": f"{one.run.history.last['mean_class_accuracy']:.1%}",
            "best epoch": f"{one.run.history.best('accuracy')['accuracy']:.1%}",
            "wrong labels found": f"{share_wrong(one.audit, wrong, int(wrong.sum())):.1%}",
            f"of {SUSPECTS} suspects wrong": f"{share_wrong(one.audit, wrong, SUSPECTS):.1%}",
            "image passes a step": str(METHODS[method].load().passes),
            "seconds": f"{one.seconds:.0f}",
        }
        for method, one in results.items()
    ]
    with_corrected(rows, runs / "ce", estimate)
    path = output / "demo.png"
    test_faces = load("demo", split="test", num_samples=options.test_faces)
    picture(path, results, estimate, faces, test_faces, columns=SHOWN)
    print(f"\n{markdown_table(rows)}\n")
    print(f"{options.epochs} epochs each on {options.train_faces} synthetic faces, one seed.")
    print(
        f"{wrong.double().mean():.0%} of the training labels are wrong; the test labels are right."
    )
    print("The true classes are equally frequent, so both accuracies agree.")
    print("The best epoch was chosen on the test faces, so it is optimistic.")
    print("Wrong labels found: share of wrong labels among as many suspects as are wrong.")
    print(f"Of {SUSPECTS} suspects wrong: the same share among the first {SUSPECTS}.")
    print(f"page: {page}    picture: {path}    {time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
