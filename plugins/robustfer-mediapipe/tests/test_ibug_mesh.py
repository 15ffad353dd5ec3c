"""The table of points, derived anew from the lines that the installed mediapipe names."""

from pathlib import Path

import numpy as np
import pytest

from robustfer_mediapipe.ibug import IBUG_68, SWAP
from robustfer_mediapipe.images import find_images, read_image

pytest.importorskip("mediapipe", reason="mediapipe is not installed")
from mediapipe.python.solutions import face_mesh_connections as lines

from robustfer_mediapipe.mesh import FaceMesh

POINTS = IBUG_68.tolist()
DRAWN = Path(__file__).parent / "drawn"


@pytest.fixture(scope="module")
def faces():
    """Meshes of the synthetic faces, as wide as each other from eye to eye, the eyes level."""
    mesh = FaceMesh()
    complex_points = []
    for name in find_images(DRAWN):
        x, y = mesh.vertices(read_image(DRAWN / name)).T
        points = x + 1j * y
        complex_points.append((points - points[33]) / (points[263] - points[33]))
    mean = np.mean(complex_points, axis=0)
    return np.array(complex_points), np.stack([mean.real, mean.imag], axis=1)


def ways(line, start, end):
    """All ways along the edges of a line that meet no vertex twice."""
    found, begun = [], [[start]]
    while begun:
        way = begun.pop()
        if way[-1] == end:
            found.append(way)
            continue
        ends = [{*edge} - {way[-1]} for edge in line if way[-1] in edge]
        begun += [[*way, vertex] for (vertex,) in ends if vertex not in way]
    return found


def shares(faces, way):
    """How far along a way each of its vertices lies, from 0 to 1, on the mean of the faces."""
    steps = np.abs(np.diff(faces[0][:, way], axis=1)).mean(axis=0)
    along = np.concatenate([[0], steps.cumsum()])
    return along / along[-1]


# First and last of the points in a row, the line they lie on, and a vertex that they pass by.
ROWS = {
    "jaw, left": (range(0, 9), "FACE_OVAL", 58),
    "jaw, right": (range(16, 7, -1), "FACE_OVAL", 288),
    "bridge": (range(27, 31), "NOSE", 195),
    "left upper lid": (range(36, 40), "RIGHT_EYE", 159),
    "left lower lid": ((36, 41, 40, 39), "RIGHT_EYE", 145),
    "right upper lid": (range(42, 46), "LEFT_EYE", 386),
    "right lower lid": ((42, 47, 46, 45), "LEFT_EYE", 374),
    "upper lip": (range(48, 55), "LIPS", 0),
    "lower lip": ((48, 59, 58, 57, 56, 55, 54), "LIPS", 17),
    "inner upper lip": (range(60, 65), "LIPS", 13),
    "inner lower lip": ((60, 67, 66, 65, 64), "LIPS", 14),
}


@pytest.mark.parametrize("name", ROWS)
def test_points_divide_a_line_into_equal_steps(faces, name):
    points, line, passed = ROWS[name]
    row = [POINTS[point] for point in points]
    edges = getattr(lines, f"FACEMESH_{line}")
    (way,) = [way for way in ways(edges, row[0], row[-1]) if passed in way and 10 not in way]
    along = shares(faces, way)
    for step, vertex in enumerate(row):
        off = np.abs(along - step / (len(row) - 1))
        # The nearest, or as good as that.
        assert off[way.index(vertex)] < off.min() + 0.02, (vertex, way[off.argmin()])


def level_with(faces, vertices, others):
    """Which of the vertices is nearest to the level of the others."""
    _, mean = faces
    level = mean[others, 1].mean()
    return min(vertices, key=lambda vertex: abs(mean[vertex, 1] - level))


def test_ends_at_the_level_of_the_eyes(faces):
    upper = ways(lines.FACEMESH_FACE_OVAL, 152, 10)
    sides = sorted(upper, key=lambda way: faces[1][way, 0].mean())
    assert [level_with(faces, way[3:-3], [33, 263]) for way in sides] == [POINTS[0], POINTS[16]]
    (bridge,) = [way for way in ways(lines.FACEMESH_NOSE, 168, 4) if len(way) == 6]
    assert level_with(faces, bridge, [33, 133, 362, 263]) == POINTS[27]


def test_ends_of_the_eyes_and_lips_are_the_corners(faces):
    _, mean = faces
    for line, (left, right) in (
        ("RIGHT_EYE", (36, 39)),
        ("LEFT_EYE", (42, 45)),
        ("LIPS", (48, 54)),
    ):
        vertices = sorted({v for edge in getattr(lines, f"FACEMESH_{line}") for v in edge})
        x = mean[vertices, 0]
        assert vertices[x.argmin()] == POINTS[left]
        assert vertices[x.argmax()] == POINTS[right]


def test_lowest_point_of_the_oval_is_the_chin(faces):
    vertices = sorted({vertex for edge in lines.FACEMESH_FACE_OVAL for vertex in edge})
    assert vertices[faces[1][vertices, 1].argmax()] == POINTS[8]


def test_tip_of_the_nose_is_where_its_lines_meet():
    """On the bridge, where the outline of the wings crosses it."""
    crossing = [v for v in (6, 197, 195, 5, 4, 1, 19) if degree(lines.FACEMESH_NOSE, v) == 4]
    assert crossing == [POINTS[30]]


def degree(line, vertex):
    return sum(vertex in edge for edge in line)


def test_brows_are_the_upper_lines(faces):
    _, mean = faces
    for line, points in (("RIGHT_EYEBROW", range(17, 22)), ("LEFT_EYEBROW", range(26, 21, -1))):
        edges = getattr(lines, f"FACEMESH_{line}")
        row = [POINTS[point] for point in points]
        assert ways(edges, row[0], row[-1]) == [row]
        other = sorted({vertex for edge in edges for vertex in edge} - set(row))
        assert len(other) == 5
        assert mean[row, 1].mean() < mean[other, 1].mean()


def test_base_of_the_nose_is_a_way_along_its_line(faces):
    row = [POINTS[point] for point in range(31, 36)]
    assert row in ways(lines.FACEMESH_NOSE, row[0], row[-1])
    assert row[2] in ways(lines.FACEMESH_NOSE, POINTS[30], row[2])[0]


def test_left_and_right_mirror_each_other(faces):
    _, mean = faces
    unpaired = [point for point in range(68) if SWAP[point] == point]
    middle = mean[POINTS][unpaired, 0].mean()
    mirrored = mean[POINTS][SWAP] * (-1, 1) + (2 * middle, 0)
    assert np.linalg.norm(mirrored - mean[POINTS], axis=1).max() < 0.06
