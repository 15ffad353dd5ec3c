"""Run ``robustfer audit PROBABILITIES | apply``.

:mod:`robustfer.cli` imports this module only to run one of these commands, because it loads torch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from robustfer import _shown
from robustfer._files import check_outputs, write_csv
from robustfer._predictions import Predictions, read_probabilities
from robustfer.audit.decisions import Decisions, read_decisions
from robustfer.audit.duplicates import Duplicates, find_duplicates
from robustfer.audit.page import write_review
from robustfer.audit.ranking import audit
from robustfer.audit.shift import shift_of_shares
from robustfer.data import LabeledFaces
from robustfer.data.readers.label_lists import check_list_names
from robustfer.noise import TransitionEstimate, with_noise_list, write_noise_list
from robustfer.noise.commands import files_read, list_options, load_faces
from robustfer.noise.lists import names_in_list
from robustfer.noise.matching import fitting_order
from robustfer.state import LabelStore


def run(options: argparse.Namespace) -> int:
    """Run the command, and return 0."""
    first, *others = options.what
    if first == "apply":
        if not others:
            raise ValueError("apply needs files of decisions, got none; add FILE")
        return _apply(others, options)
    if others:
        raise ValueError(
            f"audit needs one file of probabilities, got {len(options.what)}; to apply decisions "
            "write: robustfer audit apply FILE"
        )
    return _review(first, options)


def _review(path: str, options: argparse.Namespace) -> int:
    page = options.output or Path("review.html")
    # A page may lie in the folder of the run.
    folder = Path(path).expanduser()
    run = [folder / name for name in ("dynamics.safetensors", "final.safetensors")]
    read = [*files_read(options), *(run if folder.is_dir() else [path])]
    check_outputs({"--output": page, "--ranking": options.ranking, "--pairs": options.pairs}, read)
    if options.pairs is not None and not options.duplicates and options.against is None:
        raise ValueError("--pairs needs --duplicates or --against, got neither; add one")
    faces = _faces(options)
    # A review would be in vain if its decisions could not be written.
    check_list_names(names_in_list(faces.ids))
    transition = None
    if options.decisions:
        transition = _decisions(options.decisions, faces).estimate()
    found = read_probabilities(path).aligned(path, faces.ids, faces.classes)
    rows = found.probabilities
    _check_columns(path, found, faces)
    result = audit(faces.targets, rows, transition=transition, classes=faces.classes, ids=faces.ids)
    if options.ranking is not None:
        result.write(options.ranking)
    duplicates = find_duplicates(faces) if options.duplicates else None
    leaks = _find_leaks(faces, options)
    if options.pairs is not None:
        _write_pairs(options.pairs, faces, duplicates, leaks, options)
    write_review(
        page,
        result,
        faces,
        random=options.random,
        stratified=options.stratified,
        suspects=options.suspects,
        duplicates=duplicates,
        leaks=leaks,
        seed=options.seed,
        title=f"Labels of {options.data.partition(':')[0]}",
    )
    if found.source is not None:
        print(f"predictions: {found.source}")
    if found.given is not None and (other := int((found.given != faces.targets).sum())):
        print(
            f"{path} was trained on other labels: {other} of {len(faces)} differ; if you meant to "
            "audit those, add --list with their file"
        )
    print(result.text())
    unlearnt = [one.name for one in result.table if one.given and not one.agreed]
    if unlearnt:
        print(
            f"the network never agrees with the label {' or '.join(unlearnt)}: it has not learnt "
            "the class, so right labels of it look wrong too; train longer, or from trained weights"
        )
    print(f"fingerprint {result.fingerprint}")
    if duplicates is not None:
        differ = faces.targets[duplicates.first] != faces.targets[duplicates.second]
        print(f"same face twice: {len(differ)} pairs, {int(differ.sum())} with different labels")
    if leaks is not None:
        others, pairs = leaks
        print(f"also in the other split: {len(torch.unique(pairs.first))} faces")
        for row, other in zip(pairs.first[:10].tolist(), pairs.second[:10].tolist(), strict=True):
            print(f"  {faces.ids[row]} and {others.ids[other]}")
        if len(pairs.first) > 10 and options.pairs is None:
            print(f"  and {len(pairs.first) - 10} more pairs; --pairs FILE writes all")
    if options.pairs is not None:
        print(f"pairs: {options.pairs}")
    if options.ranking is not None:
        print(f"ranking: {options.ranking}")
    print(f"page: {page}")
    words = ["robustfer", "audit", "apply", "FILE", *_data_options(options)]
    words += ["--output", str(_new_list())]
    print(f"next: open the page, download the decisions, then {_shown.command(words)}")
    return 0


def _new_list() -> Path:
    """Return a name for the list of corrected labels that does not exist yet."""
    names = (f"corrected{'' if number == 1 else f'-{number}'}.txt" for number in count(1))
    return next(path for path in map(Path, names) if not path.exists())


def _data_options(options: argparse.Namespace) -> list[str]:
    """Return the options that name the labels."""
    given = {"--data": options.data, "--split": options.split if options.split != "train" else None}
    for name in ("list", "base", "order", "classes"):
        given[f"--{name}"] = getattr(options, name)
    known = [(name, str(value)) for name, value in given.items() if value is not None]
    known += [("--reader", f"{name}={value}") for name, value in options.reader]
    return [word for option in known for word in option]


def _check_columns(path: str, found: Predictions, faces: LabeledFaces) -> None:
    """Refuse columns without names that fit the labels clearly better in another order."""
    if found.classes is not None:
        return
    predicted, order = found.probabilities.argmax(dim=1), (faces.classes, 0)
    better = fitting_order(predicted, faces.targets, faces.classes, read=order)
    if better is not None and better.base == 0:
        differ = float((predicted != faces.targets).double().mean())
        raise ValueError(
            f"{path} does not name its columns, and {differ:.1%} of the predictions differ from "
            f"the labels in the order {', '.join(faces.classes)}. {better.hint()} Save the names "
            "with the probabilities: a header in csv, an array 'classes' in npz"
        )


def _apply(paths: list[str], options: argparse.Namespace) -> int:
    output = options.output or Path("corrected.txt")
    if options.output is None and output.exists():
        raise ValueError(f"{output} exists; choose the name of the corrected labels with --output")
    check_outputs({"--output": output}, [*files_read(options), *paths])
    faces = _faces(options)
    decisions = _decisions(paths, faces)
    labels = LabelStore(faces.targets, num_classes=len(faces.classes))
    changed = labels.apply_decisions(decisions)
    decided = int((decisions.label >= 0).sum())
    ambiguous = len(decisions.label) - decided
    print(f"{decided} labels decided, {changed} of them changed, {ambiguous} ambiguous")
    try:
        estimate = decisions.estimate()
    except ValueError as error:  # the labels are written in any case
        print(f"how labels go wrong is unknown: {error}")
    else:
        _show(estimate, decisions, faces)
    # Last: the estimate is printed even if the list cannot be written.
    write_noise_list(output, faces.ids, labels())
    print(f"labels: {output}")
    return 0


def _show(estimate: TransitionEstimate, decisions: Decisions, faces: LabeledFaces) -> None:
    print(f"from {int(estimate.counts.sum())} random faces, with {estimate.level:.0%} intervals:")
    print(estimate.text(faces.classes))
    wrong = [100 * value for value in (estimate.wrong, estimate.wrong_low, estimate.wrong_high)]
    print("wrong labels: {:.0f} % ({:.0f} - {:.0f})".format(*wrong))
    given_counts = decisions.given_counts if decisions.stratified else None
    if given_counts is not None:
        unseen = (given_counts > 0) & (estimate.counts.sum(dim=0) == 0)
        names = [name for name, one in zip(faces.classes, unseen.tolist(), strict=True) if one]
        if names:
            print(
                f"no clear face was verified with the label {', '.join(names)}; how these labels "
                "go wrong is a guess, so label some"
            )
    shift = shift_of_shares(estimate.counts, given_counts=given_counts, level=estimate.level)
    if shift is None:
        print("no wrong label among these faces: a training with the matrix cannot correct any")
    else:
        share, low, high, chance = (f"{100 * value:.0f}" for value in shift)
        print(
            f"{share} % of the wrong labels ({low} - {high}) change the class shares; a training "
            "with the matrix can correct no more"
        )
        print(
            f"the others go both ways between two classes, and cancel out; by chance {chance} % "
            "seem to change the shares"
        )
    print("transition matrix, a row per true class:")
    for name, row in zip(faces.classes, estimate.matrix.tolist(), strict=True):
        print("  ".join([*(f"{share:.3f}" for share in row), name]))


def _faces(options: argparse.Namespace) -> LabeledFaces:
    faces = load_faces(options.data, options)
    if options.list is not None:
        faces = with_noise_list(faces, options.list, **list_options(options))
    if faces.targets.ndim != 1:
        raise ValueError(
            "the labels of the data set are probabilities, expected one class per face; choose "
            "such labels, for example FERPlus's majority: --reader labels=majority"
        )
    return faces


def _find_leaks(
    faces: LabeledFaces, options: argparse.Namespace
) -> tuple[LabeledFaces, Duplicates] | None:
    if options.against is None:
        return None
    split, _, spec = options.against.partition("=")
    if split == options.split and (not spec or _place(spec) == _place(options.data)):
        raise ValueError(
            f"--against must name another split than the audited one, got {split}; use "
            "--duplicates for faces that occur twice in one split"
        )
    others = load_faces(spec or options.data, options, split=split)
    return others, find_duplicates(faces, against=others)


def _place(spec: str) -> tuple[str, str]:
    """Return the kind and the place of a data set, to tell whether two are the same."""
    kind, _, path = spec.partition(":")
    return kind, os.path.realpath(Path(path).expanduser())


def _write_pairs(
    path: Path,
    faces: LabeledFaces,
    duplicates: Duplicates | None,
    leaks: tuple[LabeledFaces, Duplicates] | None,
    options: argparse.Namespace,
) -> None:
    """Write all pairs, most similar first. ``split`` is that of the other face."""
    header = ("id", "label", "split", "other_id", "other_label", "similarity")
    found = [(options.split, faces, duplicates)]
    if leaks is not None:
        found.append((options.against.partition("=")[0], *leaks))
    rows = [
        (*_named(faces, row), split, *_named(others, other), f"{alike:.4f}")
        for split, others, pairs in found
        for row, other, alike in zip(*map(Tensor.tolist, pairs or ()), strict=True)
    ]
    write_csv(path, header, rows)


def _named(faces: LabeledFaces, row: int) -> tuple[str, str]:
    """Return the name and the label of a face, or the most probable one."""
    label = faces.targets[row]
    return faces.ids[row], faces.classes[int(label if label.ndim == 0 else label.argmax())]


def _decisions(paths: Sequence[str | Path], faces: LabeledFaces) -> Decisions:
    """Read the decisions of all files, and print for how many faces two files differ."""
    read = partial(read_decisions, given=faces.targets, classes=faces.classes, ids=faces.ids)
    said: dict[int, set[int]] = {}
    for one in map(read, paths if len(paths) > 1 else ()):
        for row, label in zip(one.index.tolist(), one.label.tolist(), strict=True):
            said.setdefault(row, set()).add(label)
    differ = sum(len(labels) > 1 for labels in said.values())
    if differ:
        print(
            f"different decisions in two files: {differ} of {len(said)} faces, which count as "
            "ambiguous; if you changed your mind, pass only your newest file"
        )
    return read(paths)
