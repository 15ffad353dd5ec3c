import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustfer.data import DemoFaces, LabelTable
from robustfer.landmarks import (
    DatasetLandmarks,
    LandmarkFile,
    LandmarkLayout,
    landmark_layout,
)

NAMES = ["b.png", "a.png", "c.png"]
POINTS = np.arange(30, dtype=np.float16).reshape(3, 5, 2) / 2


class Known:
    """A data set of samples whose points are known."""

    def __init__(self, points):
        self.all_ids, self.points = list(points), list(points.values())

    def landmarks(self, row):
        return self.points[row]


def npz(folder, **arrays):
    path = Path(folder, "landmarks.npz")
    np.savez(path, **{"image": np.array(NAMES), "landmarks": POINTS} | arrays)
    return path


def csv(folder, text):
    path = Path(folder, "landmarks.csv")
    path.write_text(text)
    return path


HEADER = "image,x0,y0,x1,y1,x2,y2,x3,y3,x4,y4"


def test_npz(tmp_path):
    provider = LandmarkFile(npz(tmp_path))
    landmarks, visible = provider(["a.png", "b.png", "a.png"])
    assert landmarks.dtype == torch.float32
    expected = torch.from_numpy(POINTS.astype(np.float32))[[1, 0, 1]]
    torch.testing.assert_close(landmarks, expected)
    assert bool(visible.all())
    assert visible.shape == (3, 5)
    assert provider.layout is landmark_layout(5)
    assert len(provider) == 3


def test_npz_with_faces_that_were_not_found(tmp_path):
    points = POINTS.copy()
    points[2, 4, 0] = np.nan  # one point alone
    path = npz(tmp_path, landmarks=points, detected=np.array([True, False, True]))
    landmarks, visible = LandmarkFile(path)(NAMES)
    assert visible.tolist() == [[True] * 5, [False] * 5, [True] * 4 + [False]]
    assert bool(landmarks[1].isnan().all())
    assert torch.equal(landmarks.isfinite().all(-1), visible)


def test_csv(tmp_path):
    text = f"{HEADER},detected\na.png,1,2,3,4,5.5,6,7,8,9,10,1\nb.png,,,,,,,,,,,0\n"
    text += "c.png,1,2,3,4,,6,7,8,9,10,1\nd.png,1,2,3,4,5,6,7,8,9,10,0\n"
    landmarks, visible = LandmarkFile(csv(tmp_path, text))(["a.png", "b.png", "c.png", "d.png"])
    assert landmarks[0].tolist() == [[1, 2], [3, 4], [5.5, 6], [7, 8], [9, 10]]
    hidden = [[True] * 5, [False] * 5, [True, True, False, True, True], [False] * 5]
    assert visible.tolist() == hidden


def test_csv_columns_in_any_order(tmp_path):
    text = "y1,note,x1,y0,x0,image\n4,left,3,2,1,a.png\n"
    eyes = LandmarkLayout(name="eyes", num_points=2, swap=(1, 0), groups={})
    landmarks, _ = LandmarkFile(csv(tmp_path, text), layout=eyes)(["a.png"])
    assert landmarks.tolist() == [[[1, 2], [3, 4]]]


def test_the_same_points_under_one_name_twice_do_no_harm(tmp_path):
    points = np.stack([POINTS[0], POINTS[1], POINTS[0]])
    points[[0, 2], 3] = np.nan
    path = npz(tmp_path, image=np.array(["a", "b", "a"]), landmarks=points)
    assert LandmarkFile(path)(["a"])[1].tolist() == [[True, True, True, False, True]]
    text = f"{HEADER}\na{',1' * 10}\nb{',3' * 10}\na{',1' * 10}\n"
    assert len(LandmarkFile(csv(tmp_path, text))) == 2


def test_samples_that_the_file_does_not_name(tmp_path):
    path = npz(tmp_path)
    message = (
        r"landmarks\.npz has no landmarks for 2 of 3 samples, the first 'x\.png', expected names "
        r"like 'b\.png'"
    )
    with pytest.raises(ValueError, match=message):
        LandmarkFile(path)(["x.png", "a.png", "y.png"])
    landmarks, visible = LandmarkFile(path, allow_missing=True)(["x.png", "a.png", "y.png"])
    assert visible.all(1).tolist() == [False, True, False]
    assert bool(landmarks[0].isnan().all())
    assert LandmarkFile(path)([])[0].shape == (0, 5, 2)


def test_providers_reach_loader_workers(tmp_path):
    provider = pickle.loads(pickle.dumps(LandmarkFile(npz(tmp_path))))
    assert provider.layout == landmark_layout(5)
    assert provider(["c.png"])[0][0, 0].tolist() == POINTS[2, 0].tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.array(["a", "b", "a"])}, "row 2: a is named a second time, .* than in row 0"),
        ({"image": np.arange(3)}, "image must be a row of names, got int64"),
        (
            {"image": np.array(NAMES, dtype=object)},
            "must be an npz file of plain arrays: Object arrays",
        ),
        ({"landmarks": POINTS[:2]}, r"landmarks must be .* \(3, points, 2\), got .* \(2, 5, 2\)"),
        ({"landmarks": POINTS[0]}, r"landmarks must be .* \(3, points, 2\), got .* \(5, 2\)"),
        ({"landmarks": np.zeros(())}, r"landmarks must be .* \(3, points, 2\), got .* \(\)"),
        ({"landmarks": POINTS.astype("U")}, "landmarks must be numbers .*, got <U"),
        ({"landmarks": np.zeros((3, 7, 2))}, "landmarks.npz has 7 points: .* one of 5, 19, 68"),
        ({"detected": np.array([1, 0, 1])}, r"detected must be bool of shape \(3,\), got int64"),
        ({"detected": np.array([True])}, r"detected must be bool of shape \(3,\)"),
    ],
)
def test_npz_mistakes(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        LandmarkFile(npz(tmp_path, **arrays))


def test_files_that_are_no_npz(tmp_path):
    path = Path(tmp_path, "landmarks.npz")
    np.savez(path, points=POINTS, landmarks=POINTS, notes=np.array(["a"], dtype=object))
    with pytest.raises(ValueError, match="image missing, it has points, landmarks, notes$"):
        LandmarkFile(path)
    path.write_bytes(b"something else")
    with pytest.raises(
        ValueError, match=r"must be an npz file of plain arrays: File is not a zip file"
    ):
        LandmarkFile(path)
    whole = npz(tmp_path).read_bytes()
    path.write_bytes(whole[:60] + b"\x00\x01\x02\x03" + whole[64:])
    with pytest.raises(ValueError, match="must be an npz file of plain arrays"):
        LandmarkFile(path)
    np.savez_compressed(path, image=np.array(NAMES), landmarks=POINTS)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 4 + whole[64:])
    with pytest.raises(ValueError, match="must be an npz file of plain arrays"):
        LandmarkFile(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x,y\na,1,2\n", r"line 1: the header must name the columns image, x0, y0"),
        (f"{HEADER}\n", r"landmarks\.csv has no row"),
        (f"{HEADER}\na{',1' * 10}\na{',2' * 10}\n", "line 3: a is named a .* than in line 2"),
        (f"{HEADER}\na,1,2,3,4,5,6,7,8,9,no\n", "line 2: y4 must be a number or empty, got 'no'"),
        (f"{HEADER},detected\na{',1' * 10},yes\n", "line 2: detected must be 1 or 0, got 'yes'"),
        ("image,x0,y0,x2,y2\na,1,2,3,4\n", "line 1: the header has no column x1, but later points"),
        ("image,x0,y0,x1\na,1,2,3\n", "line 1: the header has no column y1"),
        ("image,x0,y0\na,1,2\n", "has 1 points: .* one of 5, 19, 68, 98"),
    ],
)  # fmt: skip
def test_csv_mistakes(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        LandmarkFile(csv(tmp_path, text))


def test_file_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npz does not exist"):
        LandmarkFile(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"path must end in \.npz or \.csv, got .*points\.txt"):
        LandmarkFile(tmp_path / "points.txt")
    with pytest.raises(ValueError, match="has 5 points, expected the 68 of the layout ibug-68"):
        LandmarkFile(npz(tmp_path), layout=68)


def test_data_set():
    faces = DemoFaces(21, size=48)
    part = faces.subset([4, 2])
    provider = DatasetLandmarks(part)
    landmarks, visible = provider(part.ids)
    assert provider.layout is landmark_layout(68)
    torch.testing.assert_close(landmarks[0], faces.landmarks(4))
    torch.testing.assert_close(landmarks[1], faces.landmarks(2))
    assert bool(visible.all())


def test_data_set_mistakes():
    with pytest.raises(TypeError, match="dataset must have all_ids, got list"):
        DatasetLandmarks([1, 2])
    with pytest.raises(
        ValueError, match="DemoFaces has 68 points, expected the 19 of the layout aflw-19"
    ):
        DatasetLandmarks(DemoFaces(7), layout=19)
    with pytest.raises(ValueError, match=r"DemoFaces has no sample 'x\.png', expected names like"):
        DatasetLandmarks(DemoFaces(7))(["x.png"])


def test_points_of_any_kind():
    known = {"a": POINTS[0], "b": torch.from_numpy(POINTS[1]), "c": POINTS[2].tolist()}
    provider = DatasetLandmarks(Known(known))
    landmarks, visible = provider(["c", "b", "a"])
    assert landmarks.dtype == torch.float32
    assert bool(visible.all())
    torch.testing.assert_close(landmarks[[2, 1, 0]], torch.from_numpy(POINTS.astype(np.float32)))


@pytest.mark.parametrize(
    "found",
    [
        POINTS[0][::-1, ::-1],
        POINTS[0].astype(">f4"),
        POINTS[0].astype(">f8")[::-1],
        POINTS[0].astype("<i8"),
        np.asfortranarray(POINTS[0]),
        np.repeat(POINTS[0], 2, axis=0)[::2],
        torch.from_numpy(POINTS[0]).flip(0),
        torch.from_numpy(POINTS[0].astype(np.float32)).requires_grad_(),
        [tuple(point) for point in POINTS[0].tolist()],
    ],
)
def test_arrays_of_any_layout(found):
    landmarks, visible = DatasetLandmarks(Known({"a": found}))(["a"])
    expected = found.tolist() if hasattr(found, "tolist") else [list(point) for point in found]
    assert landmarks[0].tolist() == expected
    assert landmarks.dtype == torch.float32
    assert not landmarks.requires_grad
    assert bool(visible.all())


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([[1, 2], [3]], "landmarks of 'b' must be a torch.Tensor, a numpy array or a list"),
        ([["x", "y"]] * 5, "landmarks of 'b' must be a torch.Tensor, a numpy array or a list"),
        ([[None, None]] * 5, "landmarks of 'b' must be a torch.Tensor, a numpy array or a list"),
        ([[True, True]] * 5, r"landmarks of 'b' must be real numbers, got torch\.bool"),
        (torch.ones(5, 2, dtype=torch.complex64), "landmarks of 'b' must be real numbers, got t"),
        (3.0, r"landmarks of 'b' must have shape \(5, 2\), got \(\)"),
    ],
)
def test_points_that_are_none_name_the_sample(found, message):
    provider = DatasetLandmarks(Known({"a": POINTS[0], "b": found}))
    with pytest.raises((TypeError, ValueError), match=message):
        provider(["a", "b"])


def providers(tmp_path, points):
    """Every way to bring landmarks along, of points (N, 5, 2)."""
    yield "landmarks.npz", lambda: LandmarkFile(npz(tmp_path, landmarks=points))
    rows = "".join(
        f"{name},{','.join(map(str, row))}\n"
        for name, row in zip(NAMES, points.reshape(len(NAMES), -1), strict=True)
    )
    yield "landmarks.csv", lambda: LandmarkFile(csv(tmp_path, f"{HEADER}\n{rows}"))
    known = dict(zip(NAMES, points, strict=True))
    yield "Known", lambda: DatasetLandmarks(Known(known))(NAMES)
    for name in NAMES:
        Image.new("L", (48, 48)).save(tmp_path / name)
    cells = "".join(
        f"{name},happy,{';'.join(map(str, row))}\n"
        for name, row in zip(NAMES, points.reshape(len(NAMES), -1), strict=True)
    )
    (tmp_path / "faces.csv").write_text(f"path,label,landmarks\n{cells}")
    yield "faces.csv", lambda: LabelTable(tmp_path / "faces.csv")


@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_points_that_are_shares_of_the_image_are_warned_of(tmp_path, offset):
    shares = np.linspace(0.07, 0.93, 30, dtype=np.float32).reshape(3, 5, 2) + np.float32(offset)
    for source, provide in providers(tmp_path, shares):
        message = (
            rf"{source} must be in pixels, got values .* multiply x by the image's width and y by"
        )
        with pytest.warns(UserWarning, match=message):
            provide()
    for points in (shares * 48, np.zeros_like(shares), shares.round()):
        for _, provide in providers(tmp_path, points):
            provide()


@pytest.mark.parametrize("ids", [{"a.png", "b.png"}, "a.png", iter(NAMES), [0, 1]])
def test_ids_are_an_ordered_sequence_of_texts(tmp_path, ids):
    faces = DemoFaces(7)
    for provider in (
        LandmarkFile(npz(tmp_path)),
        DatasetLandmarks(faces),
    ):
        with pytest.raises(TypeError, match="ids must be"):
            provider(ids)


PROVIDERS = {
    "file": lambda folder: LandmarkFile(npz(folder)),
    "file that lacks samples": lambda folder: LandmarkFile(npz(folder), allow_missing=True),
    "data set": lambda folder: DatasetLandmarks(DemoFaces(7)),
    "points": lambda folder: DatasetLandmarks(Known(dict(zip(NAMES, POINTS, strict=True)))),
}


@pytest.mark.parametrize("make", PROVIDERS.values(), ids=PROVIDERS)
def test_rows_belong_to_their_ids(make, tmp_path):
    provider = make(tmp_path)
    ids = provider.dataset.all_ids[:3] if isinstance(provider, DatasetLandmarks) else NAMES
    alone = [provider([one]) for one in ids]
    asked = [2, 0, 0, 1]
    landmarks, visible = provider(tuple(ids[one] for one in asked))
    assert torch.equal(landmarks, torch.cat([alone[one][0] for one in asked]))
    assert torch.equal(visible, torch.cat([alone[one][1] for one in asked]))
    assert (landmarks.dtype, visible.dtype) == (torch.float32, torch.bool)

    none = provider([])
    assert [tuple(part.shape) for part in none] == [
        (0, provider.layout.num_points, 2),
        (0, provider.layout.num_points),
    ]
    copied = pickle.loads(pickle.dumps(provider))
    assert torch.equal(copied(ids)[0], provider(ids)[0])
    landmarks.zero_(), visible.zero_()  # a caller's own
    for one, (points, shown) in zip(ids, alone, strict=True):
        assert torch.equal(provider([one])[0], points)
        assert torch.equal(provider([one])[1], shown)


@pytest.mark.skipif(
    "ROBUSTFER_FERPLUS" not in os.environ, reason="ROBUSTFER_FERPLUS names no folder of real faces"
)
def test_real_faces_are_about_symmetric():
    provider = LandmarkFile(Path(os.environ["ROBUSTFER_FERPLUS"], "landmarks68.npz"))
    landmarks, visible = provider(list(provider._rows))
    assert 0.95 < visible.float().mean() < 1
    mean = landmarks.nanmean(0)
    x = mean[:, 0]
    swap = torch.tensor(landmark_layout(68).swap)
    # The axis of the mean face, and how far its halves are from being mirror images.
    axis = (x + x[swap]).mean() / 2
    mirrored = torch.stack([2 * axis - x, mean[:, 1]], -1)
    assert (mirrored[swap] - mean).norm(dim=-1).max() < 1
    assert (mirrored - mean).norm(dim=-1).mean() > 10
