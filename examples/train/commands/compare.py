"""Compare several runs on one card, as Markdown and as an HTML page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from examples.train.card.content import make_card
from examples.train.card.differences import find_baselines
from examples.train.card.render import write_card
from examples.train.card.runs import group_runs, read_runs
from examples.train.options import Refused


@dataclass(frozen=True)
class Options:
    """comparison

    Args:
        runs: folders of finished runs, or of several seeds
        baseline: a method, or one of the runs; default: ce if given, else the first run
        output: folder for card.md, card.html and the pictures
    """

    runs: list[str] = field(metadata={"several": True})
    baseline: str | None = None
    output: str = "runs/comparison"


def run(options: Options) -> None:
    """Read the runs, and write their card."""
    folder = Path(options.output).expanduser()
    if folder.exists() and not folder.is_dir():
        raise Refused(f"--output {folder} is a file, expected a folder; choose another name")
    groups = group_runs(read_runs(options.runs))
    card = make_card(groups, find_baselines(groups, options.baseline))
    write_card(folder, card)
    print(f"{len(groups)} settings, {sum(len(g.runs) for g in groups)} runs; {folder}/card.html")
