"""Verified labels and the transition matrix: drawn, reviewed, read, and refused."""

import pytest
import torch

from examples.train.engine import Training
from examples.train.options import Refused
from examples.train.transition import TransitionOptions, find_transition, verify
from robustfer.data import DemoFaces
from robustfer.noise import (
    fingerprint,
    transition_from_confident_joint,
    transition_from_verified,
    with_symmetric_noise,
)
from tests.examples.train.runs import settings_of

FACES = with_symmetric_noise(DemoFaces(140, size=16), rate=0.3, seed=3)
CLASSES = FACES.classes


@pytest.mark.parametrize("kind", ["random", "stratified"])
def test_verified_labels_are_true_and_make_the_estimate(kind):
    known = verify(FACES, TransitionOptions(verified=40, verified_draw=kind), seed=5)
    rows = known.verified.nonzero()[:, 0]
    assert len(rows) == 40
    assert torch.equal(known.label[rows], FACES.true_targets[rows])
    assert torch.equal(known.label[~known.verified], FACES.targets[~known.verified])
    counts = FACES.targets.bincount(minlength=7) if kind == "stratified" else None
    expected = transition_from_verified(
        FACES.true_targets[rows], FACES.targets[rows], num_classes=7, given_counts=counts
    )
    assert torch.equal(known.estimate.matrix, expected.matrix)
    assert torch.equal(find_transition("verified", FACES, known.estimate), expected.matrix)


def test_an_ambiguous_face_keeps_its_label():
    faces = with_symmetric_noise(DemoFaces(140, size=16), rate=0.3, seed=3)
    faces.true_targets[:70] = -1
    known = verify(faces, TransitionOptions(verified=140), seed=0)
    assert known.verified.tolist() == [False] * 70 + [True] * 70
    assert torch.equal(known.label[:70], faces.targets[:70])
    assert int(known.estimate.counts.sum()) == 70


def test_the_decisions_of_a_review_are_verified_labels(tmp_path):
    mark = fingerprint(FACES.ids, FACES.targets, CLASSES)
    lines = ["audit,part,id,label"]
    lines += [f"{mark},random,{FACES.ids[row]},{CLASSES[row % 7]}" for row in range(20)]
    lines += [f"{mark},suspects,{FACES.ids[row]},fear" for row in range(30, 33)]
    path = tmp_path / "anna.csv"
    path.write_text("\n".join(lines))
    known = verify(FACES, TransitionOptions(decisions=[str(path)]), seed=0)
    assert known.label[:20].tolist() == [row % 7 for row in range(20)]
    assert known.label[30:33].tolist() == [CLASSES.index("fear")] * 3
    assert known.verified.nonzero()[:, 0].tolist() == [*range(20), 30, 31, 32]
    assert int(known.estimate.counts.sum()) == 20  # suspects are no random draw


@pytest.mark.parametrize("method", ["scn", "compose"])
def test_methods_that_change_labels_keep_the_verified_ones(tmp_path, method):
    options = ["--verified=20", f"--output={tmp_path}/run"]
    training = Training(settings_of(method, *options))
    training.begin()
    labels, truth = training.method.labels, training.faces.true_targets
    decided = labels.decided()
    assert int(decided.sum()) == 20
    training.run()
    training.end()
    assert torch.equal(labels()[decided], truth[decided])
    assert (labels() != labels.given())[~decided].any()


def test_a_matrix_is_read_from_a_file(tmp_path):
    matrix = torch.rand(7, 7).double().softmax(1)
    lines = [",".join(("id", *CLASSES))]
    for name, row in zip(CLASSES, matrix.tolist(), strict=True):
        lines.append(",".join((name, *map(repr, row))))
    path = tmp_path / "transition.csv"
    path.write_text("\n".join(lines))
    torch.testing.assert_close(find_transition(f"file:{path}", FACES, None), matrix)


def test_predictions_give_the_confident_joint(tmp_path):
    from safetensors.torch import save_file

    predicted = torch.rand(140, 7).softmax(1)
    save_file({"probabilities": predicted}, tmp_path / "p.safetensors")
    found = find_transition(f"predictions:{tmp_path}/p.safetensors", FACES, None)
    assert torch.equal(found, transition_from_confident_joint(FACES.targets, predicted))


def test_no_matrix_where_labels_are_taken_as_right():
    assert find_transition("none", FACES, None) is None


REFUSED = {
    "too many": ({"verified": 141}, ["--verified 141", "140"]),
    "both": ({"verified": 1, "decisions": ["a.csv"]}, ["--decisions", "--verified"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_verified_labels_that_cannot_be(name):
    options, facts = REFUSED[name]
    with pytest.raises(Refused) as caught:
        verify(FACES, TransitionOptions(**options), seed=0)
    assert all(fact in str(caught.value) for fact in facts)


def test_verified_labels_need_the_truth_and_classes():
    unknown = DemoFaces(14, size=16)
    unknown.true_targets = None
    with pytest.raises(Refused, match="--decisions"):
        verify(unknown, TransitionOptions(verified=3), seed=0)
    soft = DemoFaces(14, size=16)
    soft.targets = torch.eye(7)[soft.targets]
    with pytest.raises(Refused, match="one class per image"):
        verify(soft, TransitionOptions(), seed=0)


@pytest.mark.parametrize("source", ["file", "file:", "guess", "verified"])
def test_sources_that_are_none(source):
    with pytest.raises(Refused, match="--transition"):
        find_transition(source, FACES, None)


def test_a_file_of_other_classes_is_refused(tmp_path):
    path = tmp_path / "transition.csv"
    path.write_text("a,b\n1,0\n0,1")
    for kind in ("file", "predictions"):
        with pytest.raises(Refused) as caught:
            find_transition(f"{kind}:{path}", FACES, None)
        assert all(fact in str(caught.value) for fact in (str(path), "surprise", "a, b"))
    lines = [",".join(("id", *CLASSES))]
    for name, row in zip(reversed(CLASSES), torch.eye(7).tolist(), strict=True):
        lines.append(",".join((name, *map(str, row))))
    path.write_text("\n".join(lines))
    with pytest.raises(Refused, match="in the order of the classes"):
        find_transition(f"file:{path}", FACES, None)
