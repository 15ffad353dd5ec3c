"""``robustfer noise make | show | verify``: noisy labels from the command line.

Its own module, which :mod:`robustfer.cli` imports only when one of these commands is given: it
loads torch, and listing losses must not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from robustfer.data.classes import NUMBERINGS
from robustfer.data.dataset import LabeledFaces
from robustfer.data.loading import KINDS, load
from robustfer.data.readers.ferplus import Labels
from robustfer.noise.lists import (
    NoiseList,
    read_noise_list,
    with_noise_list,
    write_noise_list,
)
from robustfer.noise.matching import match_names
from robustfer.noise.matrices import (
    LANET_CONFUSIONS,
    confusion_counts,
    crowd_counts,
    noise_matrix,
    transition_matrix,
    without_diagonal,
)
from robustfer.noise.models import Variant, with_class_noise, with_symmetric_noise
from robustfer.noise.report import NoiseReport, draw_noise, fingerprint, noise_report
from robustfer.noise.verification import verify_noise_list

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

_SPECS = ", ".join(kind if kind == "demo" else f"{kind}:PATH" for kind in KINDS)
_MODELS = {
    "symmetric": "every other class alike",
    "symmetric-included": "every class alike, the true one too",
    "lanet": "the confusions of LA-Net's protocol",
    "crowd": "as single people disagree with the majority (data with votes)",
}


def run(arguments: Sequence[str]) -> int:
    """Run the command with what follows ``robustfer noise``; 0, or 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="robustfer noise", description="Make, show and verify noisy labels."
    )
    add_parser(parser.add_subparsers(required=True, metavar="ACTION"))
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except BrokenPipeError:
        raise  # nobody reads on: robustfer.cli sees to it
    except (OSError, ImportError, ValueError) as error:
        print(f"robustfer: {error}", file=sys.stderr)
        return 1
    return status


def add_parser(actions: Commands) -> None:
    """Add the parsers of ``make``, ``show`` and ``verify``."""
    make = actions.add_parser("make", help="write a list of noisy labels")
    make.add_argument("data", metavar="DATA", help=_SPECS)
    _add_data_options(make)
    make.add_argument("--rate", type=float, required=True, help="share of the samples to draw")
    make.add_argument("--seed", type=int, default=0)
    models = "; ".join(f"{name}: {words}" for name, words in _MODELS.items())
    make.add_argument("--model", choices=_MODELS, default="symmetric", help=models)
    make.add_argument(
        "--variant",
        choices=get_args(Variant),
        default="exact",
        help="exact: so many samples; bernoulli: each for itself; official: as LA-Net's program",
    )
    make.add_argument("--output", type=Path, required=True, metavar="FILE", help="the list")
    make.add_argument(
        "--names", choices=["plain", "aligned"], default="plain", help="a.jpg or a_aligned.jpg"
    )
    make.add_argument(
        "--base", type=int, choices=[0, 1], help="count from; default: 1 plain, 0 aligned"
    )
    _add_picture(make)
    make.set_defaults(run=_make)

    show = actions.add_parser("show", help="compare given labels with the true ones")
    show.add_argument("data", metavar="DATA", help=_SPECS)
    _add_data_options(show)
    show.add_argument("--list", type=Path, metavar="FILE", help="the given labels, as a list")
    show.add_argument(
        "--crowd",
        action="store_true",
        help="compare what single people saw with the majority (data with votes)",
    )
    _add_reading(show)
    _add_picture(show)
    show.set_defaults(run=_show)

    verify = actions.add_parser("verify", help="hold a list against the clean labels")
    verify.add_argument("list", type=Path, metavar="LIST")
    verify.add_argument(
        "--clean", required=True, metavar="DATA", help=f"the clean labels: {_SPECS}; or a list"
    )
    _add_data_options(verify)
    verify.add_argument(
        "--clean-base", type=int, choices=[0, 1], help="what a list of clean labels counts from"
    )
    _add_reading(verify)
    _add_picture(verify)
    verify.set_defaults(run=_verify)


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split", default="train", help="train, validation, test, or all where there are none"
    )
    parser.add_argument("--labels", choices=[*get_args(Labels), "label"], help="what a label is")
    parser.add_argument("--fer2013-labels", type=Path, metavar="FILE", help="ferplus: this csv")
    parser.add_argument("--num-classes", type=int, choices=[7, 8])
    parser.add_argument("--numbers", choices=NUMBERINGS, help="folder, table: what numbers mean")
    parser.add_argument("--duplicates", choices=["error", "drop"])
    parser.add_argument("--classes", choices=NUMBERINGS, help="the order to count classes in")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=int, choices=[0, 1], help="what the list counts from")
    parser.add_argument(
        "--order", choices=NUMBERINGS, help="the order in which the list counts the classes"
    )


def _add_picture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the matrix here")


def _make(options: argparse.Namespace) -> int:
    dataset = _load(options.data, options)
    how = {"rate": options.rate, "seed": options.seed, "variant": options.variant}
    if options.model in ("symmetric", "symmetric-included"):
        noisy = with_symmetric_noise(
            dataset,
            true_class="excluded" if options.model == "symmetric" else "included",
            **how,
        )
    else:
        if options.model == "lanet":
            matrix = noise_matrix(LANET_CONFUSIONS, dataset.classes)
        else:
            matrix = without_diagonal(transition_matrix(_crowd(dataset).counts))
        noisy = with_class_noise(dataset, matrix=matrix, **how)
    write_noise_list(
        options.output, noisy.ids, noisy.targets, names=options.names, base=options.base
    )
    # Against the labels before, which may be noisy themselves and have true_targets of their own.
    counts = confusion_counts(noisy.targets, dataset.targets, num_classes=len(dataset.classes))
    report = NoiseReport(classes=dataset.classes, counts=counts)
    _show_report(report, options, f"{options.model}, rate {options.rate:g}")
    print(f"fingerprint {fingerprint(noisy.ids, noisy.targets, noisy.classes)}")
    print(f"written to {options.output}")
    return 0


def _show(options: argparse.Namespace) -> int:
    dataset = _load(options.data, options)
    if options.crowd:
        _show_report(_crowd(dataset), options, "single people against the majority")
        return 0
    if options.list is not None:
        dataset = with_noise_list(dataset, _read(options, dataset))
    report = noise_report(dataset)
    print(f"{dataset.summary()}\n")
    _show_report(report, options, f"{100 * report.rate:.1f} % of {report.samples} labels differ")
    print(f"fingerprint {fingerprint(dataset.ids, dataset.targets, dataset.classes)}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    if options.clean.partition(":")[0] not in KINDS:
        labels = read_noise_list(options.clean, base=options.clean_base, classes=options.classes)
        report = verify_noise_list(_read(options, labels), labels)
    else:
        dataset = _load(options.clean, options)
        noisy = _read(options, dataset)
        splits, missing = _other_splits(noisy, dataset, options)
        report = verify_noise_list(noisy, dataset, other_splits=splits)
        if report.problems:
            report = replace(report, notes=(*report.notes, *missing))
    _show_report(report, options, f"{options.list.name}: {100 * report.rate:.1f} % differ")
    return 1 if report.problems else 0


def _read(options: argparse.Namespace, clean: LabeledFaces | NoiseList) -> NoiseList:
    return read_noise_list(options.list, base=options.base, classes=options.order, clean=clean)


def _other_splits(
    noisy: NoiseList, dataset: LabeledFaces, options: argparse.Namespace
) -> tuple[list[LabeledFaces], list[str]]:
    """The splits whose labels a list must leave as they are, and why one could not be read."""
    splits: list[LabeledFaces] = []
    missing: list[str] = []
    if options.split == "all" or not bool(
        (match_names(noisy.path, noisy.ids, dataset.ids) < 0).any()
    ):
        return splits, missing
    for split in ("validation", "test"):
        if split == options.split:
            continue
        try:
            splits.append(_load(options.clean, options, split=split))
        except ValueError:  # the data set has no such split
            pass
        except OSError as error:
            missing.append(f"not compared with the split {split}: {error}")
    return splits, missing


def _load(spec: str, options: argparse.Namespace, *, split: str | None = None) -> LabeledFaces:
    wanted: Any = options.split if split is None else split
    return load(
        spec,
        split=None if wanted == "all" else wanted,
        labels=options.labels,
        fer2013_labels=options.fer2013_labels,
        num_classes=options.num_classes,
        numbers=options.numbers,
        duplicates=options.duplicates,
        classes=options.classes,
    )


def _crowd(dataset: LabeledFaces) -> NoiseReport:
    if dataset.votes is None:
        raise ValueError("the data set has no votes of several people")
    counts = crowd_counts(dataset.votes)
    if not int(counts.sum()):
        raise ValueError("no face of the data set has more than half of its votes for one class")
    notes = ("counted are votes, not faces",)
    return NoiseReport(classes=dataset.classes, counts=counts, notes=notes)


def _show_report(report: NoiseReport, options: argparse.Namespace, title: str) -> None:
    print(report.text())
    if options.picture is not None:
        draw_noise(report, options.picture, title=title)
        print(f"picture: {options.picture}")
