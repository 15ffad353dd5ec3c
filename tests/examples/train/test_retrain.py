"""The second training: its soft labels, and the first runs that it refuses."""

import pytest
import torch

from examples.train.data import load_faces
from examples.train.engine import Training
from examples.train.options import Refused
from examples.train.transition import verify
from robustfer.audit import corrected_labels, read_probabilities
from robustfer.noise import fingerprint, transition_from_verified
from tests.examples.train.runs import run, settings_of


def test_a_second_training_learns_the_corrected_labels(tmp_path):
    faces, judged = load_faces(settings_of("ce"))
    run("ce", f"--output={tmp_path}/first", faces=(faces, judged))
    for evidence, verified in ((0.25, 0), (1.0, 20)):
        training = Training(
            settings_of(
                "retrain", f"--first={tmp_path}/first", f"--evidence={evidence}",
                f"--verified={verified}", f"--output={tmp_path}/second",
            ),
            (faces, judged),
        )  # fmt: skip
        method = training.method
        known = verify(faces, method.options, seed=0)
        predicted = read_probabilities(tmp_path / "first").probabilities
        expected = corrected_labels(
            faces.targets, predicted, transition=known.estimate, evidence=evidence
        )
        expected[known.verified] = torch.eye(7, dtype=torch.float64)[known.label[known.verified]]
        assert int(known.verified.sum()) == verified
        torch.testing.assert_close(method.soft_label, expected.float())
        assert torch.equal(method.labels_now(), expected.argmax(1))


def test_without_verified_labels_its_own_choices_tell_how_labels_go_wrong(tmp_path):
    faces, judged = load_faces(settings_of("ce"))
    run("ce", f"--output={tmp_path}/first", faces=(faces, judged))
    given = (
        f"--first={tmp_path}/first",
        "--own-choices=true",
        "--verified=0",
        f"--output={tmp_path}/s",
    )
    method = Training(settings_of("retrain", *given), (faces, judged)).method
    predicted = read_probabilities(tmp_path / "first").probabilities
    chosen = transition_from_verified(predicted.argmax(1), faces.targets, num_classes=7)
    expected = corrected_labels(faces.targets, predicted, transition=chosen, evidence=0.5)
    torch.testing.assert_close(method.soft_label, expected.float())
    with pytest.raises(Refused, match="--own-choices is for a run without verified labels"):
        Training(settings_of("retrain", *given, "--verified=20"), (faces, judged))


def test_a_second_training_refuses_a_first_one_on_other_labels(tmp_path):
    run("ce", f"--output={tmp_path}/first")
    other = ("--noise-seed=5", f"--output={tmp_path}/second")
    with pytest.raises(Refused, match=r"first.*other labels"):
        Training(settings_of("retrain", f"--first={tmp_path}/first", *other))
    with pytest.raises(Refused, match="--first FOLDER"):
        Training(settings_of("retrain", "--first=", *other))


def test_a_review_without_a_random_draw_is_named(tmp_path, capsys):
    faces, judged = load_faces(settings_of("ce"))
    mark = fingerprint(faces.ids, faces.targets, faces.classes)
    rows = [f"{mark},PART,{faces.ids[row]},fear" for row in range(5)]
    for part, said in (("suspects", True), ("random", False)):
        review = tmp_path / f"{part}.csv"
        review.write_text("\n".join(["audit,part,id,label", *rows]).replace("PART", part))
        options = ("--verified=0", f"--decisions={review}", f"--output={tmp_path}/{part}")
        training = Training(settings_of("retrain", *options), (faces, judged))
        training.begin()
        training.end()
        assert training.method.labels_now()[:5].tolist() == [faces.classes.index("fear")] * 5
        out = capsys.readouterr().out
        assert ("no face of a random draw, so the predictions of the first run" in out) is said
