"""Each page runs, is short, needs nothing but the library, and evaluates what it has trained."""

import ast
import contextlib
import io
from pathlib import Path

import pytest
import torch

from robustfer.data import DemoFaces

FOLDER = Path(__file__).parents[2] / "examples"
MOST_LINES = {
    "cross_entropy": 70, "eac": 70, "scn": 70, "gsmc": 70, "robust": 80, "lanet": 100,
    "compose": 60,
}  # fmt: skip
TEST_FACES = 14


def source(name):
    return (FOLDER / f"{name}.py").read_text()


@pytest.fixture(scope="module", params=MOST_LINES)
def page(request):
    """Name, variables and printed lines of a page that ran for two steps."""
    tree = ast.parse(source(request.param))
    sizes = [
        node
        for node in tree.body
        if ast.unparse(node).startswith("EPOCHS, TRAIN_FACES, TEST_FACES")
    ]
    assert len(sizes) == 1
    sizes[0].value = ast.parse(f"(1, 128, {TEST_FACES})", mode="eval").body
    names, printed = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(printed), torch.random.fork_rng():
        exec(compile(ast.fix_missing_locations(tree), request.param, "exec"), names)
    return request.param, names, printed.getvalue().splitlines()


def test_a_page_reports_the_accuracy_of_its_model(page):
    name, names, printed = page
    assert len(names["loader"]) == 2
    assert bool(names["loss"].isfinite())
    faces = DemoFaces(TEST_FACES, split="test")
    images = torch.stack([faces[row]["image"] for row in range(TEST_FACES)]).to(names["device"])
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.no_grad():
        images = (images.cpu() / 255 - mean) / std
        predicted = names["model"].eval()(images).logits
        if name == "robust":  # averaged weights, mirrored
            average = names["average"]
            predicted = sum(average(view).logits.softmax(1) for view in (images, images.flip(-1)))
    right = (predicted.argmax(1).cpu() == faces.targets).sum()
    assert names["history"].last["accuracy"] == int(right) / TEST_FACES
    assert "accuracy: last" in printed[-1]


def test_a_page_trains_all_its_weights(page):
    _, names, _ = page
    state = names["optimizer"].state
    for name, parameter in names["model"].named_parameters():
        assert parameter in state, name
        assert bool(parameter.isfinite().all()), name


def test_what_is_remembered_moves(page):
    name, names, printed = page
    if name == "scn":
        assert names["relabeler"].start_epoch <= names["EPOCHS"]
        assert 0 <= names["history"].last["changed"] <= 128
    if name == "gsmc":
        assert int(names["teacher"].step) == 2
    if name == "robust":
        assert int(names["average"].step) == 2
        assert int(names["estimate"].counts.sum()) == len(names["rows"]) == 100
        assert bool((names["labels"][names["rows"]].argmax(1) == names["true"]).all())
        changed = names["labels"].argmax(1) != names["given"]
        assert 0 < int(changed.sum()) < 128
    if name == "lanet":
        given = torch.nn.functional.one_hot(names["train_set"].targets, 7)
        assert not torch.equal(names["bank"].distribution.cpu(), given.float())
        assert int(names["average"].step) == 2
        assert names["queue"].negatives()["expression_queue"].abs().sum() > 0
    if name == "compose":
        assert "attention_flipped" in printed[0]


@pytest.mark.parametrize("name", MOST_LINES)
def test_a_page_is_short_and_needs_nothing_but_the_library(name):
    text = source(name)
    assert len(text.splitlines()) <= MOST_LINES[name]
    nodes = list(ast.walk(ast.parse(text)))
    imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    assert {module.partition(".")[0] for module in imported} <= {
        "kornia", "robustfer", "timm", "torch"
    }  # fmt: skip
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes)


def test_every_page_is_known():
    pages = {path.stem for path in FOLDER.glob("[!_]*.py")}
    assert pages == {*MOST_LINES, "demo"}
