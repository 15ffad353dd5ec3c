"""--seeds: each in a folder of its own, as trained by itself, and taken up where it stopped."""

import pytest

from examples.train.__main__ import main
from examples.train.options import Refused
from examples.train.run_folder import is_finished, path_of
from examples.train.seeds import settings_of_each, train_each_seed
from robustfer.checkpoint import load_resume
from tests.examples.train.runs import FEW, METHOD_OPTIONS, run, settings_of


def test_folders_and_names_of_each_seed(tmp_path):
    each = settings_of_each(settings_of("ce", "--seeds=3", "--seed=5"))
    assert [one.run.seed for one in each] == [5, 6, 7]
    assert [path_of(one).name for one in each] == [
        settings_of("ce", f"--seed={seed}").name() for seed in (5, 6, 7)
    ]
    each = settings_of_each(settings_of("ce", "--seeds=2", f"--output={tmp_path}/x"))
    assert [path_of(one) for one in each] == [tmp_path / "x/seed-0", tmp_path / "x/seed-1"]
    (one,) = settings_of_each(settings_of("ce", "--seed=5"))
    assert one == settings_of("ce", "--seed=5")


def test_each_is_what_it_is_by_itself(finished, tmp_path):
    alone = run("ce", "--seed=1", f"--output={tmp_path}/run")
    epochs = load_resume(finished["ce-1"] / "resume.pt")["history"]["epochs"]
    for one, other in zip(epochs, alone.history.epochs, strict=True):
        assert one.pop("images_per_second") > 0
        assert other.pop("images_per_second") > 0
    assert epochs == alone.history.epochs


def test_what_is_finished_is_skipped_and_the_rest_goes_on(tmp_path, capsys):
    run("ce", f"--output={tmp_path}/s/seed-0")
    run("ce", "--seed=1", "--stop-after=1", f"--output={tmp_path}/s/seed-1")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s/seed-0").rglob("*")}
    capsys.readouterr()
    outcomes = train_each_seed(settings_of("ce", "--seeds=3", "--resume", f"--output={tmp_path}/s"))
    shown = capsys.readouterr().out
    assert "seed 0 (1 of 3): finished already" in shown
    assert "continuing after epoch 1" in shown
    assert [outcome.folder.name for outcome in outcomes] == ["seed-1", "seed-2"]
    assert all(len(outcome.history) == 2 for outcome in outcomes)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "s/seed-0").rglob("*")} == before
    for seed in range(3):
        assert is_finished(
            settings_of("ce", f"--seed={seed}", f"--output={tmp_path}/s/seed-{seed}")
        )


def test_a_folder_that_cannot_be_taken_is_refused_before_the_first_is_trained(tmp_path, capsys):
    (tmp_path / "s/seed-2").mkdir(parents=True)
    (tmp_path / "s/seed-2/letter.txt").write_text("Dear")
    assert main(["ce", *FEW, *METHOD_OPTIONS["ce"], "--seeds=3", f"--output={tmp_path}/s"]) == 2
    assert "seed-2" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["seed-2"]


def test_a_run_that_is_there_needs_resume(finished):
    folder = finished["ce-0"].parent
    with pytest.raises(Refused, match="seed-0 holds this run already, 2 of 2 epochs.*--resume"):
        train_each_seed(settings_of("ce", "--seeds=2", f"--output={folder}"))
    with pytest.raises(Refused, match="epochs was 2, is 3"):
        train_each_seed(settings_of("ce", "--seeds=2", "--epochs=3", f"--output={folder}"))
