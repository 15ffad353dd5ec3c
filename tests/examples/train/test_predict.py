"""predict: a row for each image that can be read, and the names of the others."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train.__main__ import main
from examples.train.trained import load_trained
from robustfer.data import DemoFaces


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def folder(tmp_path):
    faces = DemoFaces(6, split="test", size=32)
    for row, name in enumerate(("a.png", "b.PNG", "below/c.png", "=1+1.png", "größe.png", "d.png")):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = faces[row]["image"].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path, format="png")
    return tmp_path / "faces"


def predicted(*arguments):
    return main(["predict", *map(str, arguments), "--device=cpu", "--progress=false"])


@pytest.mark.parametrize("workers", [0, 2])
def test_probabilities_are_the_networks(finished, folder, workers, tmp_path, capsys):
    run = finished["eac-1"]
    assert predicted(run, folder, f"--output={tmp_path}/x.csv", f"--workers={workers}") == 0
    rows = {row["image"]: row for row in rows_of(tmp_path / "x.csv")}
    assert list(rows) == ["'=1+1.png", "a.png", "b.PNG", "below/c.png", "d.png", "größe.png"]
    trained = load_trained(str(run))
    with Image.open(folder / "below/c.png") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(trained.settings[n]).view(3, 1, 1) for n in ("mean", "std"))
    with torch.no_grad():
        expected = trained.classifier(((pixels - mean) / std)[None]).logits.softmax(1)[0]
    row = rows["below/c.png"]
    found = [float(row[name]) for name in trained.classes]
    assert found == pytest.approx(expected.tolist(), abs=2e-6)
    assert row["class"] == trained.classes[int(expected.argmax())]
    assert "6 images predicted, 0 skipped" in capsys.readouterr().out


def test_what_cannot_be_read_is_named_and_skipped(finished, folder, tmp_path, capsys):
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "below/empty.png").write_bytes(b"")
    (folder / "pipe.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    Image.new("L", (90, 45), color=7).save(folder / "wide.png")
    assert predicted(finished["ce-0"], folder, f"--output={tmp_path}/x.csv") == 0
    out, err = capsys.readouterr()
    skipped = sorted(err.splitlines())
    assert len(skipped) == 3
    for line, name in zip(skipped, ("below/empty.png", "broken.jpg", "pipe.png"), strict=True):
        assert line.startswith("skipped")
        assert str(folder / name) in line
    assert "7 images predicted, 3 skipped" in out
    assert len(rows_of(tmp_path / "x.csv")) == 7


def test_no_table_is_written_where_nothing_can_be_read(finished, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/1.png").write_bytes(b"no picture")
    assert predicted(finished["ce-0"], tmp_path / "broken", f"--output={tmp_path}/x.csv") == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert "none of the 1 images" in last
    assert not (tmp_path / "x.csv").exists()


def test_the_table_lies_in_the_runs_folder_by_default(finished, folder, capsys):
    path = finished["ce-1"] / "predictions/faces.csv"
    try:
        assert predicted(finished["ce-1"], folder) == 0
        assert len(rows_of(path)) == 6
        assert str(path) in capsys.readouterr().out
    finally:
        path.unlink()
        path.parent.rmdir()
