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

from examples.train.engine import Outcome, train
from examples.train.methods import METHODS
from examples.train.options import parse
from examples.train.tables import markdown_table
from robustfer.augmentations import SingleView
from robustfer.data import DemoFaces

NAMES = {"ce": "cross entropy", "eac": "EAC"}
# What was best for each on real faces (docs/results.md), not on these.
TUNED = {
    "ce": ["--learning-rate=0.002", "--weight-decay=0.5"],
    "eac": ["--learning-rate=0.004", "--weight-decay=0.5", "--consistency-weight=1"],
}


def picture(path: Path, runs: dict[str, Outcome], test_set: DemoFaces, faces: int = 5) -> None:
    """Accuracy by epoch, and some test faces with the map of the class that each method sees."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(12, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.45))
    axes = left.subplots()
    for method, run in runs.items():
        values = [100 * epoch["accuracy"] for epoch in run.history.epochs]
        axes.plot(range(1, len(values) + 1), values, marker=".", label=NAMES[method])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="accuracy on clean test faces, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")

    images = torch.stack([test_set.load_image(row) for row in range(faces)])
    grid = right.subplots(1 + len(runs), faces, squeeze=False)
    for column in range(faces):
        grid[0, column].set_title(test_set.classes[test_set.targets[column]], fontsize=9)
    for axis, image in zip(grid[0], images, strict=True):
        axis.imshow(image.permute(1, 2, 0).numpy())
    for axes_row, (method, run) in zip(grid[1:], runs.items(), strict=True):
        classifier = run.classifier.cpu().eval()
        with torch.no_grad():
            output = classifier(SingleView().eval()(images))
        predicted = output.logits.argmax(1)
        maps = output.attention[torch.arange(faces), predicted]
        axes_row[0].set_ylabel(NAMES[method], fontsize=9)
        for axis, image, one, label in zip(axes_row, images, maps, predicted, strict=True):
            axis.imshow(image.float().mean(0).numpy(), cmap="gray", extent=(0, 1, 0, 1))
            axis.imshow(
                one.numpy(),
                cmap="inferno",
                alpha=0.55,
                extent=(0, 1, 0, 1),
                interpolation="bicubic",
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
    runs, rows = {}, []
    for method, name in NAMES.items():
        began = time.perf_counter()
        with TemporaryDirectory(prefix="demo-") as folder:  # only table and picture are kept
            arguments = [
                *TUNED[method], f"--epochs={options.epochs}", f"--seed={options.seed}",
                "--data=demo", f"--reader.num_samples={options.train_faces}",
                f"--evaluate-reader.num_samples={options.test_faces}",
                "--noise=symmetric", f"--noise-rate={options.noise}",
                "--backbone=tiny", "--precision=bf16-mixed", f"--output={folder}",
            ]  # fmt: skip
            print(f"\npython -m examples.train {method} {' '.join(arguments)}\n")
            run = train(parse(method, METHODS[method].load().Options, arguments))
        runs[method] = run
        rows.append({
            "method": name,
            "last epoch": f"{run.history.last['accuracy']:.1%}",
            "mean class": f"{run.history.last['mean_class_accuracy']:.1%}",
            "best epoch": f"{run.history.best('accuracy')['accuracy']:.1%}",
            "image passes a step": METHODS[method].load().passes,
            "seconds": f"{time.perf_counter() - began:.0f}",
        })  # fmt: skip

    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "demo.png"
    picture(path, runs, DemoFaces(options.test_faces, split="test"))
    print(f"\n{markdown_table(rows)}\n")
    print(f"{options.epochs} epochs each on {options.train_faces} drawn faces; one seed; the best")
    print("epoch was picked by looking at the test faces, so that it flatters.")
    print(f"picture: {path}    {time.perf_counter() - start:.0f} seconds in all")


if __name__ == "__main__":
    main()
