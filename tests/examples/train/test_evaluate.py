"""evaluate: the figures of the run itself, on its own data and on others'."""

import json
import shutil

import pytest
from PIL import Image

from examples.train.__main__ import main
from robustfer.data.classes import EXPRESSIONS
from tests.data.trees import write_image
from tests.examples.train.runs import run


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


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder with two images of each class in ``train``, and one in ``test``."""
    folder = tmp_path_factory.mktemp("faces")
    for number, label in enumerate(EXPRESSIONS):
        for name in ("train/{}/1", "train/{}/2", "test/{}/3"):
            write_image(folder / f"{name.format(label)}.png", grey=30 * number, size=(32, 32))
    return folder


def trained_on(faces, path, *options):
    few = ["--reader={}", "--epochs=1", "--batch-size=7", "--noise=none"]
    run("ce", f"--data=folder:{faces}", *few, *options, f"--output={path}")


def test_a_split_in_the_options_of_the_reader_is_named(faces, finished, tmp_path, capsys):
    trained_on(faces, tmp_path / "run", "--evaluate-reader.split=train")
    for options, name, images in (
        ([], "folder-train", 14),
        (["--split=test"], "folder-test", 7),
        (["--split=train"], "folder-train", 14),
        (["--reader.split=test"], "folder-test", 7),
    ):
        evaluated(tmp_path / "run", *options, f"--output={tmp_path}/found")
        assert f": {name}, {images} images\n" in capsys.readouterr().out
    data = [f"--data=folder:{faces}", f"--output={tmp_path}/found"]
    evaluated(finished["ce-0"], *data, "--reader.split=train")
    assert "folder-train, 14 images" in capsys.readouterr().out
    evaluated(finished["ce-0"], *data, "--reader.split=train", "--split=test")
    assert "folder-test, 7 images" in capsys.readouterr().out


def test_data_without_splits_has_none_to_choose(faces, tmp_path, capsys):
    flat = f"folder:{faces / 'test'}"
    trained_on(faces, tmp_path / "run", f"--evaluate-data={flat}", "--evaluate-reader.split=all")
    evaluated(tmp_path / "run", f"--output={tmp_path}/found")
    assert ": folder, 7 images\n" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--split=train"]) == 2
    assert f"{faces / 'test'} has no folder train" in capsys.readouterr().err
    assert not (tmp_path / "run/evaluation").exists()
    assert main(["compare", str(tmp_path / "run"), f"--output={tmp_path}/card"]) == 0
    assert f"Evaluated on {flat}, all: 7 images." in (tmp_path / "card/card.md").read_text()


def test_other_data_have_a_folder_of_figures_for_each_place(finished, faces, tmp_path):
    for place in ("anna", "bob"):
        shutil.copytree(faces, tmp_path / place / "faces")
    path = tmp_path / "run"
    shutil.copytree(finished["ce-0"], path)
    for options in ([], ["--data=demo", "--reader.num_samples=8"], ["--reader.num_samples=8"]):
        evaluated(path, *options)
    for place in ("anna", "bob", "anna"):
        evaluated(path, f"--data=folder:{tmp_path}/{place}/faces")
    names = sorted(folder.name for folder in (path / "evaluation").iterdir())
    assert len(names) == 5
    assert names[0] == "demo-test"
    assert all(name.startswith("demo-test-") for name in names[1:3])
    assert all(name.startswith("folder-test-faces-") for name in names[3:])


def test_images_that_are_not_square(faces, tmp_path, capsys):
    for part in ("train", "test"):
        for number, label in enumerate(EXPRESSIONS):
            write_image(tmp_path / f"wide/{part}/{label}/1.png", grey=30 * number, size=(40, 32))
    trained_on(tmp_path / "wide", tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), f"--data=folder:{faces}"]) == 2
    err = capsys.readouterr().err
    assert "32 x 32 pixels, expected the run's 32 x 40; --reader.size gives squares only" in err
