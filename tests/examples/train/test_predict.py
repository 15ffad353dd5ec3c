"""predict: a row for each image that can be read, and the names of the others."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from examples.train.__main__ import main
from examples.train.trained import load_trained
from robustfer.audit import read_probabilities
from robustfer.data import DemoFaces
from tests.data.trees import write_image


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
    found = read_probabilities(tmp_path / "x.csv")
    assert found.ids == ["=1+1.png", *list(rows)[1:]]
    assert found.classes == trained.classes
    assert found.probabilities[3].tolist() == pytest.approx(expected.tolist(), abs=2e-6)


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
    assert "no image that can be read, 1 skipped" in last
    assert not (tmp_path / "x.csv").exists()


def test_the_table_lies_in_the_runs_folder_by_default(finished, folder, capsys):
    other = folder.parent / "other/faces"
    write_image(other / "1.png", size=(32, 32))
    place = finished["ce-1"] / "predictions"
    try:
        for faces, counted in ((folder, "6 images"), (other, "1 image"), (folder, "6 images")):
            assert predicted(finished["ce-1"], faces) == 0
            assert f"{counted} predicted, 0 skipped; written to {place}" in capsys.readouterr().out
        assert sorted(len(rows_of(path)) for path in place.glob("faces-*.csv")) == [1, 6]
    finally:
        shutil.rmtree(place)


def test_other_formats_are_named_and_links_to_folders_followed(finished, folder, tmp_path, capsys):
    for name in ("b.heic", "below/c.GIF"):
        (folder / name).write_bytes(b"an image")
    write_image(tmp_path / "linked/1.png", size=(32, 32))
    (folder / "link").symlink_to(tmp_path / "linked")
    (folder / "below/above").symlink_to(folder)
    assert predicted(finished["ce-0"], folder, f"--output={tmp_path}/x.csv") == 0
    out, err = capsys.readouterr()
    assert "7 images predicted, 3 skipped" in out
    assert "link/1.png" in [row["image"] for row in rows_of(tmp_path / "x.csv")]
    assert len(err.splitlines()) == 3
    for name, why in (("b.heic", "format"), ("below/c.GIF", "format"), ("below/above", "link")):
        assert any(f"{folder / name} is a" in line and why in line for line in err.splitlines())
