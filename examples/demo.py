"""Cross entropy and EAC on drawn faces, 30 % of whose labels are wrong: a table and a picture.

python -m examples.demo    # or: make demo
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
import torch
from torch import Tensor

from examples import eac
from robustfer import experiment
from robustfer.augmentations import SingleView
from robustfer.data import DemoFaces, LabeledFaces
from robustfer.metrics import History
from robustfer.models import CAMClassifier
from robustfer.noise import with_symmetric_noise

METHODS = {"ce": "cross entropy", "eac": "EAC"}
# What was best for each on real faces (docs/results.md), not on these.
TUNED = {
    "ce": ["--learning-rate", "0.002", "--weight-decay", "0.5"],
    "eac": ["--learning-rate", "0.004", "--weight-decay", "0.5", "--consistency-weight", "1"],
}


class InMemory(LabeledFaces):
    """The images of a data set drawn once and kept, since every epoch wants them again."""

    def __init__(self, faces: LabeledFaces) -> None:
        super().__init__(classes=faces.classes, ids=faces.ids, targets=faces.targets)
        self.images = torch.stack([faces.load_image(row) for row in range(len(faces))])

    def load_image(self, row: int) -> Tensor:
        return self.images[row]


def picture(
    path: Path,
    runs: dict[str, tuple[CAMClassifier, History]],
    test_set: LabeledFaces,
    faces: int = 5,
) -> None:
    """Accuracy by epoch, and some test faces with the map of the class that each method sees."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.45))
    axes = left.subplots()
    for method, (_, history) in runs.items():
        values = [100 * epoch["accuracy"] for epoch in history.epochs]
        axes.plot(range(1, len(values) + 1), values, marker=".", label=METHODS[method])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="accuracy on clean test faces, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")

    images = torch.stack([test_set.load_image(row) for row in range(faces)])
    grid = right.subplots(1 + len(runs), faces, squeeze=False)
    for column in range(faces):
        grid[0, column].set_title(test_set.classes[test_set.targets[column]], fontsize=9)
    for axis, image in zip(grid[0], images, strict=True):
        axis.imshow(image.permute(1, 2, 0))
    for axes_row, (method, (model, _)) in zip(grid[1:], runs.items(), strict=True):
        with torch.no_grad():
            output = model.eval()(SingleView().eval()(images))
        predicted = output.logits.argmax(1)
        maps = output.attention[torch.arange(faces), predicted]
        axes_row[0].set_ylabel(METHODS[method], fontsize=9)
        for axis, image, one, label in zip(axes_row, images, maps, predicted, strict=True):
            axis.imshow(image.float().mean(0), cmap="gray", extent=(0, 1, 0, 1))
            axis.imshow(
                one, cmap="inferno", alpha=0.55, extent=(0, 1, 0, 1), interpolation="bicubic"
            )
            axis.set_xlabel(f"says {test_set.classes[label]}", fontsize=8)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Train both methods on the same faces and show what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--train-faces", type=int, default=3000)
    parser.add_argument("--test-faces", type=int, default=1000)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    options = parser.parse_args()

    start = time.perf_counter()
    print(f"drawing {options.train_faces + options.test_faces} faces")
    clean = InMemory(DemoFaces(options.train_faces))
    test_set = InMemory(DemoFaces(options.test_faces, split="test"))
    train_set = with_symmetric_noise(clean, rate=options.noise, seed=options.seed)
    print(train_set.summary())

    runs, rows = {}, []
    for method, name in METHODS.items():
        began = time.perf_counter()
        with TemporaryDirectory(prefix="demo-") as folder:  # only table and picture are kept
            settings = eac.parse([
                "--method", method, *TUNED[method],
                "--epochs", str(options.epochs), "--seed", str(options.seed),
                "--noise", str(options.noise), "--backbone", "tiny", "--amp", "bf16",
                "--output", folder,
            ])  # fmt: skip
            print(f"\n{experiment.show_settings(settings)}")
            model, history = eac.train(settings, train_set, test_set)
        runs[method] = model, history
        rows.append({
            "method": name,
            "last epoch": f"{history.last['accuracy']:.1%}",
            "mean class": f"{history.last['mean_class_accuracy']:.1%}",
            "best epoch": f"{history.best('accuracy')['accuracy']:.1%}",
            "image passes a step": 2 if method == "eac" else 1,
            "seconds": f"{time.perf_counter() - began:.0f}",
        })  # fmt: skip

    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "demo.png"
    picture(path, runs, test_set)
    print(f"\n{experiment.table(rows)}\n")
    print(f"{options.epochs} epochs each on {options.train_faces} drawn faces; one seed; the best")
    print("epoch was picked by looking at the test faces, so that it flatters.")
    print(f"picture: {path}    {time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
