"""Report how noisy labels differ from true ones: as text, a picture, and a fingerprint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from robustfer._checks import check_class_index, check_int64, check_shapes
from robustfer._files import write_whole
from robustfer._inputs import check_ids, name_bytes
from robustfer.data.dataset import LabeledFaces, check_one_class
from robustfer.metrics import confusion_matrix
from robustfer.noise.matrices import transition_matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseReport:
    """The differences between given and true labels.

    Attributes:
        classes: names of the classes.
        counts: int64 (C, C), a row per true class, a column per given class.
        problems: problems of a list, one line each.
        notes: further remarks, one line each.
    """

    classes: tuple[str, ...]
    counts: Tensor
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Number of labels compared."""
        return int(self.counts.sum())

    @property
    def changed(self) -> int:
        """Number of labels that differ."""
        return self.samples - int(self.counts.diagonal().sum())

    @property
    def rate(self) -> float:
        """Share of the labels that differ.

        Raises:
            ValueError: the report counts no label.
        """
        if not self.samples:
            raise ValueError("counts must count at least one label, got none")
        return self.changed / self.samples

    @property
    def matrix(self) -> Tensor:
        """Probability of each given class for each true class: float64 (C, C)."""
        return transition_matrix(self.counts)

    def text(self) -> str:
        """Return a table: the rate, the matrix in per cent, and the counts of each class.

        >>> import torch
        >>> given, true = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
        >>> counts = confusion_matrix(given, true, num_classes=2)
        >>> print(NoiseReport(classes=("sad", "glad"), counts=counts).text())
        1 of 3 labels differ from the true ones: 33.33 %
        <BLANKLINE>
        per cent of a row; rows: true label, columns: given label
               sad  glad   true  given  differ
         sad 100.0   0.0      1      2   0.0 %
        glad  50.0  50.0      2      1  50.0 %
        """
        width = max(map(len, self.classes))
        cell = max(6, *(len(name) + 1 for name in self.classes))
        names = "".join(f"{name:>{cell}}" for name in self.classes)
        lines = [
            f"{self.changed} of {self.samples} labels differ from the true ones: "
            f"{100 * self.rate:.2f} %",
            "",
            "per cent of a row; rows: true label, columns: given label",
            f"{'':{width}}{names}   true  given  differ",
        ]
        true, given = self.counts.sum(dim=1).tolist(), self.counts.sum(dim=0).tolist()
        for row, name in enumerate(self.classes):
            shares = "".join(f"{100 * share:{cell}.1f}" for share in self.matrix[row].tolist())
            wrong = 100 * (1 - float(self.matrix[row, row]))
            lines.append(f"{name:>{width}}{shares}{true[row]:7}{given[row]:7}{wrong:6.1f} %")
        if self.notes or self.problems:
            lines.append("")
        lines += [*self.notes, *(f"PROBLEM: {problem}" for problem in self.problems)]
        return "\n".join(lines)

    def plot(self, path: str | Path, *, title: str = "") -> None:
        """Plot the matrix with rows in per cent.

        Args:
            path: the file. Its suffix gives the format. It is written whole or not at all.
            title: a line above the matrix.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: matplotlib cannot write this format.
            OSError: the file cannot be written.
        """
        kind = picture_format(path)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names, shares = self.classes, 100 * self.matrix
        side = 1.8 + 0.62 * len(names)
        figure = Figure(figsize=(side + 1.3, side - 0.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        shown = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        counts = self.counts.sum(dim=1).tolist()
        rows = [f"{name} ({n})" for name, n in zip(names, counts, strict=True)]
        axes.set_yticks(range(len(names)), rows)
        axes.set(xlabel="given label", ylabel="true label (number)", title=title)
        for row, values in enumerate(shares.tolist()):
            for column, share in enumerate(values):
                color = "white" if share > 55 else "black"
                axes.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=9, color=color
                )
        figure.colorbar(shown, label="per cent of the row", shrink=0.8)
        write_whole(Path(path), lambda file: figure.savefig(file, format=kind, dpi=110))


def noise_report(dataset: LabeledFaces) -> NoiseReport:
    """Compare the labels of a data set with its ``true_targets``.

    Raises:
        ValueError: the data set has no ``true_targets``, or its labels are probabilities.

    >>> from robustfer.data import DemoFaces
    >>> from robustfer.noise import with_symmetric_noise
    >>> report = noise_report(with_symmetric_noise(DemoFaces(num_samples=70), rate=0.3, seed=0))
    >>> report.changed, report.samples
    (21, 70)
    """
    check_one_class(dataset)
    if dataset.true_targets is None:
        raise ValueError("dataset has no true_targets, so its label noise cannot be measured")
    num_classes = len(dataset.classes)
    counts = confusion_matrix(dataset.targets, dataset.true_targets, num_classes=num_classes)
    return NoiseReport(classes=dataset.classes, counts=counts)


def fingerprint(ids: Sequence[str], targets: Tensor, classes: Sequence[str]) -> str:
    """Return a short text that identifies the labels of a set of samples.

    Two sets have the same fingerprint only if each sample has the same class in both. The order of
    samples and of classes does not matter. Publish it with a result, so that others can check that
    they have the same noise.

    Raises:
        TypeError: ids are not an ordered sequence of texts.
        ValueError: there is not one label per name, or a label is outside the classes.

    >>> import torch
    >>> fingerprint(["a", "b"], torch.tensor([0, 1]), ["sad", "glad"])
    'f16b1f11bc8d'
    >>> fingerprint(["b", "a"], torch.tensor([0, 1]), ["glad", "sad"])
    'f16b1f11bc8d'
    """
    check_shapes(targets=(targets, "N"))
    check_int64(targets=targets)
    check_class_index(len(classes), targets=targets)
    names = check_ids(ids, count=len(targets))
    labels = (classes[target] for target in targets.tolist())
    lines = sorted(map(_line, names, labels))
    return sha256(b"\n".join(map(name_bytes, lines))).hexdigest()[:12]


def _line(name: str, label: str) -> str:
    """Return one line for a sample. No other name and label have the same line."""
    if any(mark in name or mark in label for mark in "\t\n"):
        # JSON escapes tabs and line breaks, so this line has no tab and every other line has one.
        return json.dumps([name, label])
    return f"{name}\t{label}"


def picture_format(path: str | Path) -> str:
    """Return the format of a picture by the suffix of its name, such as ``"png"``."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        text = "a picture needs matplotlib: pip install 'robustfer[examples]'"
        raise ImportError(text) from error
    ending = Path(path).suffix.lower().removeprefix(".")
    known = FigureCanvasAgg.get_supported_filetypes()
    if ending not in known:
        raise ValueError(f"path must end in one of .{', .'.join(sorted(known))}, got {path}")
    return ending
