"""What cannot be done is said in one line, without a traceback, and nothing is written."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from examples.train.__main__ import main
from examples.train.data import read_faces_to_judge
from examples.train.methods.base import WeightedCrossEntropy
from examples.train.methods.compose import Compose
from examples.train.options import DataOptions
from robustfer.data import DemoFaces
from tests.data.trees import write_image, write_rafdb

FEW = ["--data=demo", "--reader.num_samples=16", "--reader.size=32", "--backbone=tiny",
       "--batch-size=8", "--epochs=1", "--progress=false"]  # fmt: skip


def refusal(capsys, *arguments):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return err


BAD = {
    "device bogus": (["ce", "--device=bogus"], ["--device", "bogus", "cpu"]),
    "no such kind of device": (["ce", "--device=cpu:1"], ["--device", "cpu:1"]),
    "data of no kind": (["ce", "--data=nope:/x"], ["nope", "rafdb:PATH"]),
    "no path": (["ce", "--data=folder", "--reader={}"], ["folder:PATH"]),
    "no folder": (["ce", "--data=folder:/nowhere", "--reader={}"], ["/nowhere"]),
    "foreign reader option": (["ce", "--reader.images=face"], ["images", "num_samples"]),
    "no reader option": (["ce", "--reader.bogus=1"], ["bogus", "num_samples"]),
    "noise without rate": (["ce", "--noise=symmetric"], ["--noise-rate"]),
    "list without file": (["ce", "--noise=list"], ["--noise-list"]),
    "list nowhere": (["ce", "--noise=list", "--noise-list=/nowhere"], ["/nowhere"]),
    "no votes": (["ce", "--noise=crowd", "--noise-rate=0.1"], ["votes"]),
    "no confusions": (["ce", "--noise=confusions", "--noise-rate=0.1"], ["--noise-confusions"]),
    "confusion of no class": (
        ["ce", "--noise=confusions", "--noise-rate=0.1", "--noise-confusions={fear: bogus}"],
        ["bogus", "surprise"],
    ),
    "batch too large": (["ce", "--batch-size=17"], ["--batch-size", "17", "16"]),
    "batch not shared": (["ce", "--batch-size=7", "--accumulate=2"], ["--batch-size", "7", "2"]),
    "weights of two classes": (["ce", "--class-weights=[1, 2]"], ["--class-weights", "surprise"]),
    "weights for forward": (
        ["forward", "--class-weights=balanced", "--verified=5"],
        ["--class-weights", "forward", "remove it"],
    ),
    "weights for corrected labels": (
        ["retrain", "--class-weights=balanced", "--first=runs/x"],
        ["--class-weights", "retrain", "remove it"],
    ),
    "balanced faces for a matrix": (
        ["forward", "--sampling=balanced", "--noise=symmetric", "--noise-rate=0.1", "--verified=5"],
        ["--sampling", "shuffled", "--transition verified", "balanced"],
    ),
    "balanced faces for shares": (
        ["teacher", "--sampling=progressive", "--adjust-to=uniform"],
        ["--sampling", "shuffled", "--adjust-to uniform", "progressive"],
    ),
    "weights without the loss": (
        ["compose", "--class-weights=balanced", "--loss=self_distillation"],
        ["--class-weights", "cross_entropy"],
    ),
    "no such backbone": (["ce", "--backbone=bogus"], ["--backbone", "bogus", "timm"]),
    "no such backbone option": (["ce", "--backbone-options.bogus=1"], ["--backbone", "bogus"]),
    "no such optimizer": (["ce", "--optimizer=bogus"], ["--optimizer", "bogus", "timm"]),
    "no such optimizer option": (
        ["ce", "--optimizer-options.bogus=1"],
        ["--optimizer", "adamw", "bogus"],
    ),
    "no such schedule option": (
        ["ce", "--schedule=cosine", "--schedule-options.bogus=1"],
        ["--schedule", "cosine", "bogus"],
    ),
    "options of no schedule": (
        ["ce", "--schedule=none", "--schedule-options.warmup_epochs=1"],
        ["--schedule none", "takes no options"],
    ),
    "a schedule without a step": (["ce", "--schedule=step"], ["--schedule-options.decay_epochs"]),
    "a first run for seeds of other noise": (
        ["retrain", "--first=runs/x", "--seeds=2", "--noise=symmetric", "--noise-rate=0.1"],
        ["--first", "--noise-seed"],
    ),
    "images of another size": (["ce", "--evaluate-reader.size=40"], ["40 x 40", "32 x 32"]),
    "two starts": (["ce", "--pretrained", "--weights=x.pt"], ["--pretrained", "--weights"]),
    "weights nowhere": (["ce", "--weights=/nowhere.pt"], ["--weights", "/nowhere.pt"]),
    "no such loss": (["compose", "--loss=bogus"], ["bogus", "robustfer list"]),
    "weight of a loss": (["compose", "--loss=scn=abc"], ["--loss", "abc"]),
    "option of a loss": (["compose", "--loss=scn=1,margin"], ["--loss", "margin"]),
    "landmarks from where": (["lanet", "--landmarks=bogus"], ["--landmarks", "bogus"]),
    "landmarks nowhere": (["lanet", "--landmarks=file:/nowhere.npz"], ["/nowhere.npz"]),
    "landmarks without their branch": (
        ["teacher", "--landmarks=file:/nowhere.npz"],
        ["--landmarks", "--landmark-weight"],
    ),
    "points without a branch": (["teacher", "--points=19"], ["--points", "--landmark-weight"]),
    "a size without a branch": (
        ["teacher", "--landmarks-size=40"],
        ["--landmarks-size", "--landmark-weight"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_named_in_one_line_and_nothing_written(name, capsys, elsewhere):
    (method, *options), facts = BAD[name]
    err = refusal(capsys, method, *FEW, *options)
    assert all(fact in err for fact in facts), err
    assert list(elsewhere.iterdir()) == []


def test_a_loss_that_refuses_the_first_step(capsys, monkeypatch, elsewhere):
    """The corrected command can use the folder that the first one has taken."""

    def refuse(self, logits, target):
        raise ValueError("target must be soft,\n  got (8,)")

    command = ["compose", *FEW, "--loss=cross_entropy", "--output=run"]
    with monkeypatch.context() as patch:
        patch.setattr(WeightedCrossEntropy, "forward", refuse)
        assert main(command) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "first step fails: target must be soft, got (8,); " in err
    assert sorted(path.name for path in (elsewhere / "run").glob("[!.]*")) == ["config.yaml"]
    assert main([*command[:-2], "--loss=scn", *command[-1:]]) == 0
    assert "- scn" in (elsewhere / "run/config.yaml").read_text()


def test_an_error_after_the_first_step_has_a_traceback(monkeypatch, elsewhere):
    def refuse(self, batch):
        if batch.step:
            raise ValueError("too late")

    monkeypatch.setattr(Compose, "after_step", refuse)
    with pytest.raises(ValueError, match="too late"):
        main(["compose", *FEW, "--loss=cross_entropy"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has such a device")
def test_a_device_that_is_not_there(capsys, elsewhere):
    err = refusal(capsys, "ce", *FEW, "--device=cuda")
    assert "--device cuda" in err
    assert list(elsewhere.iterdir()) == []


def test_labels_out_of_range(capsys, tmp_path, elsewhere):
    lines = [f"{split}_{n}.jpg {1 + n % 7}" for split in ("train", "test") for n in range(9)]
    write_rafdb(tmp_path / "rafdb", [*lines, "train_9.jpg 8"])
    err = refusal(capsys, "ce", *FEW, f"--data=rafdb:{tmp_path}/rafdb", "--reader={size: 32}")
    assert "8" in err
    assert "list_patition_label.txt" in err
    assert list(elsewhere.iterdir()) == []


def folder_of_faces(root):
    for split in ("train", "test"):
        for number in range(16):
            name = ("happiness", "sadness")[number % 2]
            write_image(root / split / name / f"{number}.png", grey=number, size=(32, 32))
    return f"--data=folder:{root}"


def test_a_data_set_without_landmarks(capsys, tmp_path, elsewhere):
    faces = folder_of_faces(tmp_path / "faces")
    err = refusal(capsys, "lanet", *FEW, faces, "--reader={}")
    assert "landmarks" in err
    assert list(elsewhere.iterdir()) == []


def test_images_of_several_sizes(capsys, tmp_path, elsewhere):
    faces = folder_of_faces(tmp_path / "faces")
    write_image(tmp_path / "faces/train/sadness/9.png", size=(40, 32))
    assert main(["ce", *FEW, faces, "--reader={}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(fact in err for fact in ("9.png", "40 x 32", "32 x 32", "size")), err
    assert list(elsewhere.iterdir()) == []


def test_data_without_splits_needs_a_set_to_evaluate_on(capsys, tmp_path, elsewhere):
    folder_of_faces(tmp_path / "faces")
    faces = f"--data=folder:{tmp_path}/faces/train"
    err = refusal(capsys, "ce", *FEW, faces, "--reader={split: all}")
    assert all(fact in err for fact in (faces[7:], "--evaluate-data", "--evaluate-reader.split"))
    assert list(elsewhere.iterdir()) == []
    options = DataOptions(data=faces[7:], reader={"split": "all"}, evaluate_reader={"split": "all"})
    assert read_faces_to_judge(options).ids[0] == "happiness/0.png"


def test_a_set_to_evaluate_on_with_other_classes(capsys, tmp_path, elsewhere):
    faces = folder_of_faces(tmp_path / "faces").removeprefix("--data=")
    err = refusal(capsys, "ce", *FEW, f"--evaluate-data={faces}",
                  "--evaluate-reader.classes=fer2013")  # fmt: skip
    assert "the evaluation set has the classes" in err
    # As with AffectNet, which has no test set.
    options = (f"--data={faces}", "--reader={}", "--evaluate-on=validation")
    err = refusal(capsys, "ce", *FEW, *options)
    assert "the evaluation set cannot be read" in err
    assert "split with --evaluate-on, or another data set with --evaluate-data" in err
    assert list(elsewhere.iterdir()) == []


def test_a_checkpoint_of_other_classes(capsys, tmp_path, elsewhere):
    path = tmp_path / "model.safetensors"
    classes = json.dumps([*reversed(DemoFaces(7).classes)])
    save_file({"fc.weight": torch.zeros(7, 3)}, path, {"classes": classes, "settings": "{}"})
    err = refusal(capsys, "ce", *FEW, f"--weights={path}")
    assert str(path) in err
    assert "classes" in err
    assert "--new-head" in err
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_damaged_file_of_weights(name, capsys, tmp_path, elsewhere):
    path = tmp_path / name
    path.write_bytes(b"PK not a file of weights")
    err = refusal(capsys, "ce", *FEW, f"--weights={path}")
    assert str(path) in err
    assert list(elsewhere.iterdir()) == []


class Harmful:
    def __reduce__(self):
        return (open, ("harmed", "w"))


def test_a_file_that_would_run_code(capsys, tmp_path, elsewhere):
    path = tmp_path / "weights.pt"
    with path.open("wb") as file:
        pickle.dump({"state_dict": Harmful()}, file)
    err = refusal(capsys, "ce", *FEW, f"--weights={path}")
    assert str(path) in err
    assert list(elsewhere.iterdir()) == []


def test_weights_of_another_network(capsys, tmp_path, elsewhere):
    path = tmp_path / "weights.pt"
    torch.save({"conv1.0.weight": torch.zeros(2, 2), "stage.weight": torch.zeros(3)}, path)
    err = refusal(capsys, "ce", *FEW, f"--weights={path}")
    for fact in (str(path), "0 of ", "missing", "another shape", "conv1.0.weight (2, 2)",
                 "unexpected: stage.weight", "--allow-partial"):  # fmt: skip
        assert fact in err
    assert list(elsewhere.iterdir()) == []
