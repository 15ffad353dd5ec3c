"""The kit for landmark providers catches planted defects, and the core's providers pass it."""

import numpy as np
import pytest
import torch

from robustfer.data import DemoFaces
from robustfer.data.landmark_providers import CallableLandmarks, DatasetLandmarks, LandmarkFile
from robustfer.data.landmarks import LandmarkLayout
from robustfer.testing import LandmarkProviderConformance, failing_checks
from tests.testing.defective_landmark_providers import (
    DEFECTS,
    POINTS,
    Sound,
    SoundConformance,
    conformance_of,
)

CHECKS = {name for name in dir(LandmarkProviderConformance) if name.startswith("test_")}


class TestSound(SoundConformance):
    """Without a defect every check passes, or the table would show nothing."""


@pytest.mark.parametrize(
    ("provider", "expected"), DEFECTS, ids=[defect.__name__ for defect, _ in DEFECTS]
)
def test_a_planted_defect_is_caught(provider, expected):
    failures = failing_checks(conformance_of(provider))
    assert set(failures) == expected
    for error in failures.values():
        assert isinstance(error, AssertionError), "a check must say what is wrong"


def test_every_check_alone_catches_something():
    """Taken out, any check would let a defect of the table pass."""
    alone = {next(iter(checks)) for _, checks in DEFECTS if len(checks) == 1}
    assert alone == CHECKS


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda landmarks, visible: landmarks, r"got \['Tensor'\]"),
        (lambda landmarks, visible: (landmarks, visible.tolist()), r"got \['Tensor', 'list'\]"),
        (lambda landmarks, visible: (landmarks.numpy(), visible), r"got \['ndarray', 'Tensor'\]"),
        (lambda landmarks, visible: (landmarks, visible, 1), r"got \['Tensor', 'Tensor', 'int'\]"),
    ],
)
def test_an_answer_that_is_no_pair_of_tensors(answer, named):
    class Answers(Sound):
        def __call__(self, ids):
            return answer(*super().__call__(ids))

    with pytest.raises(AssertionError, match=f"must return a tuple of two tensors.*{named}"):
        conformance_of(Answers)().test_shapes()


def test_what_an_author_must_define_is_named():
    with pytest.raises(NotImplementedError, match=r"define make_provider\(self\)"):
        LandmarkProviderConformance().test_shapes()
    without_ids = type("WithoutIds", (LandmarkProviderConformance,), {"make_provider": Sound})
    with pytest.raises(NotImplementedError, match=r"define known_ids\(self\)"):
        without_ids().test_shapes()


@pytest.mark.parametrize("ids", [[], ["a.png"], ["a.png", "a.png"]])
def test_one_known_id_shows_too_little(ids):
    conformance = type("Conformance", (SoundConformance,), {"known_ids": lambda self: ids})
    with pytest.raises(AssertionError, match="must return two different ids or more"):
        conformance().test_shapes()


def test_landmarks_that_nobody_can_write_into():
    class OfInference(Sound):
        @torch.inference_mode()
        def __call__(self, ids):
            return super().__call__(ids)

    with pytest.raises(AssertionError, match="nothing can be written into the landmarks"):
        conformance_of(OfInference)().test_answers_are_new_tensors()


class OfAFile(LandmarkProviderConformance):
    """The faces of the table above, in a file."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.folder = tmp_path

    def known_ids(self):
        return [*POINTS]


class TestNpzFile(OfAFile):
    def make_provider(self):
        path = self.folder / "landmarks.npz"
        np.savez(path, image=np.array([*POINTS]), landmarks=np.stack([*POINTS.values()]))
        return LandmarkFile(path)


class TestCsvFile(OfAFile):
    def make_provider(self):
        rows = [f"x{i},y{i}" for i in range(5)]
        lines = [",".join(["image", *rows])]
        for name, points in POINTS.items():
            numbers = ["" if value.isnan() else str(value.item()) for value in points.flatten()]
            lines.append(",".join([name, *numbers]))
        path = self.folder / "landmarks.csv"
        path.write_text("\n".join(lines))
        return LandmarkFile(path)


class TestFileThatLacksSamples(TestNpzFile):
    def make_provider(self):
        return LandmarkFile(super().make_provider().path, allow_missing=True)


class TestDatasetLandmarks(LandmarkProviderConformance):
    faces = DemoFaces(7)

    def make_provider(self):
        return DatasetLandmarks(self.faces)

    def known_ids(self):
        return self.faces.ids


class TestCallableLandmarks(SoundConformance):
    def make_provider(self):
        return CallableLandmarks(dict(POINTS).get, layout=5)


class TestPointsWithoutParts(LandmarkProviderConformance):
    """A layout that names no eyes has nothing to be left of."""

    def make_provider(self):
        return CallableLandmarks(_turned, layout=_UNNAMED)

    def known_ids(self):
        return [*POINTS]


_UNNAMED = LandmarkLayout(name="five", num_points=5, swap=(1, 0, 2, 4, 3), groups={})


def _turned(name):
    return POINTS[name].flip(-1) if name in POINTS else None
