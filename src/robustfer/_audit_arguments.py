"""The arguments of ``robustfer audit``, read without torch."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from robustfer._noise_arguments import SPECS, data_options, reading_options

DESCRIPTION = (
    "Rank the labels of a data set by how wrong they look, and write a page to look at them. "
    "After that, 'robustfer audit apply DECISIONS' writes the labels that people decided on, and "
    "says how labels go wrong."
)


def parents() -> list[ArgumentParser]:
    """Return the options of the data set and of a list of its labels."""
    return [data_options(), reading_options()]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the other arguments."""
    parser.add_argument(
        "what",
        nargs="+",
        metavar="PROBABILITIES",
        help="predictions of the data set: an npz, csv or safetensors file, or the folder of a run "
        "with dynamics.safetensors; or the word apply, and the csv files of all reviewers",
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=SPECS)
    parser.add_argument("--list", type=Path, metavar="FILE", help="the given labels, as a list")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: review.html); with apply the list of labels (default: labels.txt)",
    )
    parser.add_argument("--ranking", type=Path, metavar="FILE", help="write the ranking as csv")
    parser.add_argument(
        "--verified",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="decisions of an earlier review: with them the ranking is better; repeat for each",
    )
    parser.add_argument(
        "--duplicates", action="store_true", help="also look for the same face twice"
    )
    parser.add_argument(
        "--against",
        metavar="SPLIT[=DATA]",
        help="also look for faces that are in another split too, such as test, or test=rafdb:PATH",
    )
    parser.add_argument("--random", type=int, default=100, help="faces to label blind")
    parser.add_argument(
        "--stratified", action="store_true", help="as many random faces of each given label"
    )
    parser.add_argument("--suspects", type=int, default=500, help="suspicious labels to show")
    parser.add_argument("--seed", type=int, default=0, help="of the random faces")
