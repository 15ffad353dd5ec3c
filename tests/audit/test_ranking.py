import csv
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robustfer.audit import audit, read_probabilities
from robustfer.noise import (
    fingerprint,
    transition_from_confident_joint,
    transition_from_verified,
)
from robustfer.state import TrainingDynamics
from tests.reference import audit as reference

SHARES = [0.4, 0.3, 0.2, 0.1]
TRANSITION = torch.tensor(
    [[0.6, 0.1, 0.1, 0.2], [0.0, 0.9, 0.05, 0.05], [0.1, 0.0, 0.7, 0.2], [0.0, 0.1, 0.1, 0.8]]
)
CLASSES = ["happy", "sad", "fear", "anger"]


def simulate(samples=2000, seed=0):
    """True and given labels, and what a network trained on the given ones predicts."""
    generator = np.random.default_rng(seed)
    true = generator.choice(4, size=samples, p=SHARES)
    given = np.array(
        [generator.choice(4, p=row / row.sum()) for row in TRANSITION.double().numpy()[true]]
    )
    logits = generator.normal(size=(samples, 4)) + 1.8 * np.eye(4)[true] + 0.6 * np.eye(4)[given]
    return true, given, torch.from_numpy(logits).softmax(dim=1)


def test_the_result_follows_from_the_scores():
    _, given, rows = simulate(60)
    result = audit(given, rows, transition=TRANSITION, classes=CLASSES)
    wrong = []
    for row, label in zip(rows.tolist(), given.tolist(), strict=True):
        share, _, _ = reference.posterior(row, label, TRANSITION.double().tolist())
        wrong.append(share)
        others = [k for k in range(4) if k != label]
        assert int(result.suggestion[len(wrong) - 1]) == max(others, key=row.__getitem__)
    assert result.wrong_probability.tolist() == pytest.approx(wrong, abs=1e-6)
    assert result.ranking.tolist() == sorted(range(60), key=lambda row: -wrong[row])
    for label, one in enumerate(result.table):
        assert (one.name, one.given) == (CLASSES[label], int((given == label).sum()))
        agree = [max(row) == row[label] for row in rows[given == label].tolist()]
        assert one.agreed == sum(agree) > 0
        expected = sum(share for share, other in zip(wrong, given, strict=True) if other == label)
        assert one.wrong == pytest.approx(expected)
    assert sum(one.true for one in result.table) == pytest.approx(60)


def doubted_joint(given, rows):
    joint = transition_from_confident_joint(given, rows) + 0.25 * torch.eye(4)
    return joint / joint.sum(dim=1, keepdim=True)


def test_without_a_matrix_the_confident_joint_is_used_with_some_doubt():
    _, given, rows = simulate(200)
    result = audit(given, rows)
    torch.testing.assert_close(result.transition, doubted_joint(given, rows))
    torch.testing.assert_close(audit(given, rows, transition=result.transition).score, result.score)


@pytest.mark.parametrize("stratified", [False, True])
def test_verified_labels_are_worth_their_number(stratified):
    true, given, rows = simulate(600)
    counts = np.bincount(given, minlength=4) if stratified else None
    estimate = transition_from_verified(true[:50], given[:50], num_classes=4, given_counts=counts)
    result = audit(given, rows, transition=estimate)
    joint, predicted = doubted_joint(given, rows), rows.mean(dim=0).tolist()
    weight, matrix = [], []
    for k in range(4):
        verified = int((true[:50] == k).sum())
        matrix.append(
            [
                (verified * float(estimate.matrix[k, label]) + 10 * float(joint[k, label]))
                / (verified + 10)
                for label in range(4)
            ]
        )
        share = (50 * float(estimate.shares[k]) + 20 * predicted[k]) / 70
        weight.append(share / predicted[k])
    torch.testing.assert_close(result.transition, torch.tensor(matrix, dtype=torch.float64))
    for i, (row, label) in enumerate(zip(rows.tolist(), given.tolist(), strict=True)):
        moved = [p * v for p, v in zip(row, weight, strict=True)]
        wrong, _, _ = reference.posterior(moved, label, matrix)
        assert result.wrong_probability[i].item() == pytest.approx(wrong, abs=1e-6)
        others = [k for k in range(4) if k != label]
        assert int(result.suggestion[i]) == max(others, key=moved.__getitem__)


def test_the_shares_of_predictions_that_are_right_already_are_not_moved():
    """A network that was trained with the matrix predicts the true shares."""
    true, given, _ = simulate(4000)
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(4000, 4)) + 2.0 * np.eye(4)[true]
    rows = torch.from_numpy(logits + np.log(SHARES)).softmax(dim=1)
    estimate = transition_from_verified(true, given, num_classes=4)
    result = audit(given, rows, transition=estimate)
    plain = audit(given, rows, transition=estimate.matrix)
    same = (result.suggestion == plain.suggestion).double().mean()
    assert same > 0.97
    wrong = (true != given).tolist()
    assert reference.average_precision(result.ranking.tolist(), wrong) == pytest.approx(
        reference.average_precision(plain.ranking.tolist(), wrong), abs=0.01
    )


def test_it_finds_wrong_labels_and_better_than_the_margin():
    true, given, rows = simulate()
    wrong = (true != given).tolist()

    def precision(**options):
        return reference.average_precision(audit(given, rows, **options).ranking.tolist(), wrong)

    margin = precision(score="log_margin")
    verified = transition_from_verified(true[:100], given[:100], num_classes=4)
    assert precision() > margin > 0.5
    assert precision(transition=TRANSITION) > margin + 0.02
    assert precision(transition=verified) > margin + 0.02
    assert precision(score=rows.numpy()[:, 0]) < margin


def test_neighbours_are_looked_at_where_embeddings_are_given():
    true, given, rows = simulate(300)
    embeddings = torch.eye(4)[torch.from_numpy(true)] + 0.1 * torch.randn(300, 4)
    result = audit(given, rows, embeddings=embeddings, score="neighbors")
    wrong = (true != given).tolist()
    assert reference.average_precision(result.ranking.tolist(), wrong) > 0.9
    assert torch.equal(result.score, result.neighbor_disagreement)
    assert audit(given, rows).neighbor_disagreement is None


@pytest.mark.parametrize("classes", [2, 1000])
def test_two_to_a_thousand_classes(classes):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, classes, generator=generator).softmax(dim=1)
    given = torch.randint(classes, (50,), generator=generator)
    result = audit(given, rows)
    assert sorted(result.ranking.tolist()) == list(range(50))
    assert len(result.table) == classes
    assert len(result.text().splitlines()) == classes + 1


def test_the_fingerprint_is_that_of_the_labels():
    _, given, rows = simulate(50)
    ids = [f"{row}.png" for row in range(50)]
    result = audit(given, rows, classes=CLASSES, ids=ids)
    assert result.fingerprint == fingerprint(ids, torch.from_numpy(given), CLASSES)
    numbered = audit(given, rows)
    names = [str(row) for row in range(50)], ["0", "1", "2", "3"]
    assert numbered.fingerprint == fingerprint(names[0], torch.from_numpy(given), names[1])


def test_is_written_with_harmless_names(tmp_path):
    _, given, rows = simulate(5)
    ids = ["=2+3.png", "<img src=x onerror=alert(1)>.png", "a,b.png", "@x", "\udce9.png"]
    result = audit(given, rows, classes=CLASSES, ids=ids)
    result.write(tmp_path / "suspects.csv", count=5)
    text = (tmp_path / "suspects.csv").read_text(encoding="utf-8", errors="surrogateescape")
    lines = list(csv.DictReader(text.splitlines()))
    assert [line["id"].lstrip("'") for line in lines] == [ids[row] for row in result.ranking]
    assert {"'=2+3.png", "'@x"} <= {line["id"] for line in lines}
    assert lines[0]["given"] == CLASSES[given[result.ranking[0]]]
    result.write(tmp_path / "few.csv", count=2)
    assert len((tmp_path / "few.csv").read_bytes().splitlines()) == 3


def test_the_table_is_text():
    _, given, rows = simulate(50)
    lines = audit(given, rows, classes=CLASSES).text().splitlines()
    assert lines[0].split()[:4] == ["label", "given", "network", "agrees"]
    assert [line.split()[0] for line in lines[1:]] == CLASSES
    agree = (rows.argmax(1) == torch.from_numpy(given))[given == 0].double().mean()
    assert lines[1].split()[2:4] == [f"{100 * agree:.0f}", "%"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"score": "margin"}, ValueError, "score must be 'posterior', .* got 'margin'"),
        ({"score": "neighbors"}, ValueError, "score='neighbors' needs embeddings"),
        ({"score": [1.0]}, ValueError, "score has N=1 but probabilities has N=20"),
        ({"classes": ["a", "b"]}, ValueError, "classes must name each of 4"),
        (
            {"classes": ["a", "b", "a", "c"]},
            ValueError,
            "must have each name once, got 'a' 2",
        ),
        ({"ids": ["a"]}, ValueError, "ids must name each of 20 samples, got 1"),
        ({"embeddings": [[1.0]]}, ValueError, "embeddings has N=1|given has N=20"),
        ({"transition": torch.eye(3)}, ValueError, "transition has C=3 but probabilities has C=4"),
        ({"num_neighbors": 0, "embeddings": [[1.0]]}, ValueError, "num_neighbors must be"),
    ],
)
def test_refuses(options, error, message):
    _, given, rows = simulate(20)
    with pytest.raises(error, match=message):
        audit(given, rows, **options)


ROWS = torch.tensor([[0.25, 0.75], [0.5, 0.5]])


def test_predictions_are_read_from_each_kind_of_file(tmp_path):
    (tmp_path / "a.csv").write_text("glad,id,sad\n0.25,x.png,0.75\n0.5,y.png,0.5\n")
    np.savez(
        tmp_path / "b.npz", probabilities=ROWS, ids=["x.png", "y.png"], classes=["glad", "sad"]
    )
    np.savez(tmp_path / "c.npz", ROWS.half())
    save_file({"probabilities": ROWS, "embeddings": torch.zeros(2, 9)}, tmp_path / "d.safetensors")
    for name, named in (
        ("a.csv", True),
        ("b.npz", True),
        ("c.npz", False),
        ("d.safetensors", False),
    ):
        found = read_probabilities(tmp_path / name)
        torch.testing.assert_close(found.probabilities.float(), ROWS)
        assert found.classes == (("glad", "sad") if named else None)
        assert found.ids == (["x.png", "y.png"] if named else None)
        audit([0, 1], found.probabilities, classes=found.classes, ids=found.ids)


def test_the_record_of_a_run_is_read(tmp_path):
    dynamics = TrainingDynamics(2, num_classes=2, given=torch.tensor([0, 1]))
    dynamics.update(torch.tensor([0, 1, 1]), torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    save_file(dynamics.state_dict(), tmp_path / "dynamics.safetensors")
    for path in (tmp_path, tmp_path / "dynamics.safetensors"):
        found = read_probabilities(path).probabilities
        torch.testing.assert_close(found.float(), dynamics.probabilities())
    with pytest.raises(FileNotFoundError, match=r"has no dynamics\.safetensors; give the folder"):
        read_probabilities(tmp_path.parent)


def record_of(folder, seen, given, final=None):
    """A run of a few visits, each of which predicts these classes."""
    dynamics = TrainingDynamics(len(given), num_classes=2, given=torch.tensor(given))
    for classes in seen:
        logits = 4.0 * torch.eye(2)[torch.tensor(classes)]
        dynamics.update(torch.arange(len(given)), logits)
    save_file(dynamics.state_dict(), folder / "dynamics.safetensors")
    if final is not None:
        rows = (4.0 * torch.eye(2)[torch.tensor(final)]).softmax(dim=1)
        save_file({"probabilities": rows}, folder / "final.safetensors")
    return dynamics


def test_the_final_weights_are_heard_unless_they_memorise(tmp_path):
    given = [0] * 10 + [1] * 10
    right = [0] * 8 + [1] * 10 + [0] * 2  # 16 of 20 labels
    dynamics = record_of(tmp_path, [right] * 3, given, final=right)
    found = read_probabilities(tmp_path)
    assert found.source == "mean over all visits, and the final weights"
    torch.testing.assert_close(found.probabilities.float(), dynamics.probabilities())
    assert read_probabilities(tmp_path / "dynamics.safetensors").source == "mean over all visits"
    for final in ([0] * 9 + [1] * 9 + [0] * 2, given):  # 17 and 20 of them
        dynamics = record_of(tmp_path, [right] * 3 + [given] * 9, given, final=final)
        found = read_probabilities(tmp_path)
        assert found.source == "mean over all visits"
        torch.testing.assert_close(found.probabilities.float(), dynamics.probabilities())
    save_file({"probabilities": torch.full((3, 2), 0.5)}, tmp_path / "final.safetensors")
    with pytest.raises(ValueError, match=r"final\.safetensors must have prob.*\(20, 2\).*\(3, 2\)"):
        read_probabilities(tmp_path)


def test_nothing_in_a_file_is_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (json.loads, ("[1, 2",))

    np.savez(tmp_path / "a.npz", probabilities=np.array([Trap(), Trap()], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz must be an npz file of plain arrays"):
        read_probabilities(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"sad,glad\n", "a.csv must have a row per sample"),
        ("a.csv", b"sad,glad\n0.5,x\n", "line 2: glad must be a probability, got 'x'"),
        (
            "a.csv",
            b"sad,glad\n0.5,0.9\n",
            "a.csv: rows of probabilities .* row 0 sums to 1.4",
        ),
        ("a.csv", b"sad\n1.0\n", "probabilities must have two classes or more"),
        ("a.csv", b"sad,glad\n0.5\n", "line 2: .* each of 2 columns, got 1"),
        ("a.npz", b"PK nothing", "a.npz must be an npz file of plain arrays"),
        ("a.safetensors", b"nothing", "a.safetensors must be a safetensors file"),
        ("a.pt", b"", r"path must end in \.csv, \.npz, \.safetensors, got .*a\.pt"),
    ],
)
def test_a_file_that_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_probabilities(tmp_path / name)


def test_a_path_that_does_not_exist(tmp_path):
    for name in ("runs", "predicted.npz", "predicted.pt"):
        with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
            read_probabilities(tmp_path / name)


def test_arrays_that_do_not_fit(tmp_path):
    for arrays, message in (
        ({"a": ROWS, "b": ROWS}, "must have 'probabilities', or only one array, got 'a', 'b'"),
        (
            {"probabilities": np.zeros((2, 2), dtype=int)},
            "must have a floating-point dtype",
        ),
        ({"probabilities": ROWS, "ids": np.array(["x"])}, "ids must hold 2 names, got 1"),
        ({"probabilities": ROWS, "classes": np.array([1, 2])}, "classes must be texts"),
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(ValueError, match=message):
            read_probabilities(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_probabilities(tmp_path / "b.npz")
