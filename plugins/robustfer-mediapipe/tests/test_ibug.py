"""The table of points, as far as it can be checked without the mesh."""

import numpy as np

from robustfer_mediapipe.ibug import IBUG_68, PARTS, SWAP


def test_each_point_is_a_vertex_of_its_own():
    assert IBUG_68.shape == (68,)
    assert len(set(IBUG_68.tolist())) == 68
    assert 0 <= IBUG_68.min() <= IBUG_68.max() < 468  # beyond are those of the irises


def test_left_and_right_are_mirror_images():
    """MediaPipe numbers the vertices of both sides in the same order: the picture's left first."""
    vertex, partner = IBUG_68, IBUG_68[SWAP]
    left, right, middle = (
        vertex[vertex < partner],
        vertex[vertex > partner],
        vertex[vertex == partner],
    )
    assert (len(left), len(right), len(middle)) == (29, 29, 10)
    assert max(left.max(), middle.max()) < right.min()
    partners = dict(zip(vertex.tolist(), partner.tolist(), strict=True))
    assert [partners[one] for one in sorted(left.tolist())] == sorted(right.tolist())


def test_swapping_twice_changes_nothing():
    assert np.array_equal(SWAP[SWAP], np.arange(68))


def test_every_point_is_of_one_part():
    points = np.concatenate([np.arange(68)[part] for part in PARTS.values()])
    assert np.array_equal(points, np.arange(68))
