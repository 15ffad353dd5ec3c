import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustfer.landmarks import landmark_layout, mirror_landmarks
from robustfer.models import LandmarkCoordinates

SWAP = landmark_layout(5).swap


def faces(count=6, points=5, dtype=torch.float64):
    drawn = torch.rand(count, points, 2, generator=torch.Generator().manual_seed(0))
    return (47 * drawn).to(dtype)


def shape_of(points):
    """Points of a face (K, 2) without place and size, by loops."""
    count = len(points)
    centre = [sum(float(p[axis]) for p in points) / count for axis in (0, 1)]
    centred = [[float(p[axis]) - centre[axis] for axis in (0, 1)] for p in points]
    size = (sum(x * x + y * y for x, y in centred) / (2 * count)) ** 0.5
    return [[x / size, y / size] for x, y in centred]


def reference(train, landmarks, swap):
    shapes = [shape_of(face) for face in train]
    shapes += [[[-face[k][0], face[k][1]] for k in swap] for face in shapes]
    cells = [(k, axis) for k in range(len(swap)) for axis in (0, 1)]
    mean = {(k, axis): sum(s[k][axis] for s in shapes) / len(shapes) for k, axis in cells}
    squares = [(s[k][axis] - mean[k, axis]) ** 2 for s in shapes for k, axis in cells]
    spread = (sum(squares) / len(squares)) ** 0.5
    found = [shape_of(face) for face in landmarks]
    return torch.tensor(
        [[(s[k][axis] - mean[k, axis]) / spread for k, axis in cells] for s in found],
        dtype=torch.float64,
    )


def test_is_the_equation():
    train, landmarks = faces(), faces(10)[6:]
    space = LandmarkCoordinates(train, swap=SWAP)
    expected = reference(train, landmarks, SWAP)
    torch.testing.assert_close(space(landmarks), expected)
    assert space.dim == expected.shape[1] == 10
    assert "dim=10" in repr(space)


@settings(deadline=None, max_examples=25)
@given(
    size=st.floats(0.1, 10), x=st.floats(-100, 100), y=st.floats(-100, 100), seed=st.integers(0, 99)
)
def test_place_and_size_do_not_count(size, x, y, seed):
    points = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(seed)).double()
    space = LandmarkCoordinates(faces(), swap=SWAP)
    moved = size * points + torch.tensor([x, y], dtype=torch.float64)
    torch.testing.assert_close(space(moved), space(points), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("points", [5, 19, 68, 98])
def test_a_mirrored_face_differs_from_the_mean_in_the_mirrored_way(points):
    which = landmark_layout(points)
    landmarks = faces(points=points)
    space = LandmarkCoordinates(landmarks, swap=which.swap)
    torch.testing.assert_close(mirror_landmarks(space.mean[None], which, width=1)[0], space.mean)
    mirrored = space(mirror_landmarks(landmarks, which, width=48)).view(-1, points, 2)
    swapped = space(landmarks).view(-1, points, 2)[:, list(which.swap)]
    torch.testing.assert_close(mirrored, swapped * torch.tensor([-1.0, 1.0]))


def test_faces_with_unknown_points():
    train = faces(8)
    train[1, 3], train[4, 0, 1] = torch.nan, torch.inf
    known = torch.tensor([True, False, True, True, False, True, True, True])
    space = LandmarkCoordinates(train, swap=SWAP)
    assert torch.equal(space.mean, LandmarkCoordinates(train[known], swap=SWAP).mean)
    assert torch.equal(space.known(train), known)
    embeddings = space(train)
    assert (embeddings[~known] == 0).all()
    torch.testing.assert_close(embeddings[known], reference(train[known], train[known], SWAP))


def test_points_in_one_place_give_numbers():
    space = LandmarkCoordinates(faces(), swap=SWAP)
    at_once = torch.full((1, 5, 2), 20.0, dtype=torch.float64)
    assert space.known(at_once).all()
    torch.testing.assert_close(space(at_once)[0], -space.mean.flatten() / space.spread)


def test_unknown_faces_get_no_gradient_and_degenerate_ones_a_finite_one():
    space, landmarks = LandmarkCoordinates(faces(), swap=SWAP), faces()
    torch.autograd.gradcheck(space, landmarks.clone().requires_grad_())
    landmarks[0, 3], landmarks[1, 0, 1], landmarks[2] = torch.nan, torch.inf, 20.0
    landmarks.requires_grad_()
    (space(landmarks) ** 2).sum().backward()
    assert (landmarks.grad[:2] == 0).all()
    assert landmarks.grad.isfinite().all()
    assert (landmarks.grad[3:] != 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_embeddings_have_the_dtype_of_the_batch(dtype):
    landmarks = faces(dtype=torch.float32).round()
    expected = LandmarkCoordinates(landmarks.double(), swap=SWAP)(landmarks.double())
    for built in (torch.float16, torch.float32, torch.float64):
        space = LandmarkCoordinates(landmarks.to(built), swap=SWAP)
        found = space(landmarks.to(dtype))
        assert found.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
        compiled = torch.compile(space, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(landmarks.to(dtype)), found)


def test_a_parent_in_half_precision_leaves_the_mean_shape():
    space = LandmarkCoordinates(faces(dtype=torch.float32), swap=SWAP)
    before = space.mean.clone(), space.spread.clone()
    nn.Sequential(space).bfloat16()
    assert torch.equal(space.mean, before[0])
    assert torch.equal(space.spread, before[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_single(dtype):
    landmarks = faces(dtype=dtype)
    space = LandmarkCoordinates(landmarks, swap=SWAP)
    assert space.mean.dtype == torch.float32
    assert torch.equal(space(landmarks), space(landmarks.float()))


def test_what_it_knows_is_saved_and_nothing_is_learnt():
    space, other = (LandmarkCoordinates(faces(count), swap=SWAP) for count in (6, 9))
    assert set(space.state_dict()) == {"mean", "spread"}
    assert not list(space.parameters())
    other.load_state_dict(space.state_dict())
    assert torch.equal(other(faces()), space(faces()))


def test_compiles_whole():
    space = LandmarkCoordinates(faces(), swap=SWAP)
    compiled = torch.compile(space, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(faces()), space(faces()))


def symmetric_faces():
    one = torch.tensor([[[1, 0], [3, 0], [2, 1], [1, 3], [3, 3]]], dtype=torch.float64)
    return torch.cat([one, 2 * one + 5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"landmarks": torch.full((2, 5, 2), torch.nan)},
            "landmarks must have all points of at least one",
        ),
        ({"landmarks": symmetric_faces()}, "landmarks must differ .* got 2 of one symmetric shape"),
        ({"landmarks": torch.zeros(3, 5)}, r"landmarks must have shape \(N, K, 2\), got \(3, 5\)"),
        ({"landmarks": torch.zeros(3, 5, 2).long()}, "landmarks must have a floating-point dtype"),
        ({"swap": (0, 1, 2, 3)}, r"swap must pair the 5 points, got \(0, 1, 2, 3\)"),
        ({"swap": (0, 1, 2, 3, 3)}, "swap must pair the 5 points, got .* each of 0 to 4 once"),
        ({"swap": (1, 2, 0, 3, 4)}, "swap must pair the 5 points"),
    ],
)
def test_refuses(change, message):
    given = {"landmarks": faces(), "swap": SWAP, **change}
    with pytest.raises(ValueError, match=message):
        LandmarkCoordinates(given["landmarks"], swap=given["swap"])


def test_refuses_batches_that_do_not_fit():
    space = LandmarkCoordinates(faces(), swap=SWAP)
    with pytest.raises(ValueError, match=r"landmarks must have shape \(B, 5, 2\), got \(2, 19, 2"):
        space(torch.zeros(2, 19, 2))
    with pytest.raises(ValueError, match="landmarks must have a floating-point dtype"):
        space(torch.zeros(2, 5, 2, dtype=torch.int64))
