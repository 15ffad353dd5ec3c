"""Small trainings by the program itself, in this process or in several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from examples.train.engine import train
from examples.train.methods import METHODS
from examples.train.options import parse

ROOT = Path(__file__).parents[3]
FEW = [
    *("--data=demo", "--reader.num_samples=40", "--reader.size=32"),
    *("--noise=symmetric", "--noise-rate=0.3", "--backbone=tiny", "--batch-size=16"),
    *("--epochs=2", "--device=cpu", "--progress=false"),
]
# A method with options that let each part of it act within two epochs.
METHOD_OPTIONS = {
    "ce": ["--class-weights=balanced", "--label-smoothing=0.1"],
    "eac": [],
    "scn": ["--relabel-from=1", "--relabel-margin=0", "--relabel=all"],
    "gsmc": ["--decay=0.9"],
    "lanet": ["--queue=24", "--decay=0.9", "--threshold=0.2"],
    "compose": [
        *("--loss=cross_entropy", "--loss=attention_consistency=0.5"),
        *("--loss=self_distillation=0.9", "--loss=rank_regularization=0.1,learnable_margin=True"),
        *("--relabel-from=1", "--relabel-margin=0"),
    ],
}
assert METHOD_OPTIONS.keys() == METHODS.keys()


def settings_of(method, *options):
    own = METHODS[method].load().Options
    return parse(method, own, [*FEW, *METHOD_OPTIONS[method], *options])


def run(method, *options, faces=None):
    return train(settings_of(method, *options), faces)


def run_in_two_processes(cases, folder):
    """Train each (method, options) in two gloo processes, which the program starts itself."""
    (folder / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        [sys.executable, "-m", "tests.examples.train.runs", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def main():
    import torch

    torch.set_num_threads(1)
    for method, options in json.loads(Path(sys.argv[1], "cases.json").read_text()):
        run(method, *options, "--devices=2")


if __name__ == "__main__":
    main()
