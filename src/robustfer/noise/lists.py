"""Read and write lists of noisy labels in published formats, and apply them to a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import torch
from torch import Tensor

from robustfer._checks import check_choice, check_int64, check_shapes, check_whole_number
from robustfer._inputs import check_ids
from robustfer._tables import NamedOnce
from robustfer.data.classes import class_order, renumber
from robustfer.data.dataset import LabeledFaces, check_faces
from robustfer.data.readers.label_lists import (
    Entry,
    aligned_name,
    read_label_list,
    write_label_list,
)
from robustfer.noise.matching import fitting_order, list_name, match_names, numbers_of

Names = Literal["plain", "aligned"]

_FacesT = TypeVar("_FacesT", bound=LabeledFaces)


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseList:
    """The labels of a list, and its format.

    Attributes:
        path: the file.
        ids: the names in it, with forward slashes, and without the suffix of aligned copies.
        targets: int64 (N), positions in ``classes``.
        classes: names of the classes, in the order of the list's numbers.
        base: the number of the first class, 0 or 1.
        names: ``"aligned"`` if it names aligned copies, ``a_aligned.jpg``, else ``"plain"``.
    """

    path: Path
    ids: tuple[str, ...]
    targets: Tensor
    classes: tuple[str, ...]
    base: int
    names: Names


def read_noise_list(
    path: str | Path,
    *,
    classes: str | Sequence[str] | None = None,
    base: Literal[0, 1] | None = None,
    clean: LabeledFaces | NoiseList | None = None,
) -> NoiseList:
    r"""Read a list of labels, a name and a number per line, in any published format.

    Numbers can start at 1 with plain names (``train_00001.jpg 5``), or at 0 with names of aligned
    copies (``train_00001_aligned.jpg 4``). Whole paths and mixtures are accepted. The base follows
    from a 0 or the largest number, or else from the clean labels.

    Args:
        path: the list.
        classes: the order of the classes, names or a key of :data:`robustfer.data.NUMBERINGS`.
            Default: that of ``clean``, or RAF-DB's.
        base: the number of the first class. Default: detected.
        clean: the labels without noise.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a line has another form, or the numbers fit no base or both.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "noise.txt")
    ...     _ = path.write_text("/faces/train_1_aligned.jpg 0\n/faces/train_2_aligned.jpg 5\n")
    ...     noisy = read_noise_list(path)
    >>> noisy.base, noisy.names, noisy.ids[0][-11:], noisy.classes[noisy.targets[1]]
    (0, 'aligned', 'train_1.jpg', 'anger')
    """
    path = Path(path).expanduser()
    if classes is None:
        classes = "rafdb" if clean is None else clean.classes
    order = class_order(classes)
    if base is not None:
        base = _base(base)
    entries = read_label_list(path)
    names, once = Counter[Names](), NamedOnce(path)
    ids: list[str] = []
    for entry in entries:
        ids.append(list_name(entry.name))
        forward = str(PurePosixPath(entry.name.replace("\\", "/")))
        names["aligned" if aligned_name(ids[-1]) == forward else "plain"] += 1
        once.is_new(entry.line, ids[-1], entry.number)
    numbers = torch.tensor([entry.number for entry in entries], device="cpu")
    if base is None:
        base = _find_base(path, entries, ids, order, clean)
    outside = next((e for e in entries if not 0 <= e.number - base < len(order)), None)
    if outside is not None:
        raise ValueError(
            f"{path}, line {outside.line}: a label must lie in {base} to {base + len(order) - 1}, "
            f"got {outside.number}"
        )
    return NoiseList(
        path=path,
        ids=tuple(ids),
        targets=numbers - base,
        classes=order,
        base=base,
        names=names.most_common(1)[0][0],
    )


def write_noise_list(
    path: str | Path,
    ids: Sequence[str],
    targets: Tensor,
    *,
    names: Names = "plain",
    base: Literal[0, 1] | None = None,
) -> None:
    """Write labels as a list for other programs.

    Args:
        path: the file. It is written whole or not at all.
        ids: names of the samples.
        targets: their labels, int64 (N).
        names: ``"plain"``, or ``"aligned"`` for names of aligned copies.
        base: the number of the first class. Default: 1 with plain names, 0 with aligned ones.

    Raises:
        TypeError: ids are not an ordered sequence of texts.
        ValueError: labels or names could not be read again. Nothing is written then.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "noise.txt")
    ...     write_noise_list(path, ["train_1.jpg"], torch.tensor([4]), names="aligned")
    ...     path.read_text().strip()
    'train_1_aligned.jpg 4'
    """
    check_choice("names", names, ("plain", "aligned"))
    first = int(names == "plain") if base is None else _base(base)
    check_shapes(targets=(targets, "N"))
    check_int64(targets=targets)
    ids = check_ids(ids, count=len(targets))
    if int(targets.min()) < 0:
        row = int(targets.argmin())
        raise ValueError(f"targets must be 0 or more, got {int(targets[row])} for {ids[row]!r}")
    shown = names_in_list(ids, names)
    numbers = (targets + first).tolist()
    write_label_list(Path(path), zip(shown, numbers, strict=True))


def names_in_list(ids: Sequence[str], names: Names = "plain") -> Sequence[str]:
    """Return the names of samples in a list, or raise if two are one name there."""
    shown = ids if names == "plain" else [aligned_name(name) for name in ids]
    known: dict[str, int] = {}
    for row, name in enumerate(shown):
        other = known.setdefault(list_name(name), row)
        if other != row:
            raise ValueError(
                f"ids {ids[other]!r} and {ids[row]!r} are one name in a list of labels; rename one"
            )
    return shown


def with_noise_list(
    dataset: _FacesT,
    path: str | Path,
    *,
    classes: str | Sequence[str] | None = None,
    base: Literal[0, 1] | None = None,
) -> _FacesT:
    r"""Give a data set the labels of a list, with a name and a number per line.

    Numbers can start at 1 with plain names (``train_00001.jpg 5``), or at 0 with names of aligned
    copies (``train_00001_aligned.jpg 4``). Whole paths and mixtures are accepted.

    A name of the list is the id of a sample. Either can have more folders in front: ``1.jpg`` and
    ``train/1.jpg`` match, but ``test/1.jpg`` and ``train/1.jpg`` do not. The list can also name
    other samples, such as those of another split.

    Args:
        dataset: a data set with one class per sample.
        path: the list.
        classes: the order of the classes in the list, names or a key of
            :data:`robustfer.data.NUMBERINGS`. Default: that of the data set.
        base: the number of the first class. Default: detected from the numbers, or from the labels
            of the data set.

    Returns:
        A new data set, whose ``true_targets`` are the labels before.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: ``dataset`` is not one of robustfer's data sets.
        ValueError: a line has another form, numbers or names do not fit, or clearly more labels
            agree in another order of the classes.

    >>> import tempfile
    >>> from robustfer.data import DemoFaces
    >>> faces = DemoFaces(7)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "noise.txt")
    ...     given = [0, *faces.targets.tolist()[1:]]
    ...     lines = (f"{name} {label}\n" for name, label in zip(faces.ids, given))
    ...     _ = path.write_text("".join(lines))
    ...     noisy = with_noise_list(faces, path, base=0)
    >>> faces.targets.tolist(), noisy.targets.tolist()
    ([2, 5, 1, 0, 6, 4, 3], [0, 5, 1, 0, 6, 4, 3])
    """
    check_faces(dataset)
    true = hard_targets(dataset)
    noisy = read_noise_list(path, classes=classes, base=base, clean=dataset)
    rows = match_names(noisy.path, noisy.ids, dataset.ids)
    places = torch.full((len(dataset),), -1, device="cpu")
    known = rows >= 0
    places[rows[known]] = known.nonzero()[:, 0]
    missing = [name for name, place in zip(dataset.ids, places.tolist(), strict=True) if place < 0]
    if missing:
        raise ValueError(
            f"{noisy.path} has no label for {len(missing)} of {len(dataset)} samples, the first "
            f"{missing[0]!r}, but names like {noisy.ids[0]!r}; use the list of this data set"
        )
    given = renumber(noisy.targets[places], source=noisy.classes, target=dataset.classes)
    agree = int((given == true).sum())
    numbers = noisy.targets[places] + noisy.base
    better = fitting_order(numbers, true, dataset.classes, read=(noisy.classes, noisy.base))
    if better is not None:
        raise ValueError(
            f"{noisy.path} differs from the data set in {1 - agree / len(dataset):.0%} of the "
            f"labels: it may have another order of the classes. {better.hint()} For that order "
            f"pass {better.options()}"
        )
    return dataset.with_targets(given)


def hard_targets(labels: LabeledFaces | NoiseList) -> Tensor:
    """Return the labels, and require classes, not probabilities."""
    if labels.targets.ndim != 1:
        raise ValueError(
            "the clean labels are probabilities, expected one class per sample as in the list; "
            "choose such labels"
        )
    return labels.targets


def _find_base(
    path: Path,
    entries: Sequence[Entry],
    ids: Sequence[str],
    order: tuple[str, ...],
    clean: LabeledFaces | NoiseList | None,
) -> Literal[0, 1]:
    least = min(entries, key=lambda entry: entry.number)
    greatest = max(entries, key=lambda entry: entry.number)
    from_0 = greatest.number < len(order)
    from_1 = least.number >= 1 and greatest.number <= len(order)
    if from_0 != from_1:
        return 0 if from_0 else 1
    hint = ""
    if clean is not None:
        rows = match_names(path, ids, clean.ids)
        known = rows >= 0
        true = hard_targets(clean)[rows[known]]
        numbers = torch.tensor([entry.number for entry in entries], device="cpu")[known]
        if from_0:
            places = numbers_of(order, clean.classes)
            agree = [int((places[numbers - base] == true).sum()) for base in (0, 1)]
            if agree[0] != agree[1]:
                return 0 if agree[0] > agree[1] else 1
        elif len(true) and (better := fitting_order(numbers, true, clean.classes)):
            hint = f". {better.hint()} For that order pass {better.options()}"
    if from_0:
        raise ValueError(
            f"{path} has neither 0 nor {len(order)}, so it can count from 0 or from 1; pass base=, "
            "or the clean labels"
        )
    raise ValueError(
        f"{path} counts {len(order)} classes neither from 0 nor from 1: line {least.line} has "
        f"{least.number}, line {greatest.line} has {greatest.number}{hint}"
    )


def _base(base: int) -> Literal[0, 1]:
    return 1 if check_whole_number("base", base, 0, 1) else 0
