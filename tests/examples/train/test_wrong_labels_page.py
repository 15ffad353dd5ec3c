"""The guide to wrong labels: its commands run, one after the other, as a reader would."""

import json
import re
import shlex
from pathlib import Path

from PIL import Image

from examples.train.__main__ import main as train
from examples.train.commands import COMMANDS as COMMANDS_FOR_RUNS
from robustfer.cli import main as robustfer
from robustfer.data import DemoFaces, ImageFolder
from robustfer.noise import with_noise_list
from tests.examples.train.runs import ROOT

PAGE = (ROOT / "docs/find_wrong_labels.md").read_text(encoding="utf-8").replace(" \\\n", "")
OF_A_FOLDER, COMMANDS = (
    re.findall(r"^    ((?:robustfer|python -m examples\.train) .+)$", part, re.MULTILINE)
    for part in PAGE.split("## On synthetic faces")
)
FACES = 140
SHORT = ["--backbone=tiny", "--epochs=1", "--progress=false"]
SMALL = [
    *(*SHORT, f"--reader.num_samples={FACES}", "--reader.size=32"),
    *("--evaluate-reader.num_samples=14", "--evaluate-reader.size=32"),
]


def review(page: Path) -> None:
    """Decide as a person who knows the truth: on the random faces, and on a few suspects."""
    data = json.loads(re.search(r'<script id="data".*?>(.*?)</script>', page.read_text(), re.S)[1])
    faces = DemoFaces(FACES, size=32)
    true = {face: faces.classes[faces.targets[row]] for row, face in enumerate(faces.ids)}
    # In a folder, names are those of synthetic faces below the class that they were put into.
    named = {face["id"]: true[Path(face["id"]).stem] for face in data["random"] + data["suspects"]}
    lines = ["audit,part,id,label"]
    for part in ("random", "suspects"):
        lines += [
            f"{data['audit']},{part},{face['id']},{named[face['id']]}" for face in data[part][:100]
        ]
    Path("decisions.csv").write_text("\n".join(lines))


def test_the_page_has_the_whole_way():
    way = r"(?:robustfer(?: audit(?= apply))?|python -m examples\.train) (\w+)"
    steps = [re.match(way, command)[1] for command in COMMANDS]
    assert steps == ["noise", "ce", "audit", "apply", "retrain", "evaluate", "audit", "eac"]


def test_the_commands_of_the_page_run_in_their_order(capsys):
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "python":
            of_runs = arguments[2] in COMMANDS_FOR_RUNS
            done = train([*arguments[2:], *(["--progress=false"] if of_runs else SMALL)])
        else:
            done = robustfer(
                [*arguments, "--reader", f"num_samples={FACES}", "--reader", "size=32"]
            )
        shown = capsys.readouterr()
        assert done == 0, f"{command}\n{shown.err}"
        if "review.html" in command:
            review(Path("review.html"))
        if "apply" in arguments:
            assert "wrong labels: " in shown.out
            assert "transition matrix" in shown.out
    assert Path("review-2.html").is_file()
    assert Path("runs/ce/evaluation/demo-test-corrected/evaluation.json").is_file()
    true = DemoFaces(FACES)
    wrong = {
        name: int((with_noise_list(true, name).targets != true.targets).sum())
        for name in ("labels.txt", "better.txt")
    }
    assert wrong["labels.txt"] == round(0.3 * FACES)
    assert wrong["better.txt"] < wrong["labels.txt"] / 3  # the reviewer has seen most faces


def test_the_commands_for_a_folder_run_in_their_order(capsys):
    """Every fifth face is in the folder of the next class."""
    wrong = 0
    for root, split, count in (("faces", "train", FACES), ("test-faces", "test", 14)):
        faces = DemoFaces(count, split=split, size=32)
        for row, target in enumerate(faces.targets.tolist()):
            moved = split == "train" and row % 5 == 0
            wrong += moved
            folder = Path(root, faces.classes[(target + moved) % len(faces.classes)])
            folder.mkdir(parents=True, exist_ok=True)
            pixels = faces[row]["image"].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{faces.ids[row]}.png")
    assert [shlex.split(command)[:2] for command in OF_A_FOLDER].count(["robustfer", "audit"]) == 2
    for command in OF_A_FOLDER:
        program, *arguments = shlex.split(command)
        done = train([*arguments[2:], *SHORT]) if program == "python" else robustfer(arguments)
        assert done == 0, f"{command}\n{capsys.readouterr().err}"
        if "review.html" in command:
            review(Path("review.html"))
    faces = ImageFolder("faces")
    changed = int((with_noise_list(faces, "better.txt").targets != faces.targets).sum())
    assert 2 * wrong / 3 < changed <= wrong
