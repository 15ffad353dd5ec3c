import inspect

import pytest
import torch

from robustfer.data import (
    FER2013,
    RAFDB,
    AffectNet,
    DemoFaces,
    FERPlus,
    ImageFolder,
    LabelTable,
    load,
)
from robustfer.data.classes import class_order
from tests.data.trees import (
    vote_row,
    write_affectnet_arrays,
    write_fer2013,
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


def test_a_program_that_changes_its_folder(tmp_path, monkeypatch):
    write_rafdb(tmp_path / "data", ["train_1.jpg 1"])
    (tmp_path / "faces.csv").write_text("path,label\ndata/Image/original/train_1.jpg,4\n")
    monkeypatch.chdir(tmp_path)
    faces = load("rafdb:data", images="original")
    others = load("table:faces.csv", split=None, numbers="rafdb", labels="label")
    monkeypatch.chdir(tmp_path.parent)
    assert torch.equal(faces[0]["image"], others[0]["image"])
    assert faces.load_landmarks(0).shape == (5, 2)


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


def test_fer2013(tmp_path):
    path = tmp_path / "fer2013.csv"
    write_fer2013(path, ["PublicTest", "Training"])
    faces = load(f"fer2013:{path}", split="validation", size=24, classes="fer2013")
    assert isinstance(faces, FER2013)
    assert (faces.ids, faces.targets.tolist()) == (["fer0000000.png"], [0])
    assert faces[0]["image"].shape == (3, 24, 24)


@pytest.mark.parametrize(
    ("kind", "reader"),
    [("rafdb", RAFDB), ("ferplus", FERPlus), ("affectnet", AffectNet), ("table", LabelTable)],
)
def test_every_option_of_a_reader_is_known(kind, reader, tmp_path):
    for name in list(inspect.signature(reader).parameters)[1:]:
        if name not in ("split", "classes"):
            with pytest.raises((FileNotFoundError, ValueError, TypeError)) as caught:
                load(f"{kind}:{tmp_path / 'nowhere'}", **{name: object()})
            assert "no option" not in str(caught.value)


def test_none_is_the_default_of_the_reader_even_where_it_has_no_such_option():
    assert load("demo", num_samples=None, fer2013_labels=None).ids == DemoFaces().ids


def test_classes_are_an_option_of_a_reader_that_has_it(tmp_path):
    write_image(tmp_path / "Suprise" / "a.png")
    write_image(tmp_path / "Happy" / "b.png")
    faces = load(f"folder:{tmp_path}", split=None, classes=["Suprise", "Happy"])
    assert faces.classes == ("Suprise", "happiness")
    assert load("demo", num_samples=7, classes="fer2013").classes == class_order("fer2013")


def test_a_transform():
    faces = load("demo", num_samples=7, transform=lambda image: image.float() / 255)
    assert faces[0]["image"].dtype == torch.float32
    assert torch.equal(faces[0]["image"] * 255, DemoFaces(7)[0]["image"].float())


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
        ("demo", {"labels": "majority"}, "demo has no option labels; it has num_samples, size, "),
        ("demo", {"num_sample": 9}, r"no option num_sample; .* did you mean 'num_samples'\?"),
        ("demo", {"root": "x"}, "demo has no option root"),
        ("rafdb:x", {"root": "y"}, "rafdb has no option root; it has images, landmark_file, size"),
        ("rafdb:x", {"image": "face"}, r"rafdb has no option image; .* did you mean 'images'\?"),
        ("table:x", {"table": "y"}, "table has no option table"),
        ("rafdb:x", {"split": None}, "split must be train or test, got None"),
        ("demo", {"split": "all"}, "split must be 'train', .* got 'all'"),
        ("ferplus:x", {"seed": 1}, "ferplus has no option seed"),
        ("folder:x", {"num_samples": 1}, "folder has no option num_samples"),
    ],
)
def test_mistakes(spec, options, message):
    with pytest.raises(ValueError, match=message):
        load(spec, **options)


@pytest.mark.parametrize("kind", ["ferplus", "fer2013", "folder", "rafdb", "affectnet", "table"])
def test_a_root_that_is_not_there(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load(f"{kind}:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("spec", ["demo", "ferplus:x", "fer2013:x", "rafdb:x", "table:x"])
def test_unknown_split(spec):
    with pytest.raises(ValueError, match="split must be .*train.* got 'val'"):
        load(spec, split="val")


@pytest.mark.parametrize("spec", ["demo", "ferplus:x", "rafdb:x", "affectnet:x"])
def test_only_a_folder_may_have_no_split(spec):
    with pytest.raises(ValueError, match="split must be .*train.* got None"):
        load(spec, split=None)
