"""Name the runs whose predictions a run takes, and count what they cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from examples.train.options import FREE, Settings
from examples.train.run_folder import RECORD
from examples.train.trained import read_record

UNITS = ("steps", "passes")

# Each seed can have its own. The labels that follow from them are compared by their fingerprint.
_OF_A_SEED = {"seed", "noise_seed", "verified_seed"}


def earlier_runs(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the run whose predictions each option takes: its name, and its cost in all.

    Runs that differ only in their seeds have one name. Files of other programs are left out.

    Raises:
        Refused: the ``run.json`` of a run is damaged.
    """
    kind, _, source = getattr(settings.own, "transition", "").partition(":")
    places = {
        "first": getattr(settings.own, "first", ""),
        "transition": source if kind == "predictions" else "",
    }
    found = {}
    for option, place in places.items():
        path = Path(place).expanduser()
        folder = path if path.is_dir() else path.parent
        if not place or not (folder / RECORD).is_file():
            continue
        record = read_record(folder)
        own, before = cost(record), earlier_cost(record)
        found[option] = {
            "run": "/".join([_name(record), *([] if path.is_dir() else [path.name])]),
            **{unit: own[unit] + before[unit] for unit in UNITS},
        }
    return found


def cost(record: Mapping[str, Any]) -> dict[str, int]:
    """Return the steps of a run, and the images that passed through the network in training."""
    steps = int(record["steps_per_epoch"]) * len(record["epochs"])
    passes = steps * int(record["settings"]["batch_size"]) * int(record["passes"])
    return {"steps": steps, "passes": passes}


def earlier_cost(record: Mapping[str, Any]) -> dict[str, int]:
    """Return the cost of the runs before a run."""
    return {
        unit: sum(int(one[unit]) for one in record.get("earlier", {}).values()) for unit in UNITS
    }


def with_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run that decide its result, with the names of earlier runs."""
    settings = {name: value for name, value in record["settings"].items() if name not in FREE}
    return settings | {name: one["run"] for name, one in record.get("earlier", {}).items()}


def _name(record: Mapping[str, Any]) -> str:
    settings = {k: v for k, v in with_names(record).items() if k not in _OF_A_SEED}
    text = json.dumps(settings, sort_keys=True)
    return f"{settings['method']}-{blake2b(text.encode(), digest_size=4).hexdigest()}"
