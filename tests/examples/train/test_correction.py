"""evaluate and predict with --decisions: predictions corrected by a review of the labels."""

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from examples.train.__main__ import main
from examples.train.commands.outputs import name_of
from examples.train.correction import correction
from examples.train.data import load_faces
from examples.train.engine import Training
from examples.train.judgement import judge
from examples.train.options import Refused
from examples.train.predictions import read_predictions
from examples.train.recording import DYNAMICS, FINAL, LEARNT
from examples.train.trained import load_trained
from robustfer.audit import corrected_labels, read_decisions, read_probabilities
from robustfer.metrics import correct_predictions
from robustfer.noise import fingerprint, rows_to_verify
from tests.data.trees import write_image
from tests.examples.train.runs import run, settings_of

VERIFIED = 20
QUIET = ("--device=cpu", "--progress=false")


@pytest.fixture(scope="module")
def faces():
    return load_faces(settings_of("ce"))[0]


@pytest.fixture(scope="module")
def review(faces, tmp_path_factory):
    """The file of a reviewer who knows the truth."""
    return written(tmp_path_factory.mktemp("review") / "decisions.csv", faces)


def written(path, faces, *, part="stratified"):
    mark = fingerprint(faces.ids, faces.targets, faces.classes)
    lines = ["audit,part,id,label"]
    for row in rows_to_verify(faces.targets, VERIFIED, seed=0).tolist():
        lines.append(f"{mark},{part},{faces.ids[row]},{faces.classes[faces.true_targets[row]]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    run("ce", "--class-weights=none", "--ema-decay=0.5", f"--output={folder}/first")
    return folder / "first"


def figures_of(run_folder, review, output):
    arguments = ["evaluate", run_folder, f"--decisions={review}", f"--output={output}", *QUIET]
    assert main([*map(str, arguments)]) == 0
    return json.loads((output / "evaluation.json").read_text())


def test_the_figures_are_those_of_the_corrected_predictions(trained, faces, review, tmp_path):
    logits, targets, _, classes = read_predictions(trained)
    found = read_decisions(review, faces.targets, classes=classes, ids=faces.ids).estimate()
    expected = correct_predictions(logits.softmax(1), found.matrix, found.shares)
    figures = figures_of(trained, review, tmp_path / "found")
    assert figures["confusion"] == judge(expected, targets, classes).confusion.tolist()
    assert figures["confusion"] != judge(logits.softmax(1), targets, classes).confusion.tolist()
    averaged = figures_of(trained / "ema", review, tmp_path / "averaged")
    assert averaged["images"] == figures["images"]
    shutil.copytree(trained, tmp_path / "ema")  # a run of this name
    assert figures_of(tmp_path / "ema", review, tmp_path / "again") == figures


def test_a_second_training_is_corrected_by_the_labels_that_it_learnt(
    trained, faces, review, tmp_path
):
    run("retrain", f"--first={trained}", "--verified=0", f"--decisions={review}",
        f"--output={tmp_path}/second")  # fmt: skip
    found = read_decisions(review, faces.targets, classes=faces.classes, ids=faces.ids)
    predicted = read_probabilities(trained).probabilities
    learnt = corrected_labels(faces.targets, predicted, transition=found.estimate(), evidence=0.5)
    # Those of the verified faces are the corrected ones, not yet the decided ones.
    kept = load_file(tmp_path / "second" / FINAL)[LEARNT]
    torch.testing.assert_close(kept, learnt.float())
    estimate = found.estimate(learnt=kept)
    probability = torch.rand(5, 7).softmax(1)
    corrected = correction(load_trained(str(tmp_path / "second")), [str(review)])(probability)
    expected = correct_predictions(probability, estimate.matrix, estimate.shares)
    torch.testing.assert_close(corrected, expected)


def test_a_folder_is_predicted_with_the_corrected_probabilities(trained, review, tmp_path):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "faces" / name, grey=90, size=(32, 32))
    for more in ((), (f"--decisions={review}",)):
        assert main(["predict", str(trained), str(tmp_path / "faces"), *more, *QUIET]) == 0
    name = name_of(tmp_path / "faces")
    plain, corrected = (
        list(csv.DictReader((trained / "predictions" / file).read_text().splitlines()))
        for file in (f"{name}.csv", f"{name}-corrected.csv")
    )
    numbers = [
        torch.tensor([[float(row[name]) for name in list(row)[2:]] for row in rows]).double()
        for rows in (plain, corrected)
    ]
    exact = numbers[0] / numbers[0].sum(1, keepdim=True)  # the file has six digits
    expected = correction(load_trained(str(trained)), [str(review)])(exact)
    torch.testing.assert_close(numbers[1], expected, atol=1e-4, rtol=0)


LEARN_TRUE_LABELS = {
    "forward": [],
    "teacher": ["--transition=none", "--adjust-to=truth"],
    "compose": ["--loss=vote_cross_entropy", "--reader.voters=10", "--noise=none"],
}


@pytest.mark.parametrize("method", LEARN_TRUE_LABELS)
def test_a_run_that_learnt_true_labels_is_refused(method, review, tmp_path):
    run(method, *LEARN_TRUE_LABELS[method], "--epochs=1", f"--output={tmp_path}/run")
    with pytest.raises(Refused, match="nothing to correct; leave it out"):
        correction(load_trained(str(tmp_path / "run")), [str(review)])


def test_a_run_without_a_record_is_refused(review, tmp_path):
    run("ce", "--class-weights=none", "--epochs=1", "--dynamics=false", f"--output={tmp_path}/run")
    with pytest.raises(Refused, match=r"needs .*final\.safetensors; train again"):
        correction(load_trained(str(tmp_path / "run")), [str(review)])


@pytest.mark.parametrize("method", ["scn", "compose"])
def test_a_run_that_changed_labels_is_corrected_by_those_it_learnt(method, faces, review, tmp_path):
    training = Training(settings_of(method, f"--output={tmp_path}/run"), (faces, faces))
    training.begin()
    training.run()
    training.end()
    labels = training.method.labels()
    found = read_decisions(review, faces.targets, classes=faces.classes, ids=faces.ids)
    assert (labels != faces.targets)[found.drawn_index].any()
    estimate = found.estimate(learnt=torch.eye(7)[labels])
    probability = torch.rand(5, 7).softmax(1)
    corrected = correction(load_trained(str(tmp_path / "run")), [str(review)])(probability)
    expected = correct_predictions(probability, estimate.matrix, estimate.shares)
    torch.testing.assert_close(corrected, expected)


@pytest.mark.parametrize("method", ["scn", "compose"])
def test_faces_that_kept_their_labels_do_not_tell_how_others_changed(
    method, faces, review, tmp_path
):
    run(method, f"--decisions={review}", f"--output={tmp_path}/run", faces=(faces, faces))
    found = read_decisions(review, faces.targets, classes=faces.classes, ids=faces.ids)
    kept = load_file(tmp_path / "run" / FINAL)[LEARNT]
    assert torch.equal(kept[found.index], found.given)
    assert not torch.equal(kept, faces.targets)
    with pytest.raises(Refused, match="changed labels, but kept those of its --decisions"):
        correction(load_trained(str(tmp_path / "run")), [str(review)])


@pytest.mark.parametrize(
    ("name", "value", "usual"),
    [
        ("sampling", "balanced", "shuffled"),
        ("sampling", "progressive", "shuffled"),
        ("class_weights", "balanced", "none"),
        ("class_weights", [1.0] * 7, "none"),
    ],
)
def test_a_run_that_saw_classes_more_often_than_they_are_is_refused(
    name, value, usual, trained, review
):
    own = load_trained(str(trained))
    own.settings[name] = value
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(Refused, match=f"with {option} .*again with {option} {usual}"):
        correction(own, [str(review)])


def test_the_training_set_is_not_needed(trained, review):
    probability = torch.rand(5, 7).softmax(1)
    own = load_trained(str(trained))
    expected = correction(own, [str(review)])(probability)
    own.settings["data"] = "rafdb:/elsewhere"
    assert torch.equal(correction(own, [str(review)])(probability), expected)


def test_a_record_of_other_names_or_without_any_is_refused(trained, review, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    record, own = tmp_path / "run" / DYNAMICS, load_trained(str(tmp_path / "run"))
    names = {"classes": own.classes, "ids": [f"{row}" for row in range(40)]}
    save_file(load_file(record), record, {"names": json.dumps(names)})
    with pytest.raises(ValueError, match="read them with the data set, split and label noise"):
        correction(own, [str(review)])
    save_file(load_file(record), record)
    with pytest.raises(Refused, match="needs a record with classes, names and labels.*train again"):
        correction(own, [str(review)])


def test_a_damaged_record_is_named(trained, review, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("model.safetensors", "run.json"):
        (tmp_path / "run" / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "run" / FINAL).write_bytes(b"no tensors")
    with pytest.raises(Refused, match=r"final\.safetensors is damaged"):
        correction(load_trained(str(tmp_path / "run")), [str(review)])


def test_a_review_of_suspects_or_of_other_labels_is_named(trained, faces, tmp_path, capsys):
    suspects = written(tmp_path / "suspects.csv", faces, part="suspects")
    other = written(tmp_path / "other.csv", load_faces(settings_of("ce", "--noise-seed=5"))[0])
    for review, fact in ((suspects, "of a random draw"), (other, "other.csv")):
        assert main(["evaluate", str(trained), f"--decisions={review}", *QUIET]) == 2
        assert fact in capsys.readouterr().err
