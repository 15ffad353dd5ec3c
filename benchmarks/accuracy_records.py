"""Keep what the runs of ``benchmarks/accuracy.py`` predict, in a folder that git ignores.

Later measurements read these records: a second training, and ``benchmarks/label_errors.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.train.predictions import PREDICTIONS
from examples.train.recording import DYNAMICS, FINAL
from robustfer.data import LabeledFaces

FOLDER = Path(__file__).parents[1] / "runs" / "accuracy"
NETWORKS = "training.safetensors"


def folder_of(own: Mapping[str, Any]) -> Path:
    """Return the folder of a run's record, by its identity."""
    text = json.dumps(own, sort_keys=True)
    return FOLDER / blake2b(text.encode(), digest_size=8).hexdigest()


def keep(run: Path, faces: LabeledFaces, own: Mapping[str, Any], **found: Tensor) -> None:
    """Save a run's predictions.

    Args:
        run: folder of the run, from which the record of all visits is copied.
        faces: the training set.
        own: identity of the run.
        found: ``last`` and ``ema``: predictions for the training faces by the last and the averaged
            weights. ``judged``: mirrored predictions for the evaluation faces by the averaged
            weights.
    """
    folder = folder_of(own)
    folder.mkdir(parents=True, exist_ok=True)
    record = load_file(run / DYNAMICS)
    found |= {"given": faces.targets, "mean": record["mean"], "early": record["early_mean"]}
    if faces.true_targets is not None:
        found["true"] = faces.true_targets
    save_file({k: v.contiguous() for k, v in found.items()}, folder / NETWORKS)
    for name in (PREDICTIONS, DYNAMICS, FINAL):
        shutil.copy(run / name, folder)
    (folder / "identity.json").write_text(json.dumps(own, sort_keys=True))


def read(own: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the record of a run's visits and its predictions, or ``None`` if it was not kept."""
    folder = folder_of(own)
    if not (folder / DYNAMICS).exists():
        return None
    return {**load_file(folder / DYNAMICS), **load_file(folder / NETWORKS)}
