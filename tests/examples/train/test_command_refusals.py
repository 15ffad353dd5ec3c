"""What a command cannot do is said in one line, without a traceback, and nothing is written."""

import json
import shutil
import sys

import pytest

from examples.train.__main__ import main
from examples.train.commands.outputs import check_file
from examples.train.options import Refused
from tests.data.trees import write_image
from tests.examples.train.runs import run

NEEDED = {"evaluate": [], "predict": ["images"], "export": ["--onnx=x.onnx"], "strip": [],
          "compare": []}  # fmt: skip


@pytest.fixture
def refusal(capsys, elsewhere):
    """Call the program in an empty folder, which must stay as it is."""

    def refused(*arguments):
        before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
        capsys.readouterr()
        assert main(list(map(str, arguments))) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before
        return err

    return refused


def test_every_command_wants_a_finished_run(refusal, elsewhere, finished):
    write_image(elsewhere / "images/1.png")
    (elsewhere / "letter.txt").write_text("Dear")
    run("ce", "--epochs=2", "--max-steps=1", "--stop-after=1", "--output=begun")
    shutil.copytree(finished["ce-0"], "damaged")
    content = (elsewhere / "damaged/model.safetensors").read_bytes()
    (elsewhere / "damaged/model.safetensors").write_bytes(content[:-9] + b"\0" * 9)
    for command, more in NEEDED.items():
        assert "RUN" in refusal(command)
        assert "letter.txt is not" in refusal(command, "letter.txt", *more)
        assert "nowhere does not exist" in refusal(command, "nowhere", *more)
        assert "images is not the folder of a run" in refusal(command, "images", *more)
        err = refusal(command, "begun", *more)
        assert all(fact in err for fact in ("begun is not finished", "1 of 2 epochs", "--resume"))
        if command != "compare":
            assert "model.safetensors is damaged" in refusal(command, "damaged", *more)
            seeds = finished["ce-0"].parent
            assert f"such as {seeds}/seed-0" in refusal(command, seeds, *more)


def test_a_tilde_is_the_home_folder_in_every_command(finished, elsewhere, monkeypatch, refusal):
    monkeypatch.setenv("HOME", str(elsewhere))
    for name in ("ce-0", "ce-1", "eac-0", "eac-1"):
        shutil.copytree(finished[name], elsewhere / name.replace("-", "/seed-"))
    write_image(elsewhere / "images/1.png")
    (elsewhere / "mine.csv").write_text("audit")
    # Each names its run by a tilde, and is refused only for what it must not replace.
    for arguments in (
        ("evaluate", "~/ce/seed-0", "--output=~/mine.csv"),
        ("predict", "~/ce/seed-0", "~/images", "--output=~/ce/seed-0/run.json"),
        ("export", "~/ce/seed-0", "--onnx=~/ce/seed-0/run.json"),
        ("strip", "~/ce/seed-0", "--output=~/images"),
    ):
        assert arguments[-1].partition("~")[2] in refusal(*arguments)
    with pytest.raises(Refused, match="that the command reads"):
        check_file("--output", elsewhere / "mine.csv", elsewhere / "ce/seed-0", ["~/mine.csv"])
    assert main(["evaluate", "~/ce/seed-0", "--output=~/figures", "--progress=false"]) == 0
    assert main(["compare", "~/ce", "~/eac", "--baseline=~/eac", "--output=~/card"]) == 0
    assert (elsewhere / "figures/evaluation.json").is_file()
    assert "| eac |" in (elsewhere / "card/card.md").read_text().partition("Difference")[2]
    assert main(["ce", "--config=~/ce/seed-0/config.yaml", "--output=~/ce/seed-0", "--resume"]) == 0


@pytest.mark.parametrize("command", NEEDED)
def test_every_command_knows_its_options(command, refusal, capsys):
    err = refusal(command, "run", *NEEDED[command], "--bogus=1")
    assert f"bogus is not an option of {command}" in err
    assert main([command, "--help"]) == 0
    assert "--" in capsys.readouterr().out


def test_a_package_that_is_missing_is_named(refusal, monkeypatch):
    there = ("jinja2", "examples.train.card", "examples.train.commands.compare")
    for name in [name for name in sys.modules if name.startswith(there)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    err = refusal("compare", "run")
    assert "compare needs jinja2: pip install '.[train]'" in err


BAD = {
    "bogus device": (["evaluate", "RUN", "--device=bogus"], ["--device", "bogus"]),
    "bogus split": (["evaluate", "RUN", "--split=bogus"], ["--split", "validation", "bogus"]),
    "no such data": (["evaluate", "RUN", "--data=nope:/x"], ["nope", "rafdb:PATH"]),
    "data nowhere": (["evaluate", "RUN", "--data=folder:/nowhere"], ["/nowhere"]),
    "other classes": (["evaluate", "RUN", "--data=folder:two"], ["cat, dog", "surprise"]),
    "other size": (
        ["evaluate", "RUN", "--data=demo", "--reader={num_samples: 7, size: 40}"],
        ["40 x 40", "32 x 32", "--reader.size 32"],
    ),
    "a file for output": (["evaluate", "RUN", "--output=letter.txt"], ["letter.txt", "folder"]),
    "no folder of images": (["predict", "RUN", "nowhere"], ["nowhere", "folder"]),
    "no image": (["predict", "RUN", "empty"], ["empty", ".png"]),
    "no folder named": (["predict", "RUN"], ["FOLDER"]),
    "a folder for output": (["predict", "RUN", "two", "--output=two"], ["--output", "two"]),
    "predict on a bogus device": (["predict", "RUN", "two", "--device=tpu"], ["--device", "tpu"]),
    "no file named": (["export", "RUN"], ["--onnx FILE"]),
    "a folder for the file": (["export", "RUN", "--onnx=two"], ["--onnx", "two"]),
    "weights of another kind": (["strip", "RUN", "--output=x.pt"], [".safetensors", "x.pt"]),
    "its own model": (
        ["strip", "copy", "--output=copy/model.safetensors"],
        ["--output", "a file of a run, got copy/model.safetensors"],
    ),
    "the model of another run": (
        ["strip", "RUN", "--output=copy/model.safetensors"],
        ["--output", "a file of a run, got copy/model.safetensors"],
    ),
    "its own record": (["export", "copy", "--onnx=copy/run.json"], ["--onnx", "a file of a run"]),
    "its own log": (
        ["predict", "copy", "two", "--output=copy/logs/metrics.csv"],
        ["--output", "a file of a run"],
    ),
    "an image to predict": (
        ["predict", "RUN", "two", "--output=two/test/cat/1.png"],
        ["--output", "reads", "two/test/cat/1.png"],
    ),
    "a protected file": (
        ["strip", "RUN", "--output=locked.safetensors"],
        ["locked.safetensors", "write-protected"],
    ),
    "a run twice": (["compare", "RUN", "RUN"], ["given twice"]),
    "the same run again": (["compare", "RUN", "copy"], ["the same run"]),
    "no such baseline": (["compare", "RUN", "--baseline=scn"], ["--baseline", "ce", "scn"]),
    "a file for the card": (["compare", "RUN", "--output=letter.txt"], ["letter.txt", "folder"]),
    "other images": (["compare", "RUN", "other"], ["other images", "--evaluate-on"]),
    "a damaged record": (["compare", "RUN", "torn"], ["torn/run.json", "damaged"]),
    "a record of something else": (["compare", "RUN", "old"], ["old/run.json", "passes"]),
    "no predictions": (["compare", "RUN", "without"], ["predictions.safetensors", "--resume"]),
    "damaged predictions": (["compare", "RUN", "half"], ["predictions.safetensors", "damaged"]),
}


@pytest.mark.parametrize("name", BAD)
def test_named_in_one_line_and_nothing_written(name, refusal, elsewhere, finished):
    arguments, facts = BAD[name]
    (elsewhere / "letter.txt").write_text("Dear")
    (elsewhere / "locked.safetensors").write_text("kept")
    (elsewhere / "locked.safetensors").chmod(0o444)
    (elsewhere / "empty").mkdir()
    for number, label in enumerate(("cat", "dog")):
        write_image(elsewhere / f"two/test/{label}/1.png", grey=number, size=(32, 32))
        write_image(elsewhere / f"two/train/{label}/2.png", grey=number, size=(32, 32))
    for copy in ("copy", "other", "torn", "old", "without", "half"):
        if any(text.split("=")[-1].startswith(copy) for text in arguments):
            shutil.copytree(finished["eac-0" if copy == "torn" else "ce-0"], elsewhere / copy)
    change(elsewhere)
    run = finished["ce-0"]
    err = refusal(*(run if one == "RUN" else one for one in arguments))
    assert all(fact in err for fact in facts), err


def change(folder):
    """Spoil the copies of a run, each in its own way."""
    if (folder / "other").exists():
        record = json.loads((folder / "other/run.json").read_text())
        record["evaluated_on"] = "0" * 12
        (folder / "other/run.json").write_text(json.dumps(record))
    if (folder / "torn").exists():
        (folder / "torn/run.json").write_text('{"settings"')
    if (folder / "old").exists():
        record = json.loads((folder / "old/run.json").read_text())
        del record["passes"]
        (folder / "old/run.json").write_text(json.dumps(record))
    if (folder / "without").exists():
        (folder / "without/predictions.safetensors").unlink()
    if (folder / "half").exists():
        (folder / "half/predictions.safetensors").write_bytes(b"no tensors")
