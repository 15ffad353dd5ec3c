"""Whose folder it is: never two runs in one, nothing lost, nothing left lying about."""

import errno
import json
import os
import platform
import shutil
import signal
import time
from types import SimpleNamespace

import pytest
import torch
import yaml

from examples.train.__main__ import main
from examples.train.engine import Training
from examples.train.methods import METHODS
from examples.train.methods.lanet import Options as LANetOptions
from examples.train.methods.retrain import Options as RetrainOptions
from examples.train.methods.teacher import Options as TeacherOptions
from examples.train.options import OF_ONE_CALL, Refused, parse
from examples.train.predictions import files_digests
from examples.train.run_folder import open_folder, path_of
from examples.train.seeds import train_each_seed
from examples.train.transition import TransitionOptions
from robustfer.checkpoint import load_resume, save_resume
from robustfer.data import DemoFaces
from tests.examples.train.runs import FEW, FIRST, run, settings_of

OWN = METHODS["ce"].load().Options


def opened(*options):
    return open_folder(settings_of("ce", *options), OWN)


def leave_a_run(path, *options, epochs=1):
    folder = opened(f"--output={path}", *options)
    folder.save({"history": {"epochs": [{"epoch": 1.0}] * epochs}})
    folder.close()


def test_the_folder_is_named_after_data_method_and_seed(elsewhere):
    settings = settings_of("ce", "--seed=5")
    assert path_of(settings).parent.as_posix() == "runs"
    assert path_of(settings).name == settings.name()
    folder = open_folder(settings, OWN)
    assert (elsewhere / "runs" / settings.name() / "config.yaml").is_file()
    assert folder.state is None
    folder.close()


def test_a_run_that_is_there_is_not_begun_anew(tmp_path):
    leave_a_run(tmp_path / "run")
    before = (tmp_path / "run/resume.pt").read_bytes()
    with pytest.raises(Refused) as caught:
        opened(f"--output={tmp_path}/run")
    assert all(fact in str(caught.value) for fact in ("1 of 2 epochs", "--resume", "--output"))
    assert (tmp_path / "run/resume.pt").read_bytes() == before
    folder = opened(f"--output={tmp_path}/run", "--resume")
    assert folder.state == load_resume(tmp_path / "run/resume.pt")
    folder.close()


@pytest.mark.parametrize("resume", [False, True])
def test_results_without_a_state_are_not_written_anew(tmp_path, resume):
    options = f"--output={tmp_path}/run"
    run("ce", options)
    model = tmp_path / "run" / "model.safetensors"
    before = model.read_bytes()
    (tmp_path / "run" / "resume.pt").unlink()
    settings = settings_of("ce", options, *(["--resume=true"] if resume else []))
    if resume:
        assert train_each_seed(settings) == []  # finished already
    else:
        with pytest.raises(Refused, match="holds results of this run, but no resume.pt"):
            train_each_seed(settings)
    assert model.read_bytes() == before
    (tmp_path / "run" / "predictions.safetensors").unlink()
    with pytest.raises(Refused, match="no resume.pt to continue from; choose another"):
        train_each_seed(settings)


def test_a_home_folder_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of(settings_of("ce", "--output=~/runs/a")) == tmp_path / "runs" / "a"


def test_resume_begins_what_has_not_begun(tmp_path):
    folder = opened(f"--output={tmp_path}/run", "--resume")
    assert folder.state is None
    folder.close()


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_run_of_other_settings_is_refused_and_they_are_named(resume, tmp_path):
    leave_a_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(Refused) as caught:
        opened(f"--output={tmp_path}/run", "--seed=9", "--epochs=2", "--learning-rate=0.5", *resume)
    for fact in ("seed was 0, is 9", "learning_rate was 0.002, is 0.5", "--output"):
        assert fact in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_without_an_epoch_may_begin_with_other_settings(tmp_path):
    opened(f"--output={tmp_path}/run").close()
    (tmp_path / "run/logs").mkdir()
    (tmp_path / "run/mine.log").touch()
    opened(f"--output={tmp_path}/run", "--seed=9", "--workers=2").close()
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (config["seed"], config["workers"]) == (9, 2)


def test_a_stop_is_told_and_not_repeated_by_the_saved_options(tmp_path, capsys):
    folder = tmp_path / "run"
    run("ce", f"--output={folder}", "--stop-after=1", "--resume")
    told = "stopped after epoch 1 of 2, by --stop-after 1; continue with --resume and without"
    assert told in capsys.readouterr().out
    run("ce", f"--output={folder}", "--stop-after=1", "--resume")
    assert told in capsys.readouterr().out
    assert OF_ONE_CALL.isdisjoint(yaml.safe_load((folder / "config.yaml").read_text()))
    again = parse("ce", OWN, [f"--config={folder}/config.yaml", f"--output={tmp_path}/again"])
    assert (again.run.stop_after, again.run.resume) == (None, False)
    run("ce", f"--output={folder}", "--resume")
    assert "stopped after" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["resume.pt", "run.json", "model.safetensors"])
def test_a_run_with_results_keeps_its_settings(name, tmp_path):
    opened(f"--output={tmp_path}/run").close()
    (tmp_path / "run" / name).touch()
    with pytest.raises(Refused, match="seed was 0, is 9"):
        opened(f"--output={tmp_path}/run", "--seed=9")


def test_a_configuration_of_another_program_is_kept(tmp_path):
    path = tmp_path / "other/config.yaml"
    path.parent.mkdir()
    path.write_text("seed: 1\n")
    with pytest.raises(Refused, match="seed was 1, is 0"):
        opened(f"--output={path.parent}")
    assert path.read_text() == "seed: 1\n"


def test_settings_that_do_not_decide_the_result_may_change(tmp_path):
    leave_a_run(tmp_path / "run")
    folder = opened(
        f"--output={tmp_path}/run", "--resume", "--workers=2", "--keep=files", "--stop-after=1"
    )
    folder.close()


@pytest.mark.parametrize("name", ["accumulate", "devices", "nodes"])
def test_parts_of_a_batch_may_not_change_because_batch_norm_sees_them(name, tmp_path):
    leave_a_run(tmp_path / "run")
    with pytest.raises(Refused, match=f"{name} was 1, is 2"):
        opened(f"--output={tmp_path}/run", "--resume", f"--{name}=2")


def test_a_run_does_not_go_on_with_other_images_or_labels(tmp_path):
    faces = DemoFaces(16, size=32)
    run("ce", "--stop-after=1", f"--output={tmp_path}/run", faces=(faces, faces))
    other = faces.subset(torch.arange(16).roll(1))
    for name, both in {"training": (other, faces), "evaluation": (faces, other)}.items():
        with pytest.raises(
            Refused, match=f"labels or classes of the {name} images of .* have changed"
        ):
            run("ce", "--resume", f"--output={tmp_path}/run", faces=both)


def test_a_run_does_not_go_on_with_another_first_run(tmp_path):
    first = tmp_path / "first.csv"
    shutil.copy(FIRST, first)
    options = [f"--first={first}", "--verified=0", f"--output={tmp_path}/run"]
    run("retrain", *options, "--stop-after=1")
    header, one, other, *rest = FIRST.read_text().splitlines()
    first.write_text("\n".join([header, other, one, *rest]))
    with pytest.raises(Refused, match=r"files of --first of .*/run have changed.*restore them"):
        run("retrain", *options, "--resume")
    shutil.copy(FIRST, first)
    assert len(run("retrain", *options, "--resume").history) == 2


def test_a_digest_is_of_each_file_that_an_option_names(tmp_path):
    names = ("a.csv", "b.csv", "matrix.csv", "points.npz", "run/dynamics.safetensors",
             "run/final.safetensors")  # fmt: skip
    (tmp_path / "run").mkdir()
    for name in names:
        (tmp_path / name).write_text(name)
    two_files = [f"{tmp_path}/a.csv", f"{tmp_path}/b.csv"]
    options = (
        TeacherOptions(
            decisions=two_files, transition=f"file:{tmp_path}/matrix.csv",
            landmarks=f"file:{tmp_path}/points.npz",
        ),
        RetrainOptions(first=f"{tmp_path}/run"),
        LANetOptions(),
        TransitionOptions(transition=f"predictions:{tmp_path}/run"),
    )  # fmt: skip
    before = [files_digests(own) for own in options]
    assert [[*found] for found in before] == [
        ["--decisions", "--transition", "--landmarks"], ["--first"], [], ["--transition"],
    ]  # fmt: skip
    (tmp_path / "run/model.safetensors").write_text("not read")
    assert [files_digests(own) for own in options] == before
    changed = []
    for name in names:
        (tmp_path / name).write_text("other")
        now = [files_digests(own) for own in options]
        pairs = [
            (was[key], found[key], key)
            for was, found in zip(before, now, strict=True)
            for key in was
        ]
        changed.append([key for was, found, key in pairs if was != found])
        before = now
    assert changed == [
        ["--decisions"], ["--decisions"], ["--transition"], ["--landmarks"],
        *[["--first", "--transition"]] * 2,
    ]  # fmt: skip


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("Dear")
    with pytest.raises(Refused, match=r"config\.yaml.*--output"):
        opened(f"--output={tmp_path}/letters")
    with pytest.raises(Refused, match="is a file"):
        opened(f"--output={tmp_path}/letters/dear.txt")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]


def test_a_damaged_configuration_is_named(tmp_path):
    leave_a_run(tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text("seed: [1")
    with pytest.raises(Refused, match=r"config\.yaml is damaged"):
        opened(f"--output={tmp_path}/run", "--resume")


def test_what_killed_writes_left_is_cleared(tmp_path):
    leave_a_run(tmp_path / "run")
    (tmp_path / f"run/.resume.pt.{'0' * 32}.tmp").write_bytes(b"half")
    opened(f"--output={tmp_path}/run", "--resume").close()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        ".lock",
        "config.yaml",
        "resume.pt",
    ]


def test_what_a_kill_in_the_first_moment_left_is_no_other_persons_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").touch()
    (tmp_path / f"run/.config.yaml.{'0' * 32}.tmp").write_text("method")
    opened(f"--output={tmp_path}/run").close()
    assert (tmp_path / "run/config.yaml").is_file()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_folder_in_use_is_refused_until_its_process_ends(tmp_path, capsys):
    options = [f"--output={tmp_path}/run"]
    reading, writing = os.pipe()
    other = os.fork()
    if not other:  # takes the folder, says so, and holds it until it is killed
        folder = opened(*options)
        os.write(writing, b"mine")
        time.sleep(300)
        folder.close()
        os._exit(1)
    try:
        assert os.read(reading, 4) == b"mine"
        with pytest.raises(Refused) as caught:
            opened(*options)
        used = f"in use by process {other} on {platform.node()};"
        assert all(part in str(caught.value) for part in (used, "--output"))
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    opened(*options).close()


def test_a_process_that_sees_another_disk_continues_too(tmp_path, monkeypatch):
    sent = []

    def broadcast(given):
        sent.append(given)
        return sent[0]

    def take(first):
        training = Training.__new__(Training)
        training.settings = settings_of("ce", "--output=run", "--resume")
        training.fabric = SimpleNamespace(is_global_zero=first, broadcast=broadcast)
        folder = training._take_folder()
        folder.close()
        return folder.state

    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    leave_a_run("run", epochs=3)
    state = take(first=True)
    monkeypatch.chdir(tmp_path / "there")
    assert take(first=False) == state == {"history": {"epochs": [{"epoch": 1.0}] * 3}}


def test_a_file_system_without_locks_can_be_used(tmp_path, monkeypatch):
    def without_locks(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", without_locks)
    opened(f"--output={tmp_path}/run").close()
    assert (tmp_path / "run/config.yaml").is_file()


def test_a_whole_run_leaves_what_others_read(tmp_path, capsys):
    outcome = run("scn", f"--output={tmp_path}/run", "--seed=3")
    assert outcome.folder == tmp_path / "run"
    names = sorted(path.name for path in outcome.folder.iterdir())
    assert names == [
        ".lock",
        "config.yaml",
        "dynamics.safetensors",
        "final.safetensors",
        "logs",
        "model.safetensors",
        "predictions.safetensors",
        "resume.pt",
        "run.json",
    ]
    record = json.loads((outcome.folder / "run.json").read_text())
    assert record["settings"]["method"] == "scn"
    assert record["settings"]["seed"] == 3
    assert record["wrong_labels"] == pytest.approx(0.3)
    assert record["passes"] == 1
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2]
    assert record["epochs"][-1]["accuracy"] == outcome.history.last["accuracy"]
    config = yaml.safe_load((outcome.folder / "config.yaml").read_text())
    saved = record["settings"]
    assert config == {name: value for name, value in saved.items() if name not in OF_ONE_CALL}
    shown = capsys.readouterr().out
    assert all(f"{name}:" in shown for name in config)  # every option is printed
    assert "12 labels (30.0%) differ" in shown
    own = METHODS["scn"].load().Options
    again = parse("scn", own, [f"--config={outcome.folder}/config.yaml"])
    assert again.flat() == record["settings"]


def test_the_program_refuses_in_one_line(tmp_path, capsys):
    run("ce", f"--output={tmp_path}/run", "--epochs=1", "--max-steps=1")
    capsys.readouterr()
    again = ["ce", *FEW, f"--output={tmp_path}/run", "--seed=1", "--max-steps=1", "--epochs=1"]
    assert main(again) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "seed was 0, is 1" in err


def test_state_is_plain_and_safe_to_read(tmp_path):
    outcome = run("lanet", f"--output={tmp_path}/run", "--epochs=1", "--max-steps=1")
    state = torch.load(outcome.folder / "resume.pt", weights_only=True)
    parts = {"method", "optimizer", "schedule", "scaler", "history", "dynamics", "begun_with"}
    assert state.keys() == parts
    save_resume(tmp_path / "copy.pt", state)
