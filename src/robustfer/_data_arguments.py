"""Define the arguments of ``robustfer noise`` and ``robustfer audit``, without importing torch."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from ast import literal_eval
from pathlib import Path
from typing import Any, get_args

from robustfer._names import DATA_SETS, NOISE_MODELS, NUMBERINGS, NoiseVariant

SPECS = ", ".join(kind if kind == "demo" else f"{kind}:PATH" for kind in DATA_SETS)


def add_noise_actions(parser: ArgumentParser) -> None:
    """Add the actions ``make``, ``show`` and ``verify``. ``options.action`` is the chosen one."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    make = actions.add_parser("make", help="write a list of noisy labels")
    make.add_argument("data", metavar="DATA", help=SPECS)
    make.add_argument("--rate", type=float, help="share of the samples to draw, from 0 to 1")
    _add_number(make, "--seed", 0, "seed of the noise")
    models = "; ".join(f"{name}: {words}" for name, words in NOISE_MODELS.items())
    make.add_argument("--model", choices=NOISE_MODELS, default="symmetric", help=models)
    make.add_argument(
        "--variant",
        choices=get_args(NoiseVariant),
        default="exact",
        help="exact: draw exactly this share; bernoulli: draw each sample with this probability; "
        "official: draw as LA-Net's public program does",
    )
    make.add_argument(
        "--profile",
        metavar="PROFILE",
        help="with --model profile: fer2013, or a file that show --save-profile wrote",
    )
    _add_probabilities(make)
    _add_file(make, "--output", "the list", required=True)
    make.add_argument(
        "--names",
        choices=["plain", "aligned"],
        default="plain",
        help="names in the list: a.jpg, or a_aligned.jpg",
    )
    _add_base(
        make,
        "--base",
        "number of the first class; default: 1 with plain names, 0 with aligned ones",
    )

    show = actions.add_parser("show", help="compare given labels with the true ones")
    show.add_argument("data", metavar="DATA", help=SPECS)
    _add_file(show, "--list", "the given labels, as a list")
    show.add_argument(
        "--crowd",
        action="store_true",
        help="compare the labels of single people with the majority (data with votes)",
    )
    saved = "write the noise as a profile for make --model profile (JSON, only sums over samples)"
    _add_file(show, "--save-profile", saved)
    _add_probabilities(show)

    verify = actions.add_parser("verify", help="compare a list with the clean labels")
    verify.add_argument("list", type=Path, metavar="LIST")
    verify.add_argument(
        "--clean", required=True, metavar="DATA", help=f"the clean labels: {SPECS}; or a list"
    )
    _add_base(verify, "--clean-base", "number of the first class in a list of clean labels")

    for action in (make, show, verify):
        _add_data_options(action)
        _add_file(action, "--picture", "write a picture of the matrix")
    for action in (show, verify):
        _add_reading_options(action)


def add_audit(parser: ArgumentParser) -> None:
    """Add the arguments of ``robustfer audit``."""
    parser.usage = (
        "robustfer audit PROBABILITIES --data DATA [options]\n"
        "       robustfer audit apply DECISIONS [DECISIONS ...] --data DATA [options]"
    )
    parser.description = (
        "Rank the labels of a data set by how wrong they look, and write a page to review them. "
        "Then 'robustfer audit apply' writes the corrected labels, and says how labels go wrong. "
        "Give both the same options of the data."
    )
    parser.add_argument(
        "what",
        nargs="+",
        metavar="PROBABILITIES",
        help="predictions for the data set: an npz, csv or safetensors file, or the folder of a "
        "run with dynamics.safetensors; or the word apply, then the csv files of all reviewers",
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=SPECS)
    _add_data_options(parser)
    _add_file(parser, "--list", "the given labels, as a list")
    _add_reading_options(parser)
    _add_file(
        parser,
        "--output",
        "the page (default: review.html); with apply: the list of corrected labels (default: "
        "corrected.txt, which must not exist)",
    )
    _add_file(parser, "--ranking", "write the ranking as csv")
    earlier = "decisions of an earlier review, which improve the ranking; repeat for each file"
    _add_file(parser, "--decisions", earlier, action="append", default=[])
    parser.add_argument(
        "--duplicates", action="store_true", help="also find faces that occur twice"
    )
    parser.add_argument(
        "--against",
        metavar="SPLIT[=DATA]",
        help="also find faces that another split has too, such as test, or test=rafdb:PATH",
    )
    _add_file(parser, "--pairs", "write all pairs of --duplicates and --against as csv")
    _add_number(parser, "--random", 100, "random faces to label blind")
    parser.add_argument(
        "--stratified",
        action=BooleanOptionalAction,
        default=True,
        help="draw equally many random faces of each given label",
    )
    _add_number(parser, "--suspects", 500, "suspicious labels to show")
    _add_number(parser, "--seed", 0, "seed of the draw of random faces")


def _add_file(parser: ArgumentParser, name: str, meaning: str, **options: Any) -> None:
    parser.add_argument(name, type=Path, metavar="FILE", help=meaning, **options)


def _add_number(parser: ArgumentParser, name: str, default: int, meaning: str) -> None:
    what = f"{meaning} (default: {default})"
    parser.add_argument(name, type=int, default=default, metavar="NUMBER", help=what)


def _add_probabilities(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--probabilities",
        metavar="FILE",
        help="the classes that each sample resembles: an npz, csv or safetensors file with "
        "predictions of a network that did not train on it; or the word votes (data with votes)",
    )


def _add_base(parser: ArgumentParser, name: str, meaning: str) -> None:
    parser.add_argument(name, type=int, choices=[0, 1], help=meaning)


def _add_data_options(parser: ArgumentParser) -> None:
    """Add the options that say how to read a data set."""
    parser.add_argument(
        "--split", default="train", help="train, validation, test, or all for data without splits"
    )
    parser.add_argument(
        "--reader",
        action="append",
        type=_option,
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the data set's reader, such as labels=fer2013; repeat for each option",
    )
    parser.add_argument(
        "--classes", choices=NUMBERINGS, help="data set whose order of the classes to use"
    )


def _option(text: str) -> tuple[str, Any]:
    """Read ``OPTION=VALUE``. The value is a Python literal, or else text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"must be OPTION=VALUE, got {text!r}")
    try:
        return name, literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _add_reading_options(parser: ArgumentParser) -> None:
    """Add the options that say how to read a list of labels."""
    _add_base(parser, "--base", "number of the first class in the list")
    parser.add_argument(
        "--order", choices=NUMBERINGS, help="data set whose order of the classes the list uses"
    )
