"""The accuracy protocol: a run becomes a row as those in the results, once."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import accuracy, accuracy_records
from benchmarks.accuracy_methods import FACE_GRIDS, METHODS
from benchmarks.accuracy_shares import adjusted_figures, figures_of
from examples.train.devices import fast_precision
from robustfer.data import DemoFaces
from robustfer.models import CAMClassifier
from robustfer.noise import NoiseProfile, with_symmetric_noise
from tests.data.trees import vote_row, write_ferplus

COMMITTED = accuracy.rows()
SMALL = accuracy.Scale(name="small", train_faces=64, tune_faces=8, epochs=1, backbone="tiny")
RUN = {"task": "symmetric30", "phase": "tune", "seed": 0, "epochs": 1, "scale": SMALL}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "results" / "accuracy.jsonl")
    monkeypatch.setattr(accuracy_records, "FOLDER", tmp_path / "records")
    return accuracy.RESULTS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    expressions = ("happiness", "neutral", "anger", "sadness")
    usages = ["Training"] * 72 + ["PublicTest"] * 16
    rows = [
        vote_row(f"fer{number:04d}.png", usage=usage, **{expressions[number % 4]: 9})
        for number, usage in enumerate(usages)
    ]
    return write_ferplus(tmp_path_factory.mktemp("ferplus"), rows)


@pytest.mark.parametrize("name", ["ce", "scn", "composition"])
def test_a_run_is_one_row_like_the_others(name, results, root):
    other = next(row for row in COMMITTED if row["method"] == name and row["phase"] == "tune")
    for _ in range(2):  # the second time it is there already
        accuracy.run(name, setting=METHODS[name].grid[0], root=root, device="cpu", **RUN)
    (row,) = accuracy.rows()
    added = {"fitted_wrong_labels", "adjusted", "precision"}
    assert row.keys() - other.keys() == added
    assert other.keys() <= row.keys()
    assert row["last"].keys() - other["last"].keys() == {  # added since
        "accuracy_mirrored", "mean_class_accuracy_mirrored"
    }  # fmt: skip
    assert other["last"].keys() <= row["last"].keys()
    assert 0 <= row["fitted_wrong_labels"] <= 1
    assert row["precision"] == fast_precision("cpu")
    assert accuracy.identity(row) == {
        **{key: value for key, value in RUN.items() if key != "scale"},
        "method": name, "setting": METHODS[name].grid[0], "scale": "small",
    }  # fmt: skip
    assert row["wrong_labels"] == pytest.approx(0.3, abs=0.12)
    assert row["accuracy_by_epoch"] == [pytest.approx(row["last"]["accuracy"], abs=1e-4)]


def test_the_twin_has_the_wrong_labels_of_its_profile(root):
    def load(task, seed=1):
        return accuracy.load(root, task, "try", SMALL, seed)[0]

    clean = load("symmetric30").true_targets
    twin, other = load("twin"), load("twin", seed=2)
    assert torch.equal(twin.true_targets, clean)
    wrong = (twin.targets != clean).double()
    # A quarter of the faces each: happiness, neutral, anger, sadness.
    rates = 1 - NoiseProfile.load("fer2013").matrix.diagonal()
    assert float(wrong.mean()) == pytest.approx(float(rates[[3, 6, 5, 4]].mean()), abs=0.08)
    assert not torch.equal(twin.targets, other.targets)


def test_each_prediction_has_its_last_epoch_and_each_network_its_best(results, root):
    scale = replace(SMALL, arguments=("--ema-decay=0.9",), image_size=32)
    accuracy.run(
        "teacher", setting={"epochs": 2}, root=root, device="cpu",
        **{**RUN, "scale": scale, "epochs": 2, "phase": "try", "task": "symmetric20"},
    )  # fmt: skip
    (row,) = accuracy.rows()
    for ending in ("", "_ema"):
        values = row[f"accuracy{ending}_by_epoch"]
        assert len(values) == 2
        assert row["last"][f"accuracy{ending}"] == pytest.approx(values[-1], abs=1e-4)
        assert row[f"best{ending}"][f"accuracy{ending}"] == pytest.approx(max(values), abs=1e-4)
        assert f"mean_class_accuracy{ending}" in row[f"best{ending}"]
        mirrored = f"accuracy{ending}_mirrored"
        assert 0 < row["last"][mirrored] <= 1
        assert 0 < row["last"][f"mean_class_{mirrored}"] <= 1
        assert mirrored not in row[f"best{ending}"]
    assert row["wrong_labels"] == pytest.approx(0.2, abs=0.12)
    (kept,) = accuracy_records.FOLDER.glob("*/training.safetensors")
    known = load_file(kept)
    assert known.keys() == {"given", "true", "mean", "early", "last", "ema", "judged"}
    assert known["last"].shape == known["ema"].shape == (64, 7)
    wrong = known["given"] != known["true"]
    assert row["wrong_labels"] == pytest.approx(float(wrong.float().mean()))
    fitted = (known["last"].argmax(1) == known["given"])[wrong].float().mean()
    assert row["fitted_wrong_labels"] == pytest.approx(float(fitted))


def test_adjusted_figures_can_be_computed_anew(results, root, monkeypatch):
    monkeypatch.setitem(accuracy.SCALES, "small", SMALL)
    again = {**RUN, "phase": "report", "seed": 1, "root": root, "device": "cpu"}
    tuned = {**METHODS["ce"].grid[0], "learning-rate": 0.002}
    monkeypatch.setattr(accuracy, "tuned", lambda *_: tuned)
    accuracy.run("ce", setting=tuned, **again)
    accuracy.run("retrain", setting=METHODS["retrain"].grid[0], **again)
    made = accuracy.rows()
    first, second = (row["adjusted"].keys() for row in made)
    assert second == {"truth", "half", "corrected"}
    assert first - second == {"choices"}
    blank = [{**row, "adjusted": {}} for row in made]
    results.write_text("".join(json.dumps(row) + "\n" for row in blank))
    accuracy.adjust(root)
    assert accuracy.rows() == made


def test_a_network_that_learnt_the_true_classes_is_not_corrected():
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(7, (500,), generator=generator)
    given = torch.where(torch.rand(500, generator=generator) < 0.3, 0, true)
    rows = torch.eye(7)[true] * 0.9 + 0.1 / 7
    args = (rows, true, given, true)
    assert "corrected" in adjusted_figures(*args, seed=0)
    assert "corrected" not in adjusted_figures(*args, seed=0, with_matrix=True)
    assert "corrected" not in adjusted_figures(*args, seed=0, shares=rows.double().mean(0))
    # Labels that are right need no correction, so it changes no decision.
    learnt = torch.eye(7)[true].double()
    found = adjusted_figures(*args, seed=0, shares=rows.double().mean(0), learnt=learnt)
    assert found["corrected"]["accuracy"] == 1.0


def test_the_choices_of_a_network_correct_its_predictions():
    """Most faces of class 1 have the label 0, but during training the network saw what they are."""
    true = torch.arange(7).repeat_interleave(100)
    given = true.clone()
    given[100:160] = 0
    predicted = torch.eye(7)[true]
    predicted[100:200, :2] = torch.tensor([0.6, 0.4])
    found = adjusted_figures(predicted, true, given, true, seed=0, recorded=torch.eye(7)[true])
    assert found["choices"]["accuracy"] == 1.0 > figures_of(predicted, true)["accuracy"]
    mistaken = adjusted_figures(predicted, true, given, true, seed=0, recorded=torch.eye(7)[given])
    assert mistaken["choices"] == figures_of(predicted, true)


def test_what_is_memorised_are_the_wrong_labels_that_are_predicted():
    faces = with_symmetric_noise(DemoFaces(70, size=32), rate=0.5, seed=0)
    wrong = faces.targets != faces.true_targets
    classifier = CAMClassifier("resnet10t", num_classes=7)
    head = classifier.get_classifier()
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.eye(7)[3])
    predicted = accuracy.predictions(classifier, faces)
    assert predicted.sum(1).allclose(torch.ones(70))
    found = accuracy.fitted_wrong_labels(predicted, faces)
    assert found == pytest.approx(float((faces.targets[wrong] == 3).float().mean()))
    clean = with_symmetric_noise(DemoFaces(7, size=32), rate=0.0, seed=0)
    assert accuracy.fitted_wrong_labels(predicted[:7], clean) is None


def test_cross_entropy_is_reported_at_its_own_best_budget_too():
    face, cpu = accuracy.SCALES["face"], accuracy.SCALES["cpu"]
    assert accuracy.budgets("eac", face, {}) == [8, 24]
    assert accuracy.budgets("ce", face, {"epochs": 5}) == [5, 8, 16, 24]
    assert accuracy.budgets("ce", cpu, {}) == [30, 60]


def test_only_the_epochs_of_cross_entropy_are_tuned_from_a_face_network():
    face, memorise = accuracy.SCALES["face"], accuracy.SCALES["memorise"]
    assert accuracy.grid("ce", face) == [{"epochs": 5}, {"epochs": 8}, {"epochs": 12}]
    assert list(accuracy.grid("ce", memorise)) == [{}]
    assert accuracy.grid("eac", memorise) == accuracy.grid("eac", face)


def test_a_setting_is_read_from_the_command_line():
    assert accuracy.read_setting(["q=0.4", "verified=100", "distillation-ramp=[0, 0.5]"]) == {
        "q": 0.4, "verified": 100, "distillation-ramp": "[0, 0.5]"
    }  # fmt: skip


def test_every_setting_from_a_face_network_is_one_that_its_method_knows(root):
    for name, settings in FACE_GRIDS.items():
        for setting in settings:
            accuracy.settings_of(METHODS[name], setting, root, accuracy.SCALES["face"].arguments)


def test_every_method_is_a_command_with_settings_that_it_knows(root):
    for method in METHODS.values():
        for setting in (*method.grid, *method.parts.values()):
            settings = accuracy.settings_of(method, setting, root, [])
            flat = settings.flat()
            for option, value in setting.items():
                if option not in method.losses:
                    assert flat[option.replace("-", "_")] == value
