"""Small trainings by the program itself, in this process or in several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from examples.train.engine import train
from examples.train.methods import METHODS
from examples.train.options import parse
from robustfer.checkpoint import load_resume

ROOT = Path(__file__).parents[3]
FEW = [
    *("--data=demo", "--reader.num_samples=40", "--reader.size=32"),
    *("--noise=symmetric", "--noise-rate=0.3", "--backbone=tiny", "--batch-size=16"),
    *("--epochs=2", "--device=cpu", "--progress=false"),
]
FIRST = Path(__file__).with_name("first_predictions.csv")  # for these faces
# A method with options that let each part of it act within two epochs.
METHOD_OPTIONS = {
    "ce": ["--class-weights=balanced", "--label-smoothing=0.1"],
    "eac": [],
    "scn": ["--relabel-from=1", "--relabel-margin=0", "--relabel=all"],
    "gsmc": ["--decay=0.9"],
    "lanet": ["--queue=24", "--decay=0.9", "--threshold=0.2"],
    "forward": ["--verified=20", "--distillation-weight=0.5", "--distillation-ramp=[0, 0.5]"],
    "teacher": [
        *("--verified=20", "--distillation-weight=0.5", "--distillation-ramp=[0, 0.5]", "--q=0.4"),
        *("--memory-weight=0.5", "--memory-ramp=[0, 0.5]", "--posterior-from=0.5"),
        *("--consistency-weight=0.2", "--landmark-weight=1", "--adjust-to=truth", "--decay=0.9"),
    ],
    "retrain": [f"--first={FIRST}", "--verified=20", "--label-smoothing=0.1"],
    "compose": [
        *("--loss=cross_entropy", "--loss=attention_consistency=0.5"),
        *("--loss=self_distillation=0.9", "--loss=rank_regularization=0.1,learnable_margin=True"),
        "--loss=sparse_over_parameterization=0.1,init_std=0.3",
        *("--relabel-from=1", "--relabel-margin=0"),
    ],
}
assert METHOD_OPTIONS.keys() == METHODS.keys()
NOT_REPEATED = "images_per_second"


def settings_of(method, *options):
    own = METHODS[method].load().Options
    return parse(method, own, [*FEW, *METHOD_OPTIONS[method], *options])


def run(method, *options, faces=None):
    return train(settings_of(method, *options), faces)


def assert_same_to_the_bit(one, other):
    one, other = (load_resume(path / "resume.pt") for path in (one, other))
    for state in (one, other):
        for epoch in state["history"]["epochs"]:
            epoch.pop(NOT_REPEATED)
    assert_equal(one, other)


def assert_equal(one, other, where="state"):
    if isinstance(one, torch.Tensor):
        if one.is_floating_point():  # NaN stands where nothing is known
            one, other = one.nan_to_num(-1e9), other.nan_to_num(-1e9)
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            assert_equal(one[name], other[name], f"{where}[{name!r}]")
    elif isinstance(one, list | tuple):
        for number, (mine, its) in enumerate(zip(one, other, strict=True)):
            assert_equal(mine, its, f"{where}[{number}]")
    else:
        assert one == other or (one != one and other != other), where


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
    torch.set_num_threads(1)
    for method, options in json.loads(Path(sys.argv[1], "cases.json").read_text()):
        run(method, *options, "--devices=2")


if __name__ == "__main__":
    main()
