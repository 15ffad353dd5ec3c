"""The arguments of ``robustfer noise make | show | verify``, read without torch."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from ast import literal_eval
from pathlib import Path
from typing import Any, get_args

from robustfer._names import DATA_SETS, NOISE_MODELS, NUMBERINGS, NoiseVariant

SPECS = ", ".join(kind if kind == "demo" else f"{kind}:PATH" for kind in DATA_SETS)


def add_actions(parser: ArgumentParser) -> None:
    """Add ``make``, ``show`` and ``verify``; ``options.action`` says which was given."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    data, reading = data_options(), reading_options()
    picture = ArgumentParser(add_help=False)
    picture.add_argument("--picture", type=Path, metavar="FILE", help="draw the matrix here")

    make = actions.add_parser("make", help="write a list of noisy labels", parents=[data, picture])
    make.add_argument("data", metavar="DATA", help=SPECS)
    make.add_argument("--rate", type=float, required=True, help="share of the samples to draw")
    make.add_argument("--seed", type=int, default=0)
    models = "; ".join(f"{name}: {words}" for name, words in NOISE_MODELS.items())
    make.add_argument("--model", choices=NOISE_MODELS, default="symmetric", help=models)
    make.add_argument(
        "--variant",
        choices=get_args(NoiseVariant),
        default="exact",
        help="exact: this share of the samples; bernoulli: each sample by itself; official: as "
        "LA-Net's program",
    )
    make.add_argument("--output", type=Path, required=True, metavar="FILE", help="the list")
    make.add_argument(
        "--names", choices=["plain", "aligned"], default="plain", help="a.jpg or a_aligned.jpg"
    )
    make.add_argument(
        "--base", type=int, choices=[0, 1], help="count from; default: 1 plain, 0 aligned"
    )

    show = actions.add_parser(
        "show",
        help="compare given labels with the true ones",
        parents=[data, reading, picture],
    )
    show.add_argument("data", metavar="DATA", help=SPECS)
    show.add_argument("--list", type=Path, metavar="FILE", help="the given labels, as a list")
    show.add_argument(
        "--crowd",
        action="store_true",
        help="compare what single people saw with the majority (data with votes)",
    )

    verify = actions.add_parser(
        "verify", help="compare a list with the clean labels", parents=[data, reading, picture]
    )
    verify.add_argument("list", type=Path, metavar="LIST")
    verify.add_argument(
        "--clean", required=True, metavar="DATA", help=f"the clean labels: {SPECS}; or a list"
    )
    verify.add_argument(
        "--clean-base", type=int, choices=[0, 1], help="what a list of clean labels counts from"
    )


def data_options() -> ArgumentParser:
    """Return the options that say how to read a data set."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument(
        "--split", default="train", help="train, validation, test, or all where there are none"
    )
    parser.add_argument(
        "--reader",
        action="append",
        type=_option,
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the data set's reader, such as labels=fer2013; repeat for each",
    )
    parser.add_argument("--classes", choices=NUMBERINGS, help="the order to count classes in")
    return parser


def _option(text: str) -> tuple[str, Any]:
    """Read ``OPTION=VALUE``; a value is a Python literal, or else text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"must be OPTION=VALUE, got {text!r}")
    try:
        return name, literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def reading_options() -> ArgumentParser:
    """Return the options that say how to read a list of labels."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--base", type=int, choices=[0, 1], help="what the list counts from")
    parser.add_argument(
        "--order", choices=NUMBERINGS, help="the order in which the list counts the classes"
    )
    return parser
