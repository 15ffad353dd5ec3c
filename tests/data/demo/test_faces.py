import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.data.classes import EXPRESSIONS
from robustfer.data.demo import faces as demo_faces
from robustfer.data.demo.drawing import colours, paint
from robustfer.data.demo.face_shape import LANDMARKS, LINES, PARTS, _shape, _weights, outline, place
from robustfer.data.demo.faces import DemoFaces
from robustfer.landmarks import landmark_layout, mirror_landmarks

BARE = {"bald": 1.0, "glasses": 0.0, "beard": 0.0}
# The same numbers left and right, and nothing but the head.
FRONTAL = BARE | dict.fromkeys(
    ("yaw", "pitch", "tilt", "shift_x", "shift_y", "asymmetry", "gaze_x"), 0.0
)


def numbers(row, **changes):
    """The numbers that describe a face, with changes."""
    return DemoFaces(row + 1)._face(row)[0] | changes


def test_a_sample():
    faces = DemoFaces(15)
    sample = faces[3]
    assert set(sample) >= {"image", "target", "index"}
    assert "landmarks" not in sample
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].shape == (3, 48, 48)
    assert sample["image"].is_contiguous()
    assert sample["target"] == faces.targets[3]
    assert faces.classes == EXPRESSIONS
    assert faces.ids[3] == "demo-train-0-000003"
    assert DemoFaces(2, split="test", seed=7).ids == ["demo-test-7-000000", "demo-test-7-000001"]


@pytest.mark.parametrize("size", [16, 48, 112, 224])
def test_sizes(size):
    faces = DemoFaces(2, size=size)
    assert faces[1]["image"].shape == (3, size, size)
    # Another size is the same face: a landmark keeps its place in the picture.
    small = (DemoFaces(2).landmarks(1) + 0.5) / 48
    torch.testing.assert_close((faces.landmarks(1) + 0.5) / size, small)


def test_every_seven_faces_show_every_expression_in_no_fixed_order():
    targets = DemoFaces(700).targets.reshape(100, 7)
    assert (targets.sort(dim=1).values == torch.arange(7)).all()
    assert len(targets.unique(dim=0)) > 90


def test_votes_are_for_the_two_expressions_that_a_face_shows():
    faces, many = DemoFaces(700, voters=10), DemoFaces(707, voters=10)
    assert torch.equal(faces.votes, many.votes[:700])
    assert torch.equal(faces.votes[[4, 2]], faces.subset([4, 2]).votes)
    assert torch.equal(faces[5]["votes"], faces.votes[5])
    assert DemoFaces(700).votes is None
    assert torch.equal(faces[5]["image"], DemoFaces(700)[5]["image"])
    assert (faces.votes.sum(1) == 10).all()
    assert ((faces.votes > 0).sum(1) <= 2).all()
    # A second expression's share is 0.35 u^2 with u uniform, 0.35 over 3 on average.
    doubted = 1 - faces.votes.gather(1, faces.targets[:, None]).float().mean() / 10
    assert float(doubted) == pytest.approx(0.35 / 3, abs=0.015)
    assert (DemoFaces(70, voters=4, ambiguity=0.0).votes.amax(1) == 4).all()
    assert not torch.equal(faces.votes, DemoFaces(700, voters=10, seed=1).votes)


def test_faces_that_show_more_of_a_second_expression_divide_the_voters():
    faces = DemoFaces(140, voters=200, ambiguity=1.0)
    drawn = [faces._drawn(row)[-1] for row in range(140)]
    shares = torch.tensor([faces._shown(row, *one[:2])[2] for row, one in enumerate(drawn)])
    others = torch.tensor([faces._shown(row, *one[:2])[1] for row, one in enumerate(drawn)])
    found = faces.votes.gather(1, others[:, None])[:, 0] / 200
    torch.testing.assert_close(found, shares, atol=0.15, rtol=0)
    assert float((found - shares).abs().mean()) < 0.03


@settings(deadline=None, max_examples=25)
@given(
    row=st.integers(0, 300), seed=st.integers(0, 2**63), split=st.sampled_from(demo_faces._SPLITS)
)
def test_a_face_depends_on_seed_split_and_index_alone(row, seed, split):
    few = DemoFaces(row + 1, seed=seed, split=split)
    many = DemoFaces(row + 40, seed=seed, split=split)
    many.load_image(row + 5)
    image = few.load_image(row)
    assert torch.equal(image, many.load_image(row))
    assert torch.equal(image, pickle.loads(pickle.dumps(many)).load_image(row))
    assert torch.equal(image, many.subset([row + 1, row])[1]["image"])
    assert torch.equal(few.landmarks(row), many.landmarks(row))
    assert few.targets[row] == many.targets[row]
    assert few.ids[row] == many.ids[row]


def test_labels_given_to_a_face_do_not_change_it():
    faces = DemoFaces(20)
    noisy = faces.with_targets((faces.targets + 1) % 7)
    assert torch.equal(noisy.load_image(4), faces.load_image(4))
    assert torch.equal(noisy.landmarks(4), faces.landmarks(4))


def test_other_seeds_splits_and_rows_are_other_faces():
    images = [
        DemoFaces(30, split=split, seed=seed).load_image(row).float()
        for split in ("train", "test", "validation")
        for seed in (0, 1, 2**32)
        for row in (0, 1, 29)
    ]
    flat = torch.stack(images).flatten(1)
    distances = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    assert distances[~torch.eye(len(flat), dtype=torch.bool)].min() > 15  # root mean square levels


def test_faces_stay_the_same_from_release_to_release():
    # Published numbers depend on these faces: changing them is a decision, not a side effect.
    faces = DemoFaces(10)
    assert faces.targets.tolist() == [2, 5, 1, 0, 6, 4, 3, 1, 5, 3]
    ear, chin, eye, mouth = faces.landmarks(9)[[0, 8, 36, 48]].tolist()
    assert ear == pytest.approx([5.31, 27.46], abs=0.02)
    assert chin == pytest.approx([28.78, 47.19], abs=0.02)
    assert eye == pytest.approx([13.86, 25.26], abs=0.02)
    assert mouth == pytest.approx([21.46, 37.96], abs=0.02)
    for row, mean in ((0, [169.5, 125.1, 115.8]), (5, [117.8, 100.0, 90.2])):
        assert faces.load_image(row).float().mean((1, 2)).tolist() == pytest.approx(mean, abs=0.6)


# --- landmarks ------------------------------------------------------------------------------------

# Colours that tell the parts apart; blends of skin and shade are strokes on the skin.
FLAT = dict.fromkeys(("wall", "other wall", "clothes", "hair", "hair behind", "frame"), (0, 0, 255))
FLAT |= {"skin": (0, 255, 0), "shade": (255, 0, 0), "brow": (255, 255, 0), "lash": (0, 255, 255)}
FLAT |= {"lips": (255, 0, 255), "beard": (0, 0, 255)}
FLAT |= dict.fromkeys(("white", "iris", "pupil"), (255, 255, 255))
FLAT |= dict.fromkeys(("mouth", "teeth"), (0, 0, 0))


def painted(face, size):
    return np.asarray(paint(outline(face), face, FLAT, size)).astype(int)


def like(picture, *parts):
    """Where a flat picture shows one of the parts."""
    return np.any([np.abs(picture - FLAT[part]).max(axis=2) < 100 for part in parts], axis=0)


def edge(mask):
    inside = mask.copy()
    inside[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return mask & ~inside


def distance(points, mask):
    """From each point to the nearest pixel of a mask."""
    y, x = np.nonzero(mask)
    return np.hypot(points[:, :1] - x, points[:, 1:] - y).min(axis=1)


@pytest.mark.parametrize("row", range(14))
def test_landmarks_lie_on_what_is_drawn(row):
    # Painted eight times larger, where half a pixel of 48 is four: an independent way from the
    # points to the picture, by nothing but its colours.
    face = numbers(row, **BARE)
    picture = painted(face, 384)
    points = place(outline(face), face, 384)[LANDMARKS]
    skin_strokes = (picture[..., 2] < 60) & (picture[..., 0] > 60) & (picture[..., 1] < 200)
    around = like(picture, "lash") | like(picture, "white") | skin_strokes
    for part, where in (
        (slice(0, 17), like(picture, "shade")),
        (slice(17, 27), like(picture, "brow")),
        (slice(27, 36), skin_strokes),
        ([36, 37, 38, 39, 42, 43, 44, 45], like(picture, "lash")),
        ([40, 41, 46, 47], edge(around)),
        (slice(48, 60), edge(like(picture, "lips", "mouth", "teeth"))),
        (slice(60, 68), edge(like(picture, "mouth", "teeth"))),
    ):
        assert distance(points[part], where).max() < 4, (part, distance(points[part], where))


@settings(deadline=None, max_examples=25)
@given(row=st.integers(0, 200), size=st.sampled_from([40, 48, 64]))
def test_the_picture_is_not_shifted_against_the_landmarks(row, size):
    # At the size that a network sees: where the lips' paint lies on the whole, against the middle
    # of the area between their landmarks. A convention half a pixel off would show here.
    face = numbers(row, **BARE)
    face["press"], face["lips"] = 0.0, 1.0
    black = dict.fromkeys(FLAT, (0, 0, 0))
    white = black | dict.fromkeys(("lips", "mouth", "teeth"), (255, 255, 255))
    cover = np.asarray(paint(outline(face), face, white, size)).astype(float)[..., 0]
    y, x = np.mgrid[:size, :size]
    shown = np.array([(cover * x).sum(), (cover * y).sum()]) / cover.sum()
    one = place(outline(face), face, size)[LANDMARKS][48:60]
    two = np.roll(one, -1, axis=0)
    cross = one[:, 0] * two[:, 1] - two[:, 0] * one[:, 1]
    middle = ((one + two) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    assert np.abs(shown - middle).max() < 0.25


@pytest.mark.parametrize("row", range(7))
def test_a_symmetric_face_is_its_mirror_image(row):
    face = numbers(row, **FRONTAL)
    points = torch.from_numpy(place(outline(face), face, 48)[LANDMARKS])[None]
    mirrored = mirror_landmarks(points, landmark_layout(68), width=48)
    torch.testing.assert_close(mirrored, points, rtol=0, atol=1e-6)
    face["wall_edge"] = 2.0
    picture = painted(face, 96)
    assert np.abs(picture - picture[:, ::-1]).mean() < 4
    assert np.abs(picture - np.roll(picture[:, ::-1], 1, axis=1)).mean() > 6  # a pixel beside


def test_a_turn_moves_the_nose_and_not_the_contour():
    ahead, aside = numbers(3, yaw=0.0), numbers(3, yaw=0.2)
    one, two = (place(outline(face), face, 48)[LANDMARKS] for face in (ahead, aside))
    moved = two - one
    assert np.abs(moved[[0, 8, 16]]).max() < 0.6
    assert moved[30, 0] > moved[48, 0] > 0.6


def test_a_shape_is_linear_in_its_weights():
    # What lets `outline` be one product with a table of shapes.
    for row in range(5):
        face = numbers(row)
        direct = _shape(_weights(face))
        assert list(direct) == list(PARTS)[: len(direct)]
        points = np.concatenate([part.reshape(-1, 2) for part in direct.values()])
        np.testing.assert_allclose(outline(face)[: len(points)], points, atol=1e-12)
    assert PARTS["lines"] == slice(0, 13 * len(LINES))
    assert PARTS["hair behind"].stop == len(outline(face))


# --- expressions ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    """What faces show, by class: measured on their landmarks in units of the eyes' distance."""
    faces = DemoFaces(420, ambiguity=0.0)
    points = torch.stack([faces.landmarks(row) for row in range(420)])
    left, right = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    along = (right - left) / (right - left).norm(dim=1, keepdim=True) ** 2
    down = torch.stack([-along[:, 1], along[:, 0]], dim=1)

    def height(some):
        return ((points[:, some].mean(1) - (left + right) / 2) * down).sum(1)

    def width(one, other):
        return ((points[:, other] - points[:, one]) * along).sum(1)

    values = {
        "mouth open": height([65, 66, 67]) - height([61, 62, 63]),
        "corners down": height([48, 54]) - height([51, 57]),
        "mouth width": width(48, 54),
        "brows up": -height(list(range(17, 27))),
        "inner brows up": height([17, 26]) - height([21, 22]),
        "eyes open": height([40, 41, 46, 47]) - height([37, 38, 43, 44]),
        "upper lip up": -height([50, 52]),
    }
    return {
        name: {c: float(value[faces.targets == k].mean()) for k, c in enumerate(EXPRESSIONS)}
        for name, value in values.items()
    }


@pytest.mark.parametrize(
    ("what", "most", "least"),
    [
        ("mouth open", "surprise", "anger"),
        ("corners down", "sadness", "happiness"),
        ("brows up", "surprise", "anger"),
        ("inner brows up", "sadness", "anger"),
        ("eyes open", "surprise", "disgust"),
        ("upper lip up", "disgust", "anger"),
    ],
)
def test_expressions_by_mouth_brows_and_eyes(measured, what, most, least):
    means = measured[what]
    tolerance = 0.01  # closed mouths are all equally closed
    assert means[most] == max(means.values())
    assert means[least] < min(means.values()) + tolerance
    assert means[most] > means["neutral"] + 0.05
    assert means[least] < means["neutral"] + tolerance


def test_fear_stretches_the_mouth_that_surprise_rounds(measured):
    width = measured["mouth width"]
    assert width["fear"] > width["neutral"] > width["surprise"] == min(width.values())


def shapes(faces):
    """Landmarks without place, size and turn of the head: (faces, 136)."""
    points = torch.stack([faces.landmarks(row) for row in range(len(faces))]).double()
    left, right = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    plane = torch.view_as_complex(points - ((left + right) / 2)[:, None])
    plane = plane / torch.view_as_complex(right - left)[:, None]
    return torch.view_as_real(plane).flatten(1)


def accuracy_by_shape(ambiguity):
    """Of a linear classifier (ridge regression) of the landmarks, on faces it has not seen."""
    train = DemoFaces(1400, ambiguity=ambiguity)
    test = DemoFaces(700, split="test", ambiguity=ambiguity)
    seen, unseen = shapes(train), shapes(test)
    mean, spread = seen.mean(0), seen.std(0) + 1e-6
    seen, unseen = (
        torch.nn.functional.pad((some - mean) / spread, (0, 1), value=1.0)
        for some in (seen, unseen)
    )
    wanted = torch.nn.functional.one_hot(train.targets).double()
    gram = seen.T @ seen + 3.0 * torch.eye(seen.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, seen.T @ wanted)
    return ((unseen @ weights).argmax(1) == test.targets).double().mean()


def test_shapes_tell_the_expressions_but_for_the_ambiguous_ones():
    clear, usual, unclear = (accuracy_by_shape(a) for a in (0.0, DemoFaces(1).ambiguity, 0.8))
    assert clear > 0.99
    assert 0.93 < usual < 0.995
    assert unclear < 0.85


# --- variety --------------------------------------------------------------------------------------


def test_glasses_beard_and_hair_are_seen():
    plain = numbers(2, **BARE)

    def picture(**changes):
        face = plain | changes
        return np.asarray(paint(outline(face), face, colours(face), 96)).astype(float)

    for change in ({"glasses": 1.0}, {"beard": 1.0}, {"bald": 0.0}):
        changed = np.abs(picture(**change) - picture()).max(axis=2) > 20
        assert 0.01 < changed.mean() < 0.6
    styles = [picture(bald=0.0, hair=style) for style in range(7)]
    for one in range(7):
        for other in range(one):
            assert np.abs(styles[one] - styles[other]).mean() > 1


def test_looks_fill_their_ranges():
    faces = DemoFaces(300)
    some = [faces._face(row)[0] for row in range(300)]
    for name, (low, high) in demo_faces._LOOKS.items():
        values = [face[name] for face in some]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high >= max(values) > high - 0.1 * (high - low)
    for name, chance in demo_faces._CHANCES.items():
        assert abs(np.mean([face[name] for face in some]) - chance) < 0.07


def test_light_and_camera_differ():
    faces = DemoFaces(200)
    images = torch.stack([faces.load_image(row) for row in range(200)]).float()
    assert images.mean((1, 2, 3)).std() > 20
    colour = images.mean((2, 3))
    assert (colour[:, 0] - colour[:, 2]).std() > 10
    grain = (images[..., 1:, :6] - images[..., :-1, :6]).abs().mean((1, 2, 3))
    assert grain.max() > 2 * grain.min()


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split must be 'train', .* got 'dev'"),
        ({"num_samples": 0}, "num_samples must be a whole number from 1 on, got 0"),
        ({"num_samples": 7.0}, "num_samples must be a whole number from 1 on, got 7.0"),
        ({"size": 15}, "size must be a whole number from 16 on, got 15"),
        ({"size": 48.5}, "size must be a whole number from 16 on, got 48.5"),
        *(
            ({"seed": seed}, "seed must be a whole number from 0 to 18446744073709551615, got")
            for seed in (-1, 0.0, None, False, "zero", np.float64(0), torch.tensor(True))
        ),
        ({"voters": -1}, "voters must be a whole number from 0 on, got -1"),
        ({"ambiguity": 1.1}, r"ambiguity must lie in \[0, 1\], got 1.1"),
        ({"ambiguity": float("nan")}, r"ambiguity must lie in \[0, 1\], got nan"),
    ],
)
def test_refused_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DemoFaces(**{"num_samples": 7} | options)


@pytest.mark.parametrize("kind", [np.int64, torch.tensor])
def test_whole_numbers_of_any_kind_are_the_same_seed(kind):
    faces = DemoFaces(kind(7), size=kind(16), seed=kind(3))
    assert faces.ids == DemoFaces(7, size=16, seed=3).ids
    assert torch.equal(faces.load_image(2), DemoFaces(7, size=16, seed=3).load_image(2))
