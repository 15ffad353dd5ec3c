import pytest

from robustfer.data import RAFDB, AffectNet, DemoFaces, FERPlus, ImageFolder, LabelTable, load
from tests.data.trees import (
    vote_row,
    write_affectnet_arrays,
    write_ferplus,
    write_image,
    write_rafdb,
)


def test_demo():
    faces = load("demo", split="validation", num_samples=6, size=32, seed=1)
    assert isinstance(faces, DemoFaces)
    assert faces.ids == DemoFaces(num_samples=6, split="validation", size=32, seed=1).ids
    assert faces[0]["image"].shape == (3, 32, 32)


def test_ferplus(tmp_path):
    rows = [vote_row("a.png", fear=9), vote_row("b.png", usage="PublicTest", contempt=9)]
    write_ferplus(tmp_path, rows)
    faces = load(f"ferplus:{tmp_path}")
    assert isinstance(faces, FERPlus)
    assert faces.ids == ["a.png"]
    faces = load(f"ferplus:{tmp_path}", split="validation", num_classes=8, in_memory=True)
    assert faces.ids == ["b.png"]
    assert load(f"ferplus:{tmp_path}", labels="probability").targets.ndim == 2


def test_folder(tmp_path):
    write_image(tmp_path / "train" / "fear" / "a.png")
    faces = load(f"folder:{tmp_path}", size=24)
    assert isinstance(faces, ImageFolder)
    assert faces[0]["image"].shape == (3, 24, 24)
    assert load(f"folder:{tmp_path / 'train'}", split=None).ids == ["fear/a.png"]


def test_numbers_of_given_classes(tmp_path):
    write_image(tmp_path / "1" / "a.png")
    options = {"split": None, "numbers": "classes", "classes": ["sad", "happy"]}
    assert load(f"folder:{tmp_path}", **options).targets.tolist() == [1]
    (tmp_path / "t.csv").write_text("path,label\n1/a.png,0\n")
    faces = load(f"table:{tmp_path / 't.csv'}", **options)
    assert faces.classes[faces.targets[0]] == "sadness"


def test_rafdb(tmp_path):
    write_rafdb(tmp_path, ["train_1.jpg 1", "test_1.jpg 2"])
    faces = load(f"rafdb:{tmp_path}", split="test", images="face", size=16)
    assert isinstance(faces, RAFDB)
    assert faces.ids == ["test_1.jpg"]
    assert faces[0]["image"].shape == (3, 16, 16)


def test_affectnet(tmp_path):
    write_affectnet_arrays(tmp_path, [1, 7])
    faces = load(f"affectnet:{tmp_path}", num_classes=8, classes="affectnet")
    assert isinstance(faces, AffectNet)
    assert faces.targets.tolist() == [1, 7]


def test_table(tmp_path):
    path = tmp_path / "faces.csv"
    path.write_text("path,label\na.png,4\n")
    write_image(tmp_path / "a.png")
    faces = load(f"table:{path}", split=None, numbers="rafdb", labels="label")
    assert isinstance(faces, LabelTable)
    assert faces.classes[faces.targets[0]] == "happiness"


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_image(tmp_path / "faces" / "fear" / "a.png")
    assert load("folder:~/faces", split=None).ids == ["fear/a.png"]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("FERPlus:x", {}, r"no data set is called 'FERPlus'; .* did you mean 'ferplus'\?"),
        ("zzz", {}, "no data set is called 'zzz'; write demo, rafdb:.* or table:PATH$"),
        ("ferplus", {}, "ferplus needs a path: write ferplus:PATH"),
        ("folder:", {}, "folder needs a path: write folder:PATH"),
        ("demo:faces", {}, "demo takes no path"),
        ("demo", {"labels": "majority", "in_memory": True}, "no option labels, in_memory; it has"),
        ("ferplus:x", {"seed": 1}, "ferplus has no option seed"),
        ("folder:x", {"num_samples": 1}, "folder has no option num_samples"),
    ],
)
def test_mistakes(spec, options, message):
    with pytest.raises(ValueError, match=message):
        load(spec, **options)


@pytest.mark.parametrize("kind", ["ferplus", "folder", "rafdb", "affectnet", "table"])
def test_a_root_that_is_not_there(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        load(f"{kind}:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("spec", ["demo", "ferplus:x", "folder:x", "table:x"])
def test_unknown_split(spec):
    with pytest.raises(ValueError, match="split must be train, validation or test, got 'val'"):
        load(spec, split="val")


@pytest.mark.parametrize("spec", ["demo", "ferplus:x", "rafdb:x", "affectnet:x"])
def test_only_a_folder_may_have_no_split(spec):
    with pytest.raises(ValueError, match="split=None is for an image folder or a table alone"):
        load(spec, split=None)
