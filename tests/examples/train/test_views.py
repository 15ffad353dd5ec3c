"""Views as a slow loop makes them, of any share of a batch, with landmarks on what they mark."""

import numpy as np
import pytest
import torch

from examples.train.options import ViewOptions
from examples.train.views import Batch, Views
from robustfer.data import DemoFaces
from robustfer.landmarks import landmark_layout

SIZE = (12, 16)
IMAGES = torch.randint(256, (8, 3, *SIZE), dtype=torch.uint8)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def batch(images=IMAGES, rows=slice(None), seed=0):
    return Batch(
        images=images[rows],
        index=torch.arange(len(images))[rows],
        target=torch.zeros(len(images), dtype=torch.int64)[rows],
        step=0,
        epoch=1,
        rows=rows,
        total=len(images),
        generator=torch.Generator().manual_seed(seed),
    )


def views(**options):
    return Views(SIZE, ViewOptions(**options), **PLAIN)


def test_an_image_is_cropped_from_black_padding_and_mirrored():
    made = views(crop=3, erase_probability=0.0)
    seen = set()
    for seed in range(6):
        found = made.single(batch(seed=seed)) * 255
        _, left, top, mirrored = made._placed(batch(seed=seed), mirror=True)
        for number, image in enumerate(IMAGES.numpy()):
            padded = np.pad(image, ((0, 0), (3, 3), (3, 3)))
            y, x = int(top[number]), int(left[number])
            expected = padded[:, y : y + SIZE[0], x : x + SIZE[1]]
            expected = expected[:, :, ::-1] if mirrored[number] else expected
            np.testing.assert_allclose(found[number], expected, atol=1e-4)
            seen |= {("x", x), ("y", y), ("mirrored", bool(mirrored[number]))}
    places = {(axis, place) for axis in "xy" for place in range(7)}
    assert seen == places | {("mirrored", True), ("mirrored", False)}


def test_shares_of_a_batch_are_what_the_whole_batch_has_there():
    made = views(crop=2, erase_probability=0.7)
    points = torch.rand(8, 5, 2) * 11
    whole = [
        made.single(batch()),
        *made.pair(batch(), mirror=True, erase="shared"),
        *made.pair(batch(), mirror=False, erase="independent"),
        *made.with_landmarks(batch(), points, landmark_layout(5)),
    ]
    for rows in (slice(0, 4), slice(4, 8), slice(2, 5)):
        own = [
            made.single(batch(rows=rows)),
            *made.pair(batch(rows=rows), mirror=True, erase="shared"),
            *made.pair(batch(rows=rows), mirror=False, erase="independent"),
            *made.with_landmarks(batch(rows=rows), points[rows], landmark_layout(5)),
        ]
        for mine, all_rows in zip(own, whole, strict=True):
            assert torch.equal(mine, all_rows[rows])


def test_a_pair_is_an_image_and_its_mirror_image():
    made = views(crop=0, erase_probability=0.0)
    for erase in ("shared", "independent"):
        view, flipped = made.pair(batch(), mirror=False, erase=erase)
        torch.testing.assert_close(view, IMAGES / 255)
        assert torch.equal(flipped, view.flip(-1))
    erased = views(crop=0, erase_probability=1.0)
    view, flipped = erased.pair(batch(), mirror=False, erase="shared")
    assert torch.equal(flipped, view.flip(-1))
    view, flipped = erased.pair(batch(), mirror=False, erase="independent")
    assert not torch.equal(flipped, view.flip(-1))
    # Each has one box of its own in each image.
    assert ((view == 0).all(1).flatten(1).sum(1) > 0).all()
    assert ((flipped == 0).all(1).flatten(1).sum(1) > 0).all()


def test_only_the_first_of_a_pair_may_be_erased():
    made = views(crop=2, erase_probability=1.0)
    unerased = views(crop=2, erase_probability=0.0)
    points = torch.rand(8, 5, 2) * 11
    view, mirror = made.pair(batch(), mirror=True, erase="first")
    assert torch.equal(view, made.single(batch()))
    assert torch.equal(mirror, unerased.single(batch()).flip(-1))
    assert not torch.equal(mirror, view.flip(-1))
    found = made.pair_with_landmarks(batch(), points, landmark_layout(5))
    expected = made.with_landmarks(batch(), points, landmark_layout(5))
    for mine, its in zip(found, (view, mirror, *expected[1:]), strict=True):
        assert torch.equal(mine, its)


def test_evaluation_sees_images_as_they_are():
    made = Views(SIZE, ViewOptions(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.3))
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.1, 0.3))
    )
    torch.testing.assert_close(made.plain(IMAGES), (IMAGES / 255 - mean) / std)


def test_landmarks_stay_on_what_they_mark():
    """A bright pixel at each landmark: it is found where the landmark went."""
    faces, height, width = 24, 20, 24
    points = torch.stack([torch.randint(size, (faces, 5)) for size in (width, height)], -1).float()
    images = torch.zeros(faces, 3, height, width, dtype=torch.uint8)
    for number, face in enumerate(points.long()):
        for name, (x, y) in enumerate(face.tolist()):
            images[number, :, y, x] = 50 + 10 * name
    made = Views((height, width), ViewOptions(crop=4, erase_probability=0.8), **PLAIN)
    swap = landmark_layout(5).swap
    view, moved, visible = made.with_landmarks(batch(images), points, landmark_layout(5))
    assert 0 < int(visible.sum()) < visible.numel()
    mirrored = made._placed(batch(images), mirror=True)[3]
    assert mirrored.unique().tolist() == [False, True]
    for number in range(faces):
        for name in range(5):
            if not visible[number, name]:
                continue
            x, y = moved[number, name].round().int().tolist()
            drawn = swap[name] if mirrored[number] else name
            # Two points on one pixel: the last drawn shows.
            same = (points[number] == points[number, drawn]).all(1).nonzero()[:, 0]
            assert float(view[number, 0, y, x]) * 255 == pytest.approx(50 + 10 * int(same[-1]))
    shown = (view > 0).any(1).flatten(1).sum(1)
    assert (shown <= visible.sum(1)).all()  # none is called hidden that shows


def test_unknown_landmarks_stay_unknown():
    points = torch.full((8, 5, 2), float("nan"))
    _, moved, visible = views().with_landmarks(batch(), points, landmark_layout(5))
    assert moved.isnan().all()
    assert not visible.any()


def test_drawn_faces_keep_their_landmarks():
    faces = DemoFaces(4, size=32)
    images = torch.stack([faces.load_image(row) for row in range(4)])
    points = torch.stack([faces.landmarks(row) for row in range(4)])
    made = Views((32, 32), ViewOptions(crop=0, erase_probability=0.0), **PLAIN)
    _, moved, visible = made.with_landmarks(batch(images), points, landmark_layout(68))
    mirrored = made._placed(batch(images), mirror=True)[3]
    assert visible.float().mean() > 0.9
    swap = torch.tensor(landmark_layout(68).swap)
    for number in range(4):
        expected = points[number]
        if mirrored[number]:
            expected = torch.stack((31 - expected[swap, 0], expected[swap, 1]), -1)
        torch.testing.assert_close(moved[number], expected)
