"""The example trains, stops and resumes; a stopped and resumed run equals one that was not."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples import eac
from robustfer import experiment
from robustfer.checkpoint import load_model, load_resume, read_model_info
from robustfer.data import DemoFaces
from robustfer.models import CAMClassifier
from robustfer.noise import with_symmetric_noise

ROOT = Path(__file__).parents[2]
SHORT = ["--backbone", "tiny", "--batch-size", "16", "--max-steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def faces():
    train = with_symmetric_noise(DemoFaces(96), rate=0.3, seed=0)
    return train, DemoFaces(32, split="test")


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("method", ["ce", "eac"])
def test_stop_and_resume_equal_one_run_to_the_bit(faces, tmp_path, method, workers):
    common = [*SHORT, "--method", method, "--epochs", "4", "--workers", str(workers)]
    whole, history = eac.train(eac.parse([*common, "--output", str(tmp_path / "whole")]), *faces)
    stopped = [*common, "--output", str(tmp_path / "stopped")]
    _, half = eac.train(eac.parse([*stopped, "--stop-after", "2"]), *faces)
    assert len(half) == 2
    resumed, resumed_history = eac.train(eac.parse([*stopped, "--resume"]), *faces)

    assert resumed_history.epochs == history.epochs
    assert half.epochs == history.epochs[:2]
    expected, found = state(whole), state(resumed)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_workers_change_nothing(faces, tmp_path):
    runs = []
    for workers in (0, 2):
        settings = eac.parse(
            [
                *SHORT,
                "--epochs",
                "1",
                "--workers",
                str(workers),
                "--output",
                str(tmp_path / str(workers)),
            ]
        )
        runs.append(state(eac.train(settings, *faces)[0]))
    for name, value in runs[0].items():
        assert torch.equal(runs[1][name], value), name


def test_runs_from_the_command_line_and_leaves_a_model(tmp_path):
    command = [sys.executable, "examples/eac.py", *SHORT, "--data", "demo", "--noise", "0.3"]
    command += ["--num-samples", "64", "--epochs", "1", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = [line.split() for line in done.stdout.splitlines()]
    assert ["noise", "0.3"] in shown  # the settings that take effect come first
    assert ["device", "cpu"] in shown
    assert "19 labels (29.7%) differ from the true ones" in done.stdout

    info = read_model_info(tmp_path)
    assert info.classes == DemoFaces(7).classes
    assert info.settings["method"] == "eac"
    name, options = experiment.backbone(info.settings["backbone"])
    model = CAMClassifier(name, num_classes=len(info.classes), model_options=options)
    load_model(tmp_path, model, classes=info.classes)
    resume = load_resume(tmp_path / "resume.pt")
    for key, value in model.state_dict().items():
        assert torch.equal(value, resume["model"][key])


@pytest.mark.parametrize("method", ["ce", "eac"])
def test_learns(tmp_path, method):
    """Forty steps on 64 faces; chance is 14 %, and both reached 75 % when this was written."""
    faces = DemoFaces(64)
    settings = eac.parse([
        "--backbone", "tiny", "--batch-size", "32", "--epochs", "20", "--learning-rate", "0.01",
        "--consistency-weight", "1", "--method", method, "--device", "cpu",
        "--output", str(tmp_path),
    ])  # fmt: skip
    _, history = eac.train(settings, faces, faces)
    assert history.last["accuracy"] > 0.45
