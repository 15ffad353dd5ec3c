from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ChainDataset, DataLoader, Dataset, TensorDataset

from robustfer.data import EXPRESSIONS, WrappedFaces
from robustfer.data.classes import class_order
from robustfer.noise import with_symmetric_noise
from robustfer.state import LabelStore

NAMES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


class Own(Dataset):
    """A data set as people write them; grey values count the rows."""

    def __init__(self, labels, **attributes):
        self.labels, self.read = labels, 0
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        self.read += 1
        return Image.new("L", (48, 40), color=row), self.labels[row]


class Table:
    """What a table of Hugging Face offers: rows, columns, and the names of a ClassLabel."""

    def __init__(self, labels, *, names=NAMES, image="image", label="label"):
        self.column_names = [image, label]
        self.features = {image: object(), label: SimpleNamespace(names=names)}
        self.columns = {label: labels}
        self.image, self.label, self.read = image, label, 0

    def __len__(self):
        return len(self.columns[self.label])

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.columns[key]
        self.read += 1
        image = Image.new("RGB", (48, 40), color=(key, 0, 0))
        return {self.image: image, self.label: self.columns[self.label][key]}


def names(faces):
    return [faces.classes[target] for target in faces.targets]


def test_a_table_of_hugging_face():
    table = Table([0, 3, 6])
    faces = WrappedFaces(table)
    assert table.read == 0  # no image is decoded for the labels
    assert faces.classes == EXPRESSIONS
    assert names(faces) == ["anger", "happiness", "neutral"]
    assert faces[2]["image"].shape == (3, 40, 48)
    assert faces[2]["image"][:, 0, 0].tolist() == [2, 0, 0]
    other = WrappedFaces(Table([0, 3], image="img", label="emotion"), image="img", label="emotion")
    assert names(other) == ["anger", "happiness"]


def test_a_data_set_of_torchvision():
    faces = WrappedFaces(Own([0, 3, 1], classes=NAMES))
    assert names(faces) == ["anger", "happiness", "disgust"]
    own = Own([0, 3, 1], classes=NAMES, targets=[0, 3, 1])
    assert names(WrappedFaces(own, targets=own.targets)) == names(faces)
    assert own.read == 0


def test_names_that_are_numbers_need_a_meaning():
    own = Own([0, 6], classes=[*"1234567"])
    with pytest.raises(ValueError, match="the class '1' of dataset: .* meaning differs"):
        WrappedFaces(own)
    with pytest.raises(ValueError, match="the class '7' of dataset: .* from 0 to 6, got '7'"):
        WrappedFaces(own, numbers="fer2013")
    assert names(WrappedFaces(own, numbers="rafdb")) == ["surprise", "neutral"]
    assert names(WrappedFaces(own, classes=own.classes)) == ["1", "7"]


@pytest.mark.parametrize(
    "labels",
    [
        ["joy", "Sad", "angry"],
        [3, 4, 0],
        [np.int64(3), np.int64(4), np.int64(0)],
        [torch.tensor(3), torch.tensor(4), torch.tensor(0)],
    ],
    ids=["texts", "numbers", "numpy", "tensors"],
)
def test_labels_of_any_kind(labels):
    options = {} if isinstance(labels[0], str) else {"classes": "fer2013"}
    faces = WrappedFaces(Own(labels), **options)
    assert names(faces) == ["happiness", "sadness", "anger"]
    assert faces.classes == (class_order("fer2013") if options else EXPRESSIONS)


def test_numbers_that_begin_elsewhere_and_classes_of_other_things():
    assert names(WrappedFaces(Own([1, 7]), numbers="rafdb")) == ["surprise", "neutral"]
    assert WrappedFaces(Own([1, 0], classes=["dog", "cat"])).classes == ("dog", "cat")
    assert names(WrappedFaces(Own([1, 0]), classes=["dog", "cat"])) == ["cat", "dog"]
    assert WrappedFaces(Own(["dog", "cat"])).classes == ("cat", "dog")


def test_probabilities():
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    for targets in (shares, shares.numpy(), shares.tolist()):
        faces = WrappedFaces(Own([0, 0]), targets=targets, classes=["a", "b", "c"])
        assert torch.equal(faces.targets, shares)


def test_rows_noise_and_a_label_store_in_one_line():
    faces = with_symmetric_noise(WrappedFaces(Table([0, 3, 6] * 20)), rate=0.25, seed=0)
    labels = LabelStore(faces.targets, num_classes=len(faces.classes))
    assert int((faces.targets != faces.true_targets).sum()) == 15
    for batch in DataLoader(faces, batch_size=16, shuffle=True, num_workers=2):
        assert torch.equal(labels(batch["index"]), batch["target"])
        assert batch["image"][:, 0, 0, 0].tolist() == batch["index"].tolist()


def test_ids():
    assert WrappedFaces(Own([0, 1]), classes="fer2013").ids == ["0", "1"]
    assert WrappedFaces(Own([0, 1]), classes="fer2013", ids=["x", "y"]).ids == ["x", "y"]


PIXELS = torch.arange(3 * 4 * 5, dtype=torch.uint8).reshape(3, 4, 5)
READ_ONLY = PIXELS.permute(1, 2, 0).contiguous().numpy()
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS.permute(1, 2, 0).numpy(),
        READ_ONLY,
        PIXELS.permute(1, 2, 0).contiguous().numpy()[:, ::-1][:, ::-1],
        Image.fromarray(PIXELS.permute(1, 2, 0).contiguous().numpy()),
        PIXELS.float() / 255,
        PIXELS.double() / 255,
    ],
    ids=["tensor", "numpy", "read-only", "strides", "pillow", "floats", "doubles"],
)
def test_images_of_any_kind(image):
    found = WrappedFaces([(image, "sad")])[0]["image"]
    assert torch.equal(found, PIXELS)
    assert found.dtype == torch.uint8
    found.zero_()
    assert int(PIXELS.max()) == 59


@pytest.mark.parametrize("image", [PIXELS[0], PIXELS[:1], PIXELS[0].numpy(), PIXELS[0][..., None]])
def test_grey_images(image):
    image = image.numpy() if image.shape[-1] == 1 else image
    assert torch.equal(WrappedFaces([(image, "sad")])[0]["image"], PIXELS[:1].repeat(3, 1, 1))


def test_a_tensor_data_set():
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    faces = WrappedFaces(TensorDataset(images, torch.tensor([0, 1, 2, 1])), classes=["a", "b", "c"])
    assert faces.targets.tolist() == [0, 1, 2, 1]
    assert torch.equal(faces[3]["image"], images[3])


@pytest.mark.parametrize(
    ("dataset", "options", "error", "message"),
    [
        (Own([0, 1]), {}, ValueError, r"row 0: label is the number '0'.* numbers=.* or classes"),
        (
            Own([0, 9]),
            {"classes": "fer2013"},
            ValueError,
            "row 1: label must be .* 0 to 6, got '9'",
        ),
        (Own([0, -1], classes=NAMES), {}, ValueError, "row 1: label must be .* got '-1'"),
        (Own(["sad", "suprise"]), {}, ValueError, "row 1: label 'suprise' .* mean 'surprise'"),
        (Own([]), {}, ValueError, "dataset must have at least one row"),
        (
            Own([0, 1]),
            {"targets": [0]},
            ValueError,
            "targets must have a label for each of 2 rows, got 1",
        ),
        (
            Own([0]),
            {"targets": torch.ones(1, 2) / 2},
            ValueError,
            "probabilities need names .* pass classes=",
        ),
        (Own([0]), {"classes": "fer2013", "ids": ["a", "b"]}, ValueError, "targets must have"),
        ({"train": 1, "test": 2}, {}, TypeError, "got dict; choose one of train, test"),
        (3, {}, TypeError, "dataset must have a length and rows by number, got int"),
        (ChainDataset([]), {}, TypeError, "must have a length"),
        ([{"img": 1, "label": "sad"}], {"label": "y"}, ValueError, "row 0 has no 'y', but img"),
        ([torch.zeros(3)], {}, TypeError, r"row 0 must be \(image, label, ...\) or .* got Tensor"),
        ([(PIXELS,)], {}, TypeError, r"row 0 must be \(image, label, ...\)"),
    ],
)
def test_data_sets_that_do_not_fit(dataset, options, error, message):
    with pytest.raises(error, match=message):
        WrappedFaces(dataset, **options)


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (
            {"img": PIXELS, "label": "sad"},
            ValueError,
            "no 'image', but img, label; pass .* image=",
        ),
        (("a.png", "sad"), TypeError, "must be a Pillow image, a numpy array or a tensor, got str"),
        ((torch.zeros(5, 4, 4), "sad"), ValueError, r"must be a tensor \(3, H, W\)"),
        ((np.zeros((3, 8, 9), np.uint8), "sad"), ValueError, r"array \(H, W, 3\)"),
        ((PIXELS.float(), "sad"), ValueError, r"floats in \[0, 1\], got 0 to 59; do not normal"),
        ((PIXELS.float() * torch.nan, "sad"), ValueError, r"floats in \[0, 1\]"),
        ((PIXELS.int(), "sad"), ValueError, "must be uint8 or floats, got torch.int32"),
        ((Image.new("F", (4, 4)), "sad"), ValueError, "more than 8 bits"),
    ],
)
def test_images_that_do_not_fit(row, error, message):
    faces = WrappedFaces([row])
    with pytest.raises(error, match=f"row 0.*{message}"):
        faces[0]
