"""The command ``robustfer-mediapipe``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from robustfer_mediapipe import __version__
from robustfer_mediapipe.collect import Summary, collect
from robustfer_mediapipe.mesh import FaceMesh

#: Names of unreadable images that are printed.
SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process, and return the exit status.

    The status is 0 for success, 1 if an image could not be read or nothing was written, 2 for wrong
    arguments, and 130 after an interrupt.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    folder, output = options.folder.expanduser(), options.output.expanduser()
    if not folder.is_dir():
        parser.error(f"FOLDER must be a folder of images, got {folder}")
    if output.suffix != ".npz":
        parser.error(f"OUTPUT must end in .npz, got {output}")
    if not output.parent.is_dir():
        parser.error(f"the folder {output.parent} of OUTPUT does not exist")
    try:
        summary = collect(
            folder,
            output,
            partial(FaceMesh, margin=options.margin, confidence=options.confidence),
            _settings(margin=options.margin, confidence=options.confidence),
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"robustfer-mediapipe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"robustfer-mediapipe: {stop or 'stopped'}", file=sys.stderr)
        return 130
    _report(summary, output)
    return 1 if summary.unreadable else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="robustfer-mediapipe",
        description="Find 68 landmarks of the face in each image below FOLDER, and write them to "
        "OUTPUT for robustfer's LandmarkFile. Run it again to continue after a stop, or to add new "
        "and changed images.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="images, or folders of images")
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="a file, .npz")
    parser.add_argument(
        "--margin",
        type=partial(_between, 0.0, 4.0),
        default=0.25,
        help="extend each side of an image by this share of its size, because the detector expects "
        "something around a face (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=partial(_between, 0.0, 1.0),
        default=0.5,
        help="least confidence of the detector in a face (default: %(default)s)",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _between(low: float, high: float, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}, got {text!r}")
    return value


def _settings(**options: float) -> dict[str, object]:
    return {
        "robustfer-mediapipe": __version__,
        "mediapipe": version("mediapipe"),
        "layout": "ibug-68",
        **options,
    }


def _report(summary: Summary, output: Path) -> None:
    share = summary.faces / summary.images
    print(
        f"{output}: {summary.images} images, {summary.new} of them new; a face in {summary.faces} "
        f"({share:.1%})"
    )
    if summary.unreadable:
        print(f"{len(summary.unreadable)} images cannot be read:", file=sys.stderr)
        for name, reason in list(summary.unreadable.items())[:SHOWN]:
            print(f"  {name}: {reason}", file=sys.stderr)
        if len(summary.unreadable) > SHOWN:
            print(f"  and {len(summary.unreadable) - SHOWN} more", file=sys.stderr)
