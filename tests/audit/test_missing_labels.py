"""Labels that nobody was given, and labels of which no face was verified."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from robustfer import cli
from robustfer.audit import read_decisions
from robustfer.data import load
from tests.data.trees import write_rafdb

NEUTRAL = 6
# RAF-DB counts from 1, and none is neutral.
LINES = [f"train_{number:05}.jpg {1 + number % 6}" for number in range(1, 121)]


@pytest.fixture
def six(tmp_path, monkeypatch):
    """Faces of six classes of seven, their predictions in run.safetensors, and a command line."""
    monkeypatch.chdir(tmp_path)
    folder = write_rafdb(tmp_path / "raf", LINES)
    faces = load(f"rafdb:{folder}")
    assert NEUTRAL not in faces.targets.tolist()
    rows = torch.randn(len(faces), 7, generator=torch.Generator().manual_seed(0))
    rows = (rows + 4 * torch.eye(7)[faces.targets]).softmax(dim=1)
    save_file({"probabilities": rows}, tmp_path / "run.safetensors")
    return faces, ["--data", f"rafdb:{folder}"]


def decided(faces, page, path, given):
    """Decisions that confirm the stratified draw of a page, for some of the given labels."""
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page.read_text())[1])
    label = dict(zip(faces.ids, faces.targets.tolist(), strict=True))
    rows = [
        f"{data['audit']},stratified,{face['id']},{faces.classes[label[face['id']]]}"
        for face in data["random"] if label[face["id"]] in given
    ]  # fmt: skip
    path.write_text("\n".join(["audit,part,id,label", *rows]))
    return path


def test_a_folder_of_six_expressions_is_reviewed(six, capsys, tmp_path):
    faces, data = six
    assert cli.main(["audit", "run.safetensors", *data, "--output", "page.html"]) == 0
    decided(faces, tmp_path / "page.html", tmp_path / "a.csv", range(7))
    capsys.readouterr()
    assert cli.main(["audit", "apply", "a.csv", *data, "--output", "better.txt"]) == 0
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert "wrong labels: 0 % (0 - 2)" in shown
    assert "no wrong label among these faces" in shown
    arguments = ["run.safetensors", *data, "--decisions", "a.csv", "--output", "again.html"]
    assert cli.main(["audit", *arguments]) == 0
    assert "nan" not in capsys.readouterr().out
    assert "NaN" not in (tmp_path / "again.html").read_text()


def test_labels_without_a_verified_face_are_named(six, capsys, tmp_path):
    faces, data = six
    assert cli.main(["audit", "run.safetensors", *data, "--output", "page.html"]) == 0
    file = decided(faces, tmp_path / "page.html", tmp_path / "a.csv", range(1, 7))
    capsys.readouterr()
    assert cli.main(["audit", "apply", "a.csv", *data, "--output", "better.txt"]) == 0
    name = faces.classes[0]
    assert f"no clear face was verified with the label {name}; how" in capsys.readouterr().out
    decisions = read_decisions(file, faces.targets, classes=faces.classes, ids=faces.ids)
    estimate = decisions.estimate()
    assert int(estimate.counts[:, 0].sum()) == 0
    assert estimate.matrix[0].argmax() == 0
    assert estimate.matrix.isfinite().all()
    assert estimate.shares[0] > 0.02
