import pytest
from torch.utils.data import DataLoader

from robustfer.data import EXPRESSIONS, EXPRESSIONS_WITH_CONTEMPT, ImageFolder
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
    assert ImageFolder(tmp_path / "numbers", split="train").classes == ("1", "2", "6")
    tree(tmp_path / "numbers", "test/8/a.png")
    with pytest.raises(ValueError, match="8 is of no known class; numbers lie in 1 to 7"):
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


def test_what_is_no_image_is_counted(tmp_path):
    tree(tmp_path, "fear/a.png", "fear/more/b.png", ".cache/c.png")
    (tmp_path / "fear" / "notes.txt").write_text("")
    faces = ImageFolder(tmp_path)
    assert faces.ids == ["fear/a.png"]
    assert faces.excluded == {
        "no image by its ending (none)": 1,
        "no image by its ending (.txt)": 1,
    }


@pytest.mark.parametrize("in_memory", [False, True])
def test_images_of_several_sizes_need_a_size(tmp_path, in_memory):
    tree(tmp_path, "fear/a.png")
    tree(tmp_path, "fear/b.png", size=(30, 20))
    with pytest.raises(ValueError, match=r"fear/b\.png has 30 x 20 pixels, but fear/a\.png has 48"):
        next(iter(DataLoader(ImageFolder(tmp_path, in_memory=in_memory), batch_size=2)))
    faces = ImageFolder(tmp_path, size=24, in_memory=in_memory)
    assert next(iter(DataLoader(faces, batch_size=2)))["image"].shape == (2, 3, 24, 24)


def test_unknown_class(tmp_path):
    tree(tmp_path, "fear/a.png", "hapiness/a.png")
    with pytest.raises(ValueError, match=r"hapiness is of no known class.*mean 'happiness'\?"):
        ImageFolder(tmp_path, classes=EXPRESSIONS)


def test_missing_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        ImageFolder(tmp_path / "nowhere")
    tree(tmp_path, "fear/a.png")
    with pytest.raises(FileNotFoundError, match=r"no folder validation or valid or val for"):
        ImageFolder(tmp_path, split="validation")


def test_no_images(tmp_path):
    (tmp_path / "fear").mkdir()
    with pytest.raises(ValueError, match="holds no image; expected are files like"):
        ImageFolder(tmp_path)


def test_splits_must_be_told(tmp_path):
    tree(tmp_path, "train/fear/a.png", "val/fear/a.png")
    with pytest.raises(ValueError, match="holds the splits train, validation; say which"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="split must be None or one of train, .* got 'all'"):
        ImageFolder(tmp_path, split="all")
    tree(tmp_path, "valid/fear/a.png")
    with pytest.raises(ValueError, match="valid and .*val both stand for the split 'validation'"):
        ImageFolder(tmp_path, split="train")
