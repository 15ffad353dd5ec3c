import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data import DemoFaces
from robustfer.landmarks import (
    LandmarkLayout,
    convert_landmarks,
    landmark_layout,
    mirror_landmarks,
    resize_landmarks,
)

SIZES = [5, 19, 68, 98]
WAYS = [(19, 5), (68, 5), (68, 19), (98, 5), (98, 19), (98, 68)]
PICTURES = Path(__file__).parents[2] / "docs" / "pictures" / "landmarks.py"
draw_face = runpy.run_path(str(PICTURES))["face"]

FACE_5, AFLW_19, IBUG_68, WFLW_98 = map(landmark_layout, (5, 19, 68, 98))


def drawn(points):
    """The face of the documentation, symmetric, in an image 101 pixels wide."""
    return torch.from_numpy(draw_face(points) * 40 + 50)[None]


def scattered(points, seed=0, batch=3):
    random = torch.Generator().manual_seed(seed)
    return 100 * torch.rand(batch, points, 2, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("points", SIZES)
def test_tables(points):
    found = landmark_layout(points)
    assert found.num_points == points == len(found.swap)
    assert [found.swap[other] for other in found.swap] == list(range(points))
    assert sorted(point for group in found.groups.values() for point in group) == list(
        range(points)
    )
    for name, members in found.groups.items():
        mirrored = {"left": "right", "right": "left"}.get(name.split("_")[0])
        name = name if mirrored is None else f"{mirrored}_{name.split('_')[1]}"
        assert {found.swap[point] for point in members} == set(found.groups[name])
    assert landmark_layout(found) is found
    assert hash(found) == hash(landmark_layout(points))


def test_table_of_19_points():
    expected = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 14, 13, 12, 17, 16, 15, 18)
    assert AFLW_19.swap == expected


@pytest.mark.parametrize("points", SIZES)
def test_a_symmetric_face_is_its_mirror_image(points):
    face = drawn(points)
    torch.testing.assert_close(mirror_landmarks(face, landmark_layout(points), width=101), face)
    unswapped = torch.stack([100 - face[..., 0], face[..., 1]], -1)
    assert (unswapped - face).norm(dim=-1).mean() > 20


@pytest.mark.parametrize("points", SIZES)
def test_left_and_right_are_those_of_the_picture(points):
    face = drawn(points)[0]
    for name, members in landmark_layout(points).groups.items():
        x = face[list(members), 0]
        if name.startswith("left"):
            assert x.max() < 50
        elif name.startswith("right"):
            assert x.min() > 50


def test_drawn_demo_faces_agree_with_the_table_of_68():
    # Drawn by code that knows nothing of the table; the mean over many faces is about symmetric.
    faces = DemoFaces(400, size=96)
    mean = torch.stack([faces.landmarks(row) for row in range(400)]).mean(0, keepdim=True)
    mirrored = mirror_landmarks(mean, IBUG_68, width=96)
    assert (mirrored - mean).norm(dim=-1).max() < 2
    for name, members in IBUG_68.groups.items():
        middle = mean[0, list(members), 0].mean() - 47.5
        assert middle.abs() < 1 or (middle < 0) == name.startswith("left")


@pytest.mark.parametrize("width", [1, 7, 8])
def test_points_move_with_the_pixels_of_a_mirrored_image(width):
    image = torch.zeros(5, 6, width)
    landmarks = (scattered(5, batch=1) / 100 * torch.tensor([width - 1, 5])).round()
    for point, (x, y) in enumerate(landmarks[0].long().tolist()):
        image[point, y, x] = 1  # a picture for each point
    mirrored = image.flip(-1)[list(FACE_5.swap)]
    moved = mirror_landmarks(landmarks, FACE_5, width=width)[0].long()
    for point, (x, y) in enumerate(moved.tolist()):
        assert mirrored[point, y, x] == 1


@given(st.sampled_from(SIZES), st.integers(0, 999), st.integers(1, 300))
@settings(deadline=None, max_examples=25)
def test_mirrored_twice_is_as_before(points, seed, width):
    landmarks, visible = scattered(points, seed), scattered(points, seed)[..., 0] > 30
    once = mirror_landmarks(landmarks, landmark_layout(points), width=width)
    torch.testing.assert_close(
        mirror_landmarks(once, landmark_layout(points), width=width), landmarks
    )
    shown = visible[:, landmark_layout(points).swap]
    assert torch.equal(shown[:, landmark_layout(points).swap], visible)
    # What is hidden stays hidden under its new name.
    sides = torch.tensor(landmark_layout(points).swap)
    assert torch.equal(shown[:, sides], visible)


def test_mirroring_keeps_gradients_and_compiles():
    landmarks = scattered(68).requires_grad_()

    def mirror(points):
        return mirror_landmarks(points, IBUG_68, width=48)

    compiled = torch.compile(mirror, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(landmarks), mirror(landmarks))
    torch.autograd.gradcheck(mirror, scattered(68, batch=1).requires_grad_())


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_conversion_and_mirror_commute(source, target):
    one, other = landmark_layout(source), landmark_layout(target)
    landmarks, visible = scattered(source), scattered(source)[..., 0] > 5
    found, seen = convert_landmarks(landmarks, visible, source=one, target=other)
    mirrored, seen_mirrored = convert_landmarks(
        mirror_landmarks(landmarks, one, width=101),
        visible[:, one.swap],
        source=one,
        target=other,
    )
    torch.testing.assert_close(mirrored, mirror_landmarks(found, other, width=101))
    assert torch.equal(seen_mirrored, seen[:, other.swap])
    assert 0 < seen.sum() < seen.numel()


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_conversion_stays_in_the_same_part_of_the_face(source, target):
    one, other = landmark_layout(source), landmark_layout(target)
    codes = {name: float(code) for code, name in enumerate(IBUG_68.groups)}

    def coded(of):
        values = torch.zeros(1, of.num_points, 2)
        for name, members in of.groups.items():
            values[:, list(members)] = codes[name]
        return values

    seen = torch.ones(1, source, dtype=torch.bool)
    found, _ = convert_landmarks(coded(one), seen, source=one, target=other)
    torch.testing.assert_close(found, coded(other))


@pytest.mark.parametrize("middle", [19, 68])
def test_both_ways_to_five_points_meet(middle):
    seen = torch.ones(1, 98, dtype=torch.bool)
    direct, _ = convert_landmarks(drawn(98), seen, source=WFLW_98, target=FACE_5)
    between, seen = convert_landmarks(
        drawn(98), seen, source=WFLW_98, target=landmark_layout(middle)
    )
    found, seen = convert_landmarks(between, seen, source=landmark_layout(middle), target=FACE_5)
    assert (found - direct).norm(dim=-1).max() < 1
    assert bool(seen.all())


def test_a_point_is_seen_where_all_it_is_made_of_are():
    landmarks, visible = scattered(68, batch=1), torch.ones(1, 68, dtype=torch.bool)
    landmarks[0, 37], visible[0, 37] = float("nan"), False  # upper lid of the left eye
    found, seen = convert_landmarks(landmarks, visible, source=IBUG_68, target=AFLW_19)
    assert (~seen[0]).nonzero().flatten().tolist() == [7]
    assert torch.equal(found.isfinite().all(-1), seen)


def test_resizing_keeps_corners_and_undoes_itself():
    corners = torch.tensor([[[-0.5, -0.5], [47.5, 31.5], [23.5, 15.5]]])
    found = resize_landmarks(corners, from_size=(32, 48), to_size=(64, 72))
    assert found[0].tolist() == [[-0.5, -0.5], [71.5, 63.5], [35.5, 31.5]]
    torch.testing.assert_close(
        resize_landmarks(found, from_size=(64, 72), to_size=(32, 48)), corners
    )


def test_resizing_follows_resized_pixels():
    # The middle of mass of a spot, before and after the image is made three times as large.
    image = torch.zeros(1, 1, 9, 9)
    image[..., 5, 2] = 1
    large = torch.nn.functional.interpolate(image, scale_factor=3, mode="bilinear")[0, 0]
    cells = torch.arange(27.0)
    spot = torch.stack([(large.sum(0) * cells).sum(), (large.sum(1) * cells).sum()]) / large.sum()
    found = resize_landmarks(torch.tensor([[[2.0, 5.0]]]), from_size=9, to_size=27)
    torch.testing.assert_close(found[0, 0], spot)


def test_own_layouts():
    own = LandmarkLayout(name="eyes", num_points=2, swap=(1, 0), groups={"left_eye": (0,)})
    assert landmark_layout(own) is own
    found = mirror_landmarks(torch.tensor([[[1.0, 2.0], [7.0, 3.0]]]), own, width=9)
    assert found.tolist() == [[[1.0, 3.0], [7.0, 2.0]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"swap": (1, 0)}, r"swap of own must pair the 3 points, got \(1, 0\)"),
        ({"swap": (0, 1, 1)}, "swap of own must pair the 3 points, got .* each of 0 to 2 once"),
        ({"swap": (1, 2, 0)}, "swap of own must pair the 3 points"),
        ({"groups": {"nose": (1, 3)}}, r"group nose of own has points \[3\], expected .* 0 to 2"),
    ],
)
def test_layouts_that_cannot_be(change, message):
    good = {"name": "own", "num_points": 3, "swap": (1, 0, 2), "groups": {"nose": (2,)}}
    with pytest.raises(ValueError, match=message):
        LandmarkLayout(**good | change)


def test_unknown_layout():
    with pytest.raises(ValueError, match="points must be one of 5, 19, 68, 98, got 106"):
        landmark_layout(106)


def refused():
    five, many = torch.zeros(1, 5, 2), torch.zeros(1, 68, 2)
    seen = torch.ones(1, 68, dtype=torch.bool)
    whole = {"source": IBUG_68, "target": FACE_5}
    yield (
        lambda: mirror_landmarks(five, IBUG_68, width=9),
        (r"must have the 68 points of ibug-68, got shape \(1, 5, 2\)"),
    )
    yield (
        lambda: mirror_landmarks(five[0], FACE_5, width=9),
        "landmarks must have shape",
    )
    yield (
        lambda: mirror_landmarks(five.int(), FACE_5, width=9),
        "landmarks must have a floating",
    )
    yield (
        lambda: mirror_landmarks(five, FACE_5, width=0),
        "width must be a whole number from 1 on, got 0",
    )
    yield lambda: resize_landmarks(five, from_size=0, to_size=9), "from_size must be a positive"
    yield lambda: resize_landmarks(five.int(), from_size=9, to_size=9), "must have a floating"
    yield lambda: convert_landmarks(five, seen[:, :5], **whole), "68 points of ibug-68, got 5"
    yield lambda: convert_landmarks(many, seen.float(), **whole), "visible must be bool"
    yield lambda: convert_landmarks(many, seen[:, :5], **whole), "visible has K=5"
    yield (
        lambda: convert_landmarks(many, seen, source=IBUG_68, target=WFLW_98),
        ("ibug-68 cannot be converted to wflw-98; choose one of aflw-19 to face-5, "),
    )


@pytest.mark.parametrize(("call", "message"), list(refused()))
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_picture_is_drawn(tmp_path):
    runpy.run_path(str(PICTURES))["draw"](tmp_path / "landmarks.png")
    assert (tmp_path / "landmarks.png").read_bytes()[:4] == b"\x89PNG"
    assert np.isfinite(draw_face(98)).all()
