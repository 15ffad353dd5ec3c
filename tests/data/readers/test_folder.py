import os

import pytest
from torch.utils.data import DataLoader

from robustfer.data import EXPRESSIONS, ImageFolder
from robustfer.data.classes import EXPRESSIONS_WITH_CONTEMPT
from tests.data.trees import write_image


def tree(root, *paths, **options):
    for grey, path in enumerate(paths):
        write_image(root / path, grey=grey, **options)
    return root


def test_expressions_in_their_usual_order(tmp_path):
    faces = ImageFolder(tree(tmp_path, "neutral/b.png", "neutral/a.JPG", "fear/c.png"))
    assert faces.classes == EXPRESSIONS
    assert faces.ids == ["fear/c.png", "neutral/a.JPG", "neutral/b.png"]
    assert [faces.classes[target] for target in faces.targets] == ["fear", "neutral", "neutral"]
    assert faces[0]["image"].unique().tolist() == [2]
    assert len(DataLoader(faces, batch_size=3)) == 1


def test_contempt_makes_eight_classes(tmp_path):
    faces = ImageFolder(tree(tmp_path, "contempt/a.png", "fear/a.png"))
    assert faces.classes == EXPRESSIONS_WITH_CONTEMPT


def test_synonyms_and_numbers(tmp_path):
    tree(tmp_path / "words", "Happy/a.png", "joy/b.png", "SAD/c.png")
    faces = ImageFolder(tmp_path / "words")
    assert faces.classes == EXPRESSIONS
    assert dict(zip(faces.ids, faces.targets.tolist(), strict=True)) == {
        "Happy/a.png": 3,
        "SAD/c.png": 4,
        "joy/b.png": 3,
    }
    tree(tmp_path / "numbers", "train/1/a.png", "train/6/a.png", "test/2/a.png")
    faces = ImageFolder(tmp_path / "numbers", split="train", numbers="rafdb")
    assert [faces.classes[target] for target in faces.targets] == ["surprise", "anger"]
    with pytest.raises(ValueError, match="label is the number '[126]', whose meaning differs"):
        ImageFolder(tmp_path / "numbers", split="train")
    names = ["2", "1", "6"]
    assert ImageFolder(tmp_path / "numbers", split="train", classes=names).classes == tuple(names)
    tree(tmp_path / "numbers", "test/8/a.png")
    with pytest.raises(ValueError, match="/8: label must be a whole number from 1 to 7, got '8'"):
        ImageFolder(tmp_path / "numbers", split="train", numbers="rafdb")


def test_classes_in_the_order_of_a_data_set(tmp_path):
    tree(tmp_path, "fear/a.png", "anger/a.png")
    faces = ImageFolder(tmp_path, classes="fer2013")
    assert faces.classes[:3] == ("anger", "disgust", "fear")
    assert sorted(faces.targets.tolist()) == [0, 2]


def test_other_names_are_sorted_over_all_splits(tmp_path):
    tree(tmp_path, "train/dog/a.png", "train/cat/a.png", "val/ant/a.png")
    train = ImageFolder(tmp_path, split="train")
    validation = ImageFolder(tmp_path, split="validation")
    assert train.classes == validation.classes == ("ant", "cat", "dog")
    assert train.ids == ["train/cat/a.png", "train/dog/a.png"]
    assert validation.targets.tolist() == [0]


def test_classes_in_the_order_given(tmp_path):
    tree(tmp_path, "dog/a.png", "cat/a.png")
    faces = ImageFolder(tmp_path, classes=["dog", "cat", "cow"])
    assert faces.classes == ("dog", "cat", "cow")
    assert dict(zip(faces.ids, faces.targets.tolist(), strict=True)) == {
        "cat/a.png": 1,
        "dog/a.png": 0,
    }


def test_what_is_left_out_is_counted(tmp_path):
    tree(tmp_path, "fear/a.png", "b.png", "fear/.c.png")
    for name in ("fear/notes.txt", "fear/README", "fear/.DS_Store", "fear/Thumbs.db"):
        (tmp_path / name).write_text("")
    (tmp_path / "sad").mkdir()
    faces = ImageFolder(tmp_path)
    assert faces.ids == ["fear/a.png"]
    assert faces.excluded == {
        "hidden": 1,
        "outside the class folders": 1,
        "folder without an image": 1,
        "no image by its ending (.txt)": 1,
        "no image by its ending (.db)": 1,
        "no image by its ending (none)": 1,
    }


SEVEN = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


@pytest.mark.parametrize(
    "stray",
    [
        "__MACOSX/happy/._0.png",
        "__MACOSX/0.png",
        ".ipynb_checkpoints/0-checkpoint.png",
        "@eaDir/0.png/SYNOPHOTO_THUMB_S.jpg",
        "landmarks/points.npz",
        "new folder/",
        "happy/._0.png",
        "happy/.thumbnails/0.png",
    ],
)
def test_what_is_not_an_image_of_a_class_makes_no_class(tmp_path, stray):
    tree(tmp_path, *(f"{name}/0.png" for name in SEVEN))
    path = tmp_path / stray
    path.mkdir(parents=True) if stray.endswith("/") else path.parent.mkdir(
        parents=True, exist_ok=True
    )
    if not stray.endswith("/"):
        path.write_bytes(b"x")
    faces = ImageFolder(tmp_path)
    assert faces.classes == EXPRESSIONS
    assert faces.ids == [f"{name}/0.png" for name in SEVEN]
    assert faces[0]["image"].shape == (3, 48, 48)


def test_an_empty_folder_of_another_split_makes_no_class(tmp_path):
    tree(tmp_path, "train/happy/a.png", "val/happy/a.png")
    (tmp_path / "val" / "unsorted").mkdir()
    assert ImageFolder(tmp_path, split="train").classes == EXPRESSIONS
    tree(tmp_path, "val/unsorted/a.png")
    assert ImageFolder(tmp_path, split="train").classes == ("happiness", "unsorted")


def test_folders_below_a_class(tmp_path):
    tree(tmp_path, "happy/0.png", "happy/anna/2/1.png", "happy/anna/0.png", "sad/happy.png")
    faces = ImageFolder(tmp_path)
    assert faces.ids == ["happy/0.png", "happy/anna/0.png", "happy/anna/2/1.png", "sad/happy.png"]
    assert [faces.classes[target] for target in faces.targets] == ["happiness"] * 3 + ["sadness"]
    assert faces[2]["image"].unique().tolist() == [1]
    tree(tmp_path, "dogs/dog/husky/0.png", "dogs/cat/0.png")
    assert ImageFolder(tmp_path / "dogs", classes=["cat", "dog"]).targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        (["anna/happy/0.png", "carl/sad/0.png"], {}, "anna/happy .* 'anna' or 'happy'; make root"),
        (
            ["train/sad/0.png", "val/anna/sad/0.png"],
            {"split": "train"},
            "val/anna/sad .* 'anna' or",
        ),
        (["happy/sad/0.png", "sad/0.png"], {}, "happy/sad .* can be 'happy' or 'sad'"),
        (["set/dog/0.png", "set/cat/0.png"], {}, "set/.* can be 'set' or the name of a folder"),
        (
            ["dog/cat/0.png", "cat/0.png"],
            {"classes": ["cat", "dog"]},
            "dog/cat .* can be 'dog' or 'cat'",
        ),
    ],
)
def test_folders_that_may_be_the_class_themselves(tmp_path, paths, options, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(tree(tmp_path, *paths), **options)


def test_linked_folders_are_read_but_not_in_circles(tmp_path):
    tree(tmp_path, "faces/sad/0.png", "elsewhere/1.png", "other.png")
    (tmp_path / "faces" / "happy").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "faces" / "sad" / "linked.png").symlink_to(tmp_path / "other.png")
    faces = ImageFolder(tmp_path / "faces")
    assert faces.ids == ["happy/1.png", "sad/0.png", "sad/linked.png"]
    (tmp_path / "faces" / "sad" / "again").symlink_to(tmp_path / "faces" / "sad")
    with pytest.raises(ValueError, match="sad/again is a link to a folder above it"):
        ImageFolder(tmp_path / "faces")


def test_images_that_cannot_be_read_are_named_and_not_dropped(tmp_path):
    tree(tmp_path, "sad/0.png")
    odd = tmp_path / "sad" / "1.png"
    odd.symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"sad/1\.png is a broken link"):
        ImageFolder(tmp_path)
    odd.unlink()
    odd.symlink_to("1.png")
    with pytest.raises(ValueError, match=r"sad/1\.png is a broken link"):
        ImageFolder(tmp_path)
    odd.unlink()
    (tmp_path / "happy").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"happy is a broken link; remove it"):
        ImageFolder(tmp_path)
    (tmp_path / "happy").unlink()
    os.mkfifo(odd)
    with pytest.raises(ValueError, match=r"sad/1\.png is not a regular file"):
        ImageFolder(tmp_path)
    odd.unlink()
    (tmp_path / "sad" / "1.HEIC").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sad/1\.HEIC is an image of a format that is not read"):
        ImageFolder(tmp_path)


def test_names_that_are_not_utf8(tmp_path):
    tree(tmp_path, "sad/0.png")
    path = os.fsencode(tmp_path / "sad") + b"/\xc0\xb6.png"
    os.link(tmp_path / "sad" / "0.png", path)
    with pytest.raises(ValueError, match=r"'sad/\\udcc0\\udcb6\.png'.* Rename the file") as caught:
        ImageFolder(tmp_path)
    assert str(caught.value).isascii()


def test_a_misspelt_expression(tmp_path):
    names = ["Angry", "Contempt", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Suprise"]
    tree(tmp_path, *(f"{name}/0.png" for name in names))
    with pytest.raises(ValueError, match=r"the folder .*Suprise: .* mean 'surprise'\?"):
        ImageFolder(tmp_path)
    own = ImageFolder(tmp_path, classes=[*names[:-1], "Suprise"])
    assert own.classes[-1] == "Suprise"


def test_numbers_as_folders(tmp_path):
    tree(tmp_path, "3.0/a.png", "+3/b.png", "1/c.png")
    faces = ImageFolder(tmp_path, numbers="affectnet")
    assert faces.ids == ["+3/b.png", "1/c.png", "3.0/a.png"]
    assert [faces.classes[target] for target in faces.targets] == [
        "surprise",
        "happiness",
        "surprise",
    ]
    counted = ImageFolder(tmp_path, numbers="classes", classes=["a", "b", "c", "d"])
    assert counted.targets.tolist() == [3, 1, 3]
    with pytest.raises(ValueError, match=r"/\+3: label is the number '\+3', whose meaning differs"):
        ImageFolder(tmp_path)
    tree(tmp_path, "nan/d.png")
    with pytest.raises(ValueError, match="/nan: label 'nan' stands for a missing value"):
        ImageFolder(tmp_path, numbers="affectnet")
    tree(tmp_path / "mixed", "happy/a.png", "4/a.png")
    with pytest.raises(ValueError, match="/4: label is the number '4', whose meaning"):
        ImageFolder(tmp_path / "mixed")


def test_split_folders_in_any_case(tmp_path):
    tree(tmp_path, "Train/happy/a.png", "VAL/sad/a.png")
    assert ImageFolder(tmp_path, split="train").ids == ["Train/happy/a.png"]
    assert ImageFolder(tmp_path, split="validation").ids == ["VAL/sad/a.png"]


@pytest.mark.parametrize("in_memory", [False, True])
def test_images_of_several_sizes_need_a_size(tmp_path, in_memory):
    tree(tmp_path, "fear/a.png")
    tree(tmp_path, "fear/b.png", size=(30, 20))
    with pytest.raises(
        ValueError, match=r"fear/b\.png has 30 x 20 pixels, expected the 48 x 48 of fear/a\.png"
    ):
        next(iter(DataLoader(ImageFolder(tmp_path, in_memory=in_memory), batch_size=2)))
    faces = ImageFolder(tmp_path, size=24, in_memory=in_memory)
    assert next(iter(DataLoader(faces, batch_size=2)))["image"].shape == (2, 3, 24, 24)


def test_unknown_class(tmp_path):
    tree(tmp_path, "fear/a.png", "hapiness/a.png")
    with pytest.raises(ValueError, match=r"hapiness: .* one of surprise, .*mean 'happiness'\?"):
        ImageFolder(tmp_path, classes=EXPRESSIONS)


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        ImageFolder(tmp_path / "nowhere")
    tree(tmp_path, "fear/a.png")
    with pytest.raises(FileNotFoundError, match=r"no folder validation or valid or val for"):
        ImageFolder(tmp_path, split="validation")


def test_no_images(tmp_path):
    (tmp_path / "fear").mkdir()
    with pytest.raises(ValueError, match="has no image, expected files like"):
        ImageFolder(tmp_path)


def test_splits_must_be_told(tmp_path):
    tree(tmp_path, "train/fear/a.png", "val/fear/a.png")
    with pytest.raises(ValueError, match="has the splits train, validation; choose one"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="split must be None or one of train, .* got 'all'"):
        ImageFolder(tmp_path, split="all")
    tree(tmp_path, "valid/fear/a.png")
    with pytest.raises(ValueError, match="val and .*valid both stand for the split 'validation'"):
        ImageFolder(tmp_path, split="train")
