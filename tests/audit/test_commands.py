import csv
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from robustfer import cli
from robustfer.audit import audit
from robustfer.audit.shift import shift_of_shares
from robustfer.data import EXPRESSIONS, RAFDB, load
from robustfer.noise import transition_from_verified, with_noise_list, write_noise_list
from robustfer.state import TrainingDynamics
from tests.data.trees import write_rafdb

LINES = [f"train_{number:05}.jpg {1 + number % 7}" for number in range(1, 71)]


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run ``robustfer audit`` in an empty folder; status, standard output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = cli.main(["audit", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def raf(tmp_path):
    return write_rafdb(tmp_path / "raf", [*LINES, "test_0001.jpg 4"])


def predict(faces):
    """Predictions that contradict the first three labels."""
    generator = torch.Generator().manual_seed(0)
    seen = faces.targets.clone()
    seen[:3] = (seen[:3] + 1) % 7
    noise = torch.randn(len(faces), 7, generator=generator)
    return (noise + 6 * torch.eye(7)[seen]).softmax(dim=1)


def decide(path, faces, labels, mark, part="random"):
    rows = [f"{mark},{part},{faces.ids[row]},{label}" for row, label in labels.items()]
    path.write_text("\n".join(["audit,part,id,label", *rows]))
    return path


def test_a_class_that_the_network_has_not_learnt_is_named(run, raf, tmp_path):
    faces = RAFDB(raf)
    rows = predict(faces)
    save_file({"probabilities": rows}, tmp_path / "run.safetensors")
    arguments = ("run.safetensors", "--data", f"rafdb:{raf}", "--output", "page.html")
    assert "never agrees" not in run(*arguments)[1]
    name = faces.classes[label := int(faces.targets[-1])]
    rows[:, label] = 0
    save_file({"probabilities": rows / rows.sum(1, keepdim=True)}, tmp_path / "run.safetensors")
    message = f"the network never agrees with the label {name}: it has not learnt the class"
    assert message in run(*arguments)[1]


def test_from_predictions_to_corrected_labels(run, raf, tmp_path):
    faces = RAFDB(raf)
    rows = predict(faces)
    save_file({"probabilities": rows}, tmp_path / "run.safetensors")
    data = ("--data", f"rafdb:{raf}")
    status, out, err = run(
        "run.safetensors", *data, "--output", "page.html", "--ranking", "suspects.csv",
        "--random", 20, "--no-stratified",
    )  # fmt: skip
    assert (status, err) == (0, "")
    result = audit(faces.targets, rows, classes=faces.classes, ids=faces.ids)
    assert result.text() in out
    assert f"fingerprint {result.fingerprint}" in out
    assert f"then robustfer audit apply FILE --data rafdb:{raf} --output corrected.txt\n" in out
    assert '"drawn": "random"' in (tmp_path / "page.html").read_text()
    with (tmp_path / "suspects.csv").open() as file:
        found = [row["id"] for row in csv.DictReader(file)]
    assert found == [faces.ids[row] for row in result.ranking]
    assert set(found[:3]) == set(faces.ids[:3])

    names = {row: faces.classes[int(rows[row].argmax())] for row in range(30)}
    decide(tmp_path / "anna.csv", faces, names, result.fingerprint)
    decide(tmp_path / "ben.csv", faces, {0: "ambiguous"}, result.fingerprint, "suspects")
    status, out, err = run("apply", "anna.csv", "ben.csv", *data, "--output", "corrected.txt")
    assert (status, err) == (0, "")
    assert "29 labels decided, 2 of them changed, 1 ambiguous" in out
    assert "different decisions in two files: 1 of 30 faces, which count as ambiguous" in out
    # In one file, or in two that agree, nothing is contradicted.
    assert "different decisions" not in run("apply", "anna.csv", *data, "--output", "one.txt")[1]
    twice = run("apply", "anna.csv", "anna.csv", *data, "--output", "twice.txt")[1]
    assert "different decisions" not in twice
    corrected = with_noise_list(faces, tmp_path / "corrected.txt").targets
    expected = faces.targets.clone()
    expected[1:3] = (expected[1:3] + 1) % 7
    assert torch.equal(corrected, expected)
    true = (faces.targets[:30] + (torch.arange(30) < 3)) % 7
    estimate = transition_from_verified(true, faces.targets[:30], num_classes=7)
    assert estimate.text(faces.classes) in out
    shift = shift_of_shares(estimate.counts)
    low, high = f"{100 * shift.low:.0f}", f"{100 * shift.high:.0f}"
    expected = f"{100 * shift.share:.0f} % of the wrong labels ({low} - {high})"
    assert f"{expected} change the class shares" in out
    assert f"by chance {100 * shift.chance:.0f} % seem to" in out
    assert f"{estimate.matrix[0, 0]:.3f}  {estimate.matrix[0, 1]:.3f}" in out

    # Labels of a list are others, which the decisions are not about.
    status, out, err = run(
        "apply", "anna.csv", *data, "--list", "corrected.txt", "--output", "again.txt"
    )
    assert status == 1
    assert "the decisions are about labels with the fingerprint" in err
    status, out, err = run("run.safetensors", *data, "--decisions", "anna.csv")
    assert (status, err) == (0, "")
    verified = audit(faces.targets, rows, transition=estimate, classes=faces.classes, ids=faces.ids)
    assert verified.text() in out
    assert (tmp_path / "review.html").is_file()


def test_predictions_are_brought_into_the_order_of_the_data_set(run, raf, tmp_path):
    faces = RAFDB(raf)
    rows = predict(faces)
    order, columns = torch.randperm(70), torch.randperm(7)
    names = {"happiness": "happy", "sadness": "sad"}
    np.savez(
        tmp_path / "run.npz",
        probabilities=rows[order][:, columns].numpy(),
        ids=[faces.ids[row] for row in order],
        classes=[names.get(faces.classes[k], faces.classes[k]) for k in columns],
    )
    status, out, err = run("run.npz", "--data", f"rafdb:{raf}", "--suspects", 3)
    assert (status, err) == (0, "")
    assert audit(faces.targets, rows, classes=faces.classes, ids=faces.ids).text() in out


def test_columns_without_names_that_fit_another_order_are_refused(run, raf, tmp_path):
    # torchvision's ImageFolder numbers folders by the alphabet.
    faces = RAFDB(raf)
    columns = [faces.classes.index(name) for name in sorted(faces.classes)]
    rows = predict(faces)[:, columns].numpy()
    np.savez(tmp_path / "run.npz", rows)
    status, _, err = run("run.npz", "--data", f"rafdb:{raf}")
    assert status == 1
    assert "run.npz does not name its columns" in err
    assert "In that of the alphabet, counted from 0, 4.3% differ" in err
    assert "array 'classes' in npz" in err
    assert not (tmp_path / "review.html").exists()
    np.savez(tmp_path / "run.npz", probabilities=rows, classes=sorted(faces.classes))
    assert run("run.npz", "--data", f"rafdb:{raf}")[0] == 0


def test_the_next_command_names_the_same_labels(run, tmp_path):
    np.savez(tmp_path / "run.npz", np.full((14, 7), 1 / 7))
    faces = load("demo", num_samples=14, size=32, split="test")
    write_noise_list(tmp_path / "a list.txt", faces.ids, faces.targets)
    data = "--data demo --split test --list 'a list.txt' --base 1"
    data += " --reader num_samples=14 --reader size=32"
    status, out, err = run("run.npz", *shlex.split(data))
    assert (status, err) == (0, "")
    assert f"then robustfer audit apply FILE {data} --output corrected.txt\n" in out


def test_the_next_command_keeps_the_reviewed_labels(run, raf, tmp_path):
    faces = RAFDB(raf)
    labels = tmp_path / "corrected.txt"
    write_noise_list(labels, faces.ids, (faces.targets + (torch.arange(70) < 9)) % 7)
    reviewed = labels.read_bytes()
    save_file({"probabilities": predict(faces)}, tmp_path / "run.safetensors")
    data = ["--data", f"rafdb:{raf}", "--list", "corrected.txt"]
    status, out, err = run("run.safetensors", *data)
    assert (status, err) == (0, "")
    command = shlex.split(re.search("then robustfer audit (apply .+)", out)[1])
    assert command[-2:] == ["--output", "corrected-2.txt"]
    mark = re.search("fingerprint (.+)", out)[1]
    decide(tmp_path / "FILE", faces, {0: "fear"}, mark)
    assert run(*command)[0] == 0
    assert labels.read_bytes() == reviewed
    assert with_noise_list(faces, tmp_path / "corrected-2.txt").targets[0] == 1
    # The name by default is for a new file only.
    status, _, err = run("apply", "FILE", *data)
    assert (status, labels.read_bytes()) == (1, reviewed)
    assert "corrected.txt exists; choose the name of the corrected labels with --output" in err


@pytest.mark.parametrize("name", ["list.txt", "link.txt", "hard.txt", "a.csv", "raf/list.txt"])
def test_no_file_that_is_read_is_replaced(run, raf, tmp_path, name):
    faces = RAFDB(raf)
    write_noise_list(tmp_path / "list.txt", faces.ids, faces.targets)
    (tmp_path / "link.txt").symlink_to("list.txt")
    (tmp_path / "hard.txt").hardlink_to(tmp_path / "list.txt")
    (tmp_path / "raf" / "list.txt").write_text("")
    save_file({"probabilities": predict(faces)}, tmp_path / "run.safetensors")
    mark = audit(faces.targets, predict(faces), classes=faces.classes, ids=faces.ids).fingerprint
    decide(tmp_path / "a.csv", faces, {0: "fear"}, mark, "suspects")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    data = ("--data", f"rafdb:{raf}", "--list", "list.txt")
    for arguments in (
        ("apply", "a.csv", *data, "--output", name),
        ("run.safetensors", *data, "--decisions", "a.csv", "--output", name),
        ("run.safetensors", *data, "--decisions", "a.csv", "--ranking", name),
    ):
        status, _, err = run(*arguments)
        assert status == 1
        what = "replace a file of the data" if "raf" in name else "be a file that the command reads"
        assert f"{arguments[-2]} must not {what}, got {name}" in err
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_outputs_are_two_files_and_may_lie_beside_the_run(run, raf, tmp_path):
    faces = RAFDB(raf)
    (tmp_path / "ce").mkdir()
    dynamics = TrainingDynamics(70, num_classes=7, given=faces.targets)
    dynamics.update(torch.arange(70), predict(faces).log())
    save_file(dynamics.state_dict(), tmp_path / "ce" / "dynamics.safetensors")
    data = ("--data", f"rafdb:{raf}")
    for _ in range(2):
        assert run("ce", *data, "--output", "ce/review.html")[0] == 0
        # Nor is an earlier page among the data a file of the data.
        assert run("ce", *data, "--output", f"{raf}/review.html")[0] == 0
    status, _, err = run("ce", *data, "--output", "ce/dynamics.safetensors")
    assert status == 1
    assert "--output must not be a file that the command reads" in err
    status, _, err = run("ce", *data, "--output", "a.csv", "--ranking", "./a.csv")
    assert status == 1
    assert "--ranking and --output must be two files, got a.csv for both" in err


def test_samples_that_no_step_saw_are_counted(run, raf, tmp_path):
    faces = RAFDB(raf)
    dynamics = TrainingDynamics(70, num_classes=7, given=faces.targets)
    dynamics.update(torch.arange(60), predict(faces)[:60].log())
    save_file(dynamics.state_dict(), tmp_path / "dynamics.safetensors")
    status, out, err = run("dynamics.safetensors", "--data", f"rafdb:{raf}")
    assert (status, err) == (0, "")
    assert "predictions: mean over all visits (10 samples had none)" in out


def test_only_suspects_tell_nothing_of_how_labels_go_wrong(run, raf, tmp_path):
    faces = RAFDB(raf)
    mark = audit(faces.targets, predict(faces), classes=faces.classes, ids=faces.ids).fingerprint
    decide(tmp_path / "a.csv", faces, {0: "fear"}, mark, "suspects")
    status, out, _ = run("apply", "a.csv", "--data", f"rafdb:{raf}")
    assert status == 0
    assert "how labels go wrong is unknown: decisions must have samples of a random draw" in out
    assert (tmp_path / "corrected.txt").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0_aligned.png", "ids 'fear/0.png' and 'fear/0_aligned.png' are one name in a list"),
        ("a\u2028b.png", r"'fear/a\u2028b.png' cannot be written to a label list"),
    ],
)
def test_names_that_no_list_can_have_are_refused_before_the_review(run, tmp_path, name, message):
    root = tmp_path / "faces"
    for label in EXPRESSIONS[:2]:
        (root / label).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (16, 16), 20 * number).save(root / label / f"{number}.png")
    data = ("--data", "folder:faces", "--split", "all")
    Image.new("L", (16, 16)).save(root / "fear" / name)
    np.savez(tmp_path / "run.npz", np.full((13, 7), 1 / 7))
    status, _, err = run("run.npz", *data, "--ranking", "ranking.csv")
    assert status == 1
    assert message in err
    assert {path.name for path in tmp_path.iterdir()} == {"faces", "run.npz"}
    # Decisions about a page of Python tell their estimate first.
    faces = load("folder:faces", split=None)
    mark = audit(faces.targets, np.full((13, 7), 1 / 7), classes=faces.classes, ids=faces.ids)
    labels = {row: faces.classes[int(faces.targets[row])] for row in range(0, 12, 5)}
    decide(tmp_path / "a.csv", faces, labels, mark.fingerprint)
    status, out, err = run("apply", "a.csv", *data)
    assert status == 1
    assert "from 3 random faces" in out
    assert "transition matrix" in out
    assert message in err
    assert not (tmp_path / "corrected.txt").exists()


def test_duplicates_and_leaks_are_told(run, tmp_path):
    root = tmp_path / "faces"
    for split, count in (("train", 6), ("test", 3)):
        faces = load("demo", num_samples=count, split=split, size=48)
        for row in range(count):
            folder = root / split / EXPRESSIONS[row % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = faces[row]["image"].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{row}.png")
    twin = root / "train" / EXPRESSIONS[0] / "0.png"
    shutil.copy(twin, root / "train" / EXPRESSIONS[1] / "again.png")
    shutil.copy(twin, root / "test" / EXPRESSIONS[1] / "leak.png")
    np.savez(tmp_path / "run.npz", np.full((7, 7), 1 / 7))
    data = ("--data", f"folder:{root}")
    status, out, err = run("run.npz", *data, "--duplicates", "--against", "test")
    assert (status, err) == (0, "")
    assert "same face twice: 1 pairs, 1 with different labels" in out
    assert "also in the other split: 2 faces" in out
    assert "leak.png" in out
    assert "more pairs" not in out
    status, _, err = run("run.npz", *data, "--pairs", "pairs.csv")
    assert status == 1
    assert "--pairs needs --duplicates or --against, got neither; add one" in err
    status, out, err = run(
        "run.npz", *data, "--duplicates", "--against", "test", "--pairs", "pairs.csv"
    )
    assert (status, err) == (0, "")
    assert "pairs: pairs.csv\n" in out
    with (tmp_path / "pairs.csv").open(newline="") as file:
        first, *others = csv.DictReader(file)
    surprise, fear = EXPRESSIONS[:2]
    assert first == {
        "id": f"train/{fear}/again.png", "label": fear, "split": "train",
        "other_id": f"train/{surprise}/0.png", "other_label": surprise, "similarity": "1.0000",
    }  # fmt: skip
    assert {(row["id"], row["split"], row["other_id"]) for row in others} == {
        (name, "test", f"test/{fear}/leak.png") for name in (first["id"], first["other_id"])
    }
    status, other, err = run("run.npz", *data, "--against", f"test=folder:{root}")
    assert (status, err) == (0, "")
    assert "also in the other split: 2 faces" in other


def test_all_pairs_are_counted_and_written(run, tmp_path):
    size = ("--reader", "size=32", "--reader", "num_samples=7")
    np.savez(tmp_path / "run.npz", np.full((7, 7), 1 / 7))
    for split in ("train", "test"):
        for number in range(7):
            folder = tmp_path / "faces" / split / EXPRESSIONS[number]
            folder.mkdir(parents=True)
            face = load("demo", num_samples=7, size=48)[3]["image"]
            Image.fromarray(face.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    status, out, err = run("run.npz", "--data", "folder:faces", "--against", "test")
    assert (status, err) == (0, "")
    assert out.count(" and ") >= 10
    assert "  and 39 more pairs; --pairs FILE writes all\n" in out
    # A face of the audited split is not a leak.
    for against, *arguments in (
        ("train", "run.npz", "--data", "demo", *size),
        ("train=demo", "run.npz", "--data", "demo", *size),
        ("train", "run.npz", "--data", "folder:faces"),
        ("train=folder:./faces", "run.npz", "--data", "folder:faces"),
    ):
        status, _, err = run(*arguments, "--against", against, "--output", "again.html")
        assert status == 1
        assert "--against must name another split than the audited one, got train; use" in err
        assert not (tmp_path / "again.html").exists()
    assert run("run.npz", "--data", "demo", *size, "--against", "test")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.csv"], "missing.csv does not exist"),
        (["a.npz", "b.npz"], "needs one file of probabilities, got 2"),
        (["apply"], "apply needs files of decisions, got none"),
        (["few.npz"], "few.npz must have a row for each of 70 samples, got 2"),
        (["narrow.npz"], "narrow.npz must have the 7 classes of the data set, got 2"),
        (["named.npz"], "named.npz must have one column for each of"),
        (["other.npz"], "other.npz must have a prediction for each sample, but has none for"),
        (["decisions.csv"], "decisions of a review, not probabilities; apply them with robustfer"),
        (["few.npz", "--reader", "in_memory=3"], "in_memory must be True or False, got 3"),
    ],
)
def test_what_is_wrong_is_said(run, raf, tmp_path, arguments, message):
    rows = np.full((70, 7), 1 / 7)
    np.savez(tmp_path / "few.npz", rows[:2])
    np.savez(tmp_path / "narrow.npz", np.full((70, 2), 0.5))
    np.savez(tmp_path / "named.npz", probabilities=rows, classes=list("abcdefg"))
    np.savez(tmp_path / "other.npz", probabilities=rows, ids=[str(row) for row in range(70)])
    (tmp_path / "decisions.csv").write_text("audit,part,id,label\nabc,random,a.jpg,fear\n")
    status, _, err = run(*arguments, "--data", f"rafdb:{raf}")
    assert status == 1
    assert message in err
