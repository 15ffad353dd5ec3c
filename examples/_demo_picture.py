"""Draw the demo's picture: accuracy, class shares, class maps and the most suspicious labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from examples.train.engine import Outcome
from robustfer.audit import Audit
from robustfer.augmentations import SingleView
from robustfer.data import LabeledFaces
from robustfer.noise import TransitionEstimate

NAMES = {"ce": "cross entropy", "eac": "EAC", "retrain": "verified labels, second training"}


@dataclass(frozen=True)
class Result:
    """One training, the audit of its predictions, and its duration."""

    run: Outcome
    audit: Audit
    seconds: float


def picture(
    path: Path,
    results: dict[str, Result],
    estimate: TransitionEstimate,
    faces: LabeledFaces,
    test_set: LabeledFaces,
    columns: int = 6,
) -> None:
    """Write the picture to a file."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 7.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.5))
    curves, shares = left.subplots(2, 1)
    _draw_accuracy(curves, results)
    _draw_shares(shares, estimate, faces)
    attention, suspects = right.subfigures(2, 1, height_ratios=(1 + len(results), 1.7))
    attention.suptitle("test faces, and where each method looks", fontsize=10)
    _draw_attention(attention.subplots(1 + len(results), columns), results, test_set)
    suspects.suptitle("the most suspicious training labels, by cross entropy", fontsize=10)
    for axis, row in zip(
        suspects.subplots(1, columns), results["ce"].audit.ranking.tolist(), strict=False
    ):
        given, said = faces.targets[row], results["ce"].audit.suggestion[row]
        axis.imshow(faces.load_image(row).permute(1, 2, 0).numpy())
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"label: {faces.classes[given]}", fontsize=8)
        axis.set_xlabel(
            f"suggested: {faces.classes[said]}\ntruth: {faces.classes[faces.true_targets[row]]}",
            fontsize=8,
        )
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_accuracy(axes: Any, results: dict[str, Result]) -> None:
    for method, one in results.items():
        values = [100 * epoch["accuracy"] for epoch in one.run.history.epochs]
        axes.plot(range(1, len(values) + 1), values, marker=".", label=NAMES[method])
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="accuracy on clean test faces, %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)


def _draw_shares(axes: Any, estimate: TransitionEstimate, faces: LabeledFaces) -> None:
    size, width = len(faces.classes), 0.27
    assert faces.true_targets is not None
    shares = {
        "labels": faces.targets.bincount(minlength=size) / len(faces),
        "truth": faces.true_targets.bincount(minlength=size) / len(faces),
        f"estimated from {int(estimate.counts.sum())} verified faces": estimate.shares,
    }
    colours = ("#b8b8b8", "#4a4a4a", "#2a9d8f")
    for number, ((name, values), colour) in enumerate(zip(shares.items(), colours, strict=True)):
        left = [place + (number - 1) * width for place in range(size)]
        axes.bar(left, (100 * values).numpy(), width=width, label=name, color=colour)
    low, high = estimate.shares - estimate.shares_low, estimate.shares_high - estimate.shares
    ends = (100 * torch.stack((low, high))).numpy()
    heights = (100 * estimate.shares).numpy()
    axes.errorbar(left, heights, yerr=ends, fmt="none", ecolor="black", linewidth=1)
    axes.set_xticks(range(size), faces.classes, rotation=30, fontsize=8)
    axes.set_ylabel("share of the faces, %")
    axes.margins(y=0.3)  # room for the legend
    axes.legend(fontsize=8)


def _draw_attention(grid: Any, results: dict[str, Result], test_set: LabeledFaces) -> None:
    count = grid.shape[1]
    images = torch.stack([test_set.load_image(row) for row in range(count)])
    for axis, image, target in zip(grid[0], images, test_set.targets, strict=False):
        axis.set_title(test_set.classes[target], fontsize=9)
        axis.imshow(image.permute(1, 2, 0).numpy())
    for axes_row, (method, one) in zip(grid[1:], results.items(), strict=True):
        classifier = one.run.classifier.cpu().eval()
        with torch.no_grad():
            output = classifier(SingleView().eval()(images))
        predicted = output.logits.argmax(1)
        maps = output.attention[torch.arange(count), predicted]
        axes_row[0].set_ylabel(NAMES[method].replace(", ", ",\n"), fontsize=8)
        for axis, image, seen, label in zip(axes_row, images, maps, predicted, strict=True):
            frame = (0, 1, 0, 1)
            axis.imshow(image.float().mean(0).numpy(), cmap="gray", extent=frame)
            axis.imshow(
                seen.numpy(), cmap="inferno", alpha=0.55, extent=frame, interpolation="bicubic"
            )
            axis.set_xlabel(f"says {test_set.classes[label]}", fontsize=8)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
