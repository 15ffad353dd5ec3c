"""The other methods' examples: each runs, and a stopped and resumed run equals one that was not."""

import math

import pytest
import torch

from examples import gsmc, scn
from robustfer.data import DemoFaces
from robustfer.noise import with_symmetric_noise

SHORT = ["--backbone", "tiny", "--batch-size", "16", "--max-steps", "2", "--device", "cpu"]
# Relabelling from the first epoch on and by any margin, so that resuming has labels to bring back.
EXAMPLES = {
    "scn": (scn, ["--relabel-from", "1", "--relabel-margin", "0", "--relabel", "all"]),
    "gsmc": (gsmc, []),
}


@pytest.fixture(scope="module")
def faces():
    train = with_symmetric_noise(DemoFaces(96), rate=0.3, seed=0)
    return train, DemoFaces(32, split="test")


def same(one, other):
    """Equal epochs; a precision of nothing relabelled is NaN, which equals nothing."""
    pairs = zip(one, other, strict=True)
    return all(
        a.keys() == b.keys()
        and all(a[k] == b[k] or (math.isnan(a[k]) and math.isnan(b[k])) for k in a)
        for a, b in pairs
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", EXAMPLES)
def test_stop_and_resume_equal_one_run_to_the_bit(faces, tmp_path, name, workers):
    example, options = EXAMPLES[name]
    common = [*SHORT, *options, "--epochs", "4", "--workers", str(workers)]
    whole, history = example.train(
        example.parse([*common, "--output", str(tmp_path / "whole")]), *faces
    )
    stopped = [*common, "--output", str(tmp_path / "stopped")]
    example.train(example.parse([*stopped, "--stop-after", "2"]), *faces)
    resumed, resumed_history = example.train(example.parse([*stopped, "--resume"]), *faces)

    assert same(resumed_history.epochs, history.epochs)
    expected, found = whole.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    saved = [
        torch.load(tmp_path / run / "resume.pt", weights_only=True) for run in ("whole", "stopped")
    ]
    state = "labels" if name == "scn" else "teacher"
    for key, value in saved[0][state].items():
        assert torch.equal(saved[1][state][key], value), key


def test_scn_changes_labels_and_counts_them(faces, tmp_path):
    settings = scn.parse([*SHORT, *EXAMPLES["scn"][1], "--epochs", "2", "--output", str(tmp_path)])
    _, history = scn.train(settings, *faces)
    assert history.last["changed"] > 0
    assert 0 <= history.last["precision"] <= 1
