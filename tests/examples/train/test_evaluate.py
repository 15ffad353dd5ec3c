"""evaluate: the figures of the run itself, on its own data and on others'."""

import json

import pytest
from PIL import Image

from examples.train.__main__ import main
from tests.data.trees import write_image


def evaluated(*arguments):
    assert main(["evaluate", *map(str, arguments), "--device=cpu", "--progress=false"]) == 0


def test_the_runs_own_data_give_the_runs_own_figures(finished, tmp_path, capsys):
    run = finished["eac-0"]
    evaluated(run, f"--output={tmp_path}/found")
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "found/evaluation.json").read_text())
    last = json.loads((run / "run.json").read_text())["epochs"][-1]
    for name in ("accuracy", "mean_class_accuracy"):
        assert figures[name] == pytest.approx(last[name])
        assert f"{last[name]:.2%}" in shown
    assert "eac, seed 0: demo-test, 40 images" in shown
    assert "share given" in shown
    assert "share predicted" in shown
    for name in ("confusion.png", "reliability.png"):
        with Image.open(tmp_path / "found" / name) as picture:
            assert min(picture.size) > 300
    assert sum(row["images"] for row in figures["classes"]) == figures["images"] == 40
    assert sum(row["share_predicted"] for row in figures["classes"]) == pytest.approx(1)


def test_other_data_and_other_splits(finished, tmp_path, capsys):
    run = finished["ce-0"]
    evaluated(run, "--data=demo", "--reader.num_samples=15", "--split=validation",
              f"--output={tmp_path}/one")  # fmt: skip
    assert "demo-validation, 15 images" in capsys.readouterr().out
    for number, name in enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger",
                                   "neutral")):  # fmt: skip
        write_image(tmp_path / "faces/test" / name / "1.png", grey=30 * number, size=(50, 40))
    evaluated(run, f"--data=folder:{tmp_path}/faces", f"--output={tmp_path}/two")
    figures = json.loads((tmp_path / "two/evaluation.json").read_text())
    assert figures["images"] == 7
    assert len(figures["classes"]) == 7
    evaluated(run, f"--data=folder:{tmp_path}/faces/test", "--split=all", f"--output={tmp_path}/3")
    assert "folder, 7 images" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "3/evaluation.json").read_text())["confusion"]
        == figures["confusion"]
    )


def test_classes_in_another_order_are_put_in_the_runs(finished, tmp_path, capsys):
    run = finished["ce-0"]
    for order in ("fer2013", "rafdb"):
        evaluated(run, "--data=demo", "--reader.num_samples=40", f"--reader.classes={order}",
                  f"--output={tmp_path}/{order}")  # fmt: skip
    one, other = (json.loads((tmp_path / order / "evaluation.json").read_text())
                  for order in ("fer2013", "rafdb"))  # fmt: skip
    assert one == other
    last = json.loads((run / "run.json").read_text())["epochs"][-1]
    assert one["accuracy"] == pytest.approx(last["accuracy"])
