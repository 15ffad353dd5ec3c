"""A sound provider and copies with one defect each, beside the checks that must catch it."""

from types import SimpleNamespace

import numpy as np
import torch

from robustfer.data.landmarks import layout
from robustfer.testing import LandmarkProviderConformance

DEFECTS = []
POINTS = {  # a face of five points, larger and lower from sample to sample; one knows no nose
    f"{name}.png": torch.tensor([[12, 18], [32, 17], [22, 27], [15, 37], [30, 36]]) * scale + shift
    for name, scale, shift in (("c", 1.0, 0.0), ("a", 1.1, 2.0), ("b", 0.9, 1.5))
}
POINTS["b.png"][2] = torch.nan


def caught_by(*checks):
    """Enter a provider into the table: these checks fail on it, and no others."""

    def enter(provider):
        DEFECTS.append((provider, set(checks)))
        return provider

    return enter


def conformance_of(provider):
    name = f"{provider.__name__}Conformance"
    return type(name, (SoundConformance,), {"provider": provider})


class Sound:
    """Landmarks from a table, by the name of the image."""

    layout = layout(5)

    def __init__(self):
        self.points = {name: points.clone() for name, points in POINTS.items()}

    def __call__(self, ids):
        landmarks = torch.stack([self.find(name) for name in ids]) if len(ids) else self.nothing()
        return landmarks, landmarks.isfinite().all(-1)

    def find(self, name):
        if name not in self.points:
            raise ValueError(f"no landmarks of {name!r}")
        return self.points[name]

    def nothing(self):
        return torch.empty(0, 5, 2)


class SoundConformance(LandmarkProviderConformance):
    provider = Sound

    def make_provider(self):
        return self.provider()

    def known_ids(self):
        return [*POINTS]


@caught_by("test_is_documented")
class WithoutDocstring(Sound):
    __doc__ = ""


@caught_by("test_layout_is_a_layout")
class ANumberForALayout(Sound):
    layout = 5


@caught_by("test_layout_is_a_layout")
class ALayoutOfItsOwnKind(Sound):
    layout = SimpleNamespace(num_points=5, swap=(1, 0, 2, 4, 3), groups={})


@caught_by("test_can_be_pickled")
class HoldsALambda(Sound):
    def __init__(self):
        super().__init__()
        self.find_file = lambda name: name


@caught_by("test_can_be_pickled")
class LeavesItsPointsBehind(Sound):
    def __getstate__(self):
        return {"points": {name: points + 1 for name, points in self.points.items()}}


@caught_by("test_shapes")
class AnotherNumberOfPoints(Sound):
    layout = layout(19)


@caught_by("test_shapes")
class CoordinatesBeforePoints(Sound):
    def __call__(self, ids):
        landmarks, visible = super().__call__(ids)
        return landmarks.transpose(1, 2), visible


@caught_by("test_shapes")
class VisibilityOfEachCoordinate(Sound):
    def __call__(self, ids):
        landmarks, _ = super().__call__(ids)
        return landmarks, landmarks.isfinite()


@caught_by("test_dtypes")
class DoubleLandmarks(Sound):  # numpy's default
    def __call__(self, ids):
        landmarks, visible = super().__call__(ids)
        return torch.from_numpy(landmarks.numpy().astype(np.float64)), visible


@caught_by("test_dtypes")
class VisibilityAsNumbers(Sound):
    def __call__(self, ids):
        landmarks, visible = super().__call__(ids)
        return landmarks, visible.float()


@caught_by("test_no_gradient_hangs_on_them")
class KeepsTheGraph(Sound):
    def __call__(self, ids):
        landmarks, visible = super().__call__(ids)
        return landmarks * torch.ones((), requires_grad=True), visible


@caught_by("test_visible_points_are_finite")
class ShowsWhatItDoesNotKnow(Sound):
    def find(self, name):
        return super().find(name).nan_to_num(torch.inf)

    def __call__(self, ids):
        landmarks, _ = super().__call__(ids)
        return landmarks, torch.ones(len(ids), 5, dtype=torch.bool)


@caught_by("test_samples_have_landmarks_of_their_own")
class TheMeanFace(Sound):
    def find(self, name):
        super().find(name)
        return self.points["a.png"]


@caught_by("test_samples_have_landmarks_of_their_own")
class NeverFindsAFace(Sound):
    def __call__(self, ids):
        landmarks, visible = super().__call__(ids)
        return landmarks, visible & False


@caught_by("test_points_are_in_pixels")
class SharesOfTheImage(Sound):
    def find(self, name):
        return super().find(name) / 48


@caught_by("test_left_is_left_in_the_picture")
class LeftOfThePerson(Sound):
    def find(self, name):
        return super().find(name)[list(self.layout.swap)]


@caught_by("test_eyes_are_above_the_mouth")
class YGrowsUpwards(Sound):
    def find(self, name):
        return super().find(name) * torch.tensor([1, -1]) + torch.tensor([0, 47])


@caught_by("test_left_is_left_in_the_picture", "test_eyes_are_above_the_mouth")
class RowBeforeColumn(Sound):
    def find(self, name):
        return super().find(name).flip(-1)


@caught_by("test_order_of_ids_is_kept")
class InItsOwnOrder(Sound):
    def __call__(self, ids):
        return super().__call__(sorted(ids, key=[*self.points].index))


@caught_by("test_ids_may_come_twice")
class EachIdOnce(Sound):
    def __call__(self, ids):
        return super().__call__([*dict.fromkeys(ids)])


@caught_by("test_ids_may_come_twice")
class RefusesAnIdTwice(Sound):
    def __call__(self, ids):
        if len(set(ids)) < len(ids):
            raise KeyError("an id comes twice")
        return super().__call__(ids)


@caught_by("test_one_id_gives_what_all_give")
class PlacedByTheOthers(Sound):
    def __call__(self, ids):
        landmarks, visible = super().__call__(ids)
        highest = landmarks[:, :1].amax(0) if len(ids) else 0
        return landmarks - highest + 20, visible


@caught_by("test_one_id_gives_what_all_give")
class SqueezesOne(Sound):
    def __call__(self, ids):
        return tuple(part.squeeze(0) for part in super().__call__(ids))


@caught_by("test_no_ids_give_no_rows")
class StacksNothing(Sound):
    def nothing(self):
        return torch.stack([])


@caught_by("test_no_ids_give_no_rows")
class EmptyWithoutPoints(Sound):
    def nothing(self):
        return torch.empty(0, 2)


@caught_by("test_takes_any_sequence")
class TakesListsAlone(Sound):
    def __call__(self, ids):
        return super().__call__(ids.copy())


@caught_by("test_unknown_id_is_refused_or_not_found")
class LooksUpAndFails(Sound):
    def find(self, name):
        return self.points[name]


@caught_by("test_unknown_id_is_refused_or_not_found")
class DoesNotSayWhich(Sound):
    def find(self, name):
        if name not in self.points:
            raise ValueError("no landmarks of a sample")
        return self.points[name]


@caught_by("test_unknown_id_is_refused_or_not_found")
class MadeUpForTheUnknown(Sound):
    def find(self, name):
        return self.points.get(name, torch.zeros(5, 2))


@caught_by("test_unknown_id_is_refused_or_not_found")
class LeavesTheUnknownOut(Sound):
    def __call__(self, ids):
        return super().__call__([name for name in ids if name in self.points])


@caught_by(  # whatever is asked for twice
    "test_same_ids_give_the_same",
    "test_answers_are_new_tensors",
    "test_ids_may_come_twice",
    "test_one_id_gives_what_all_give",
    "test_order_of_ids_is_kept",
    "test_takes_any_sequence",
)
class DriftsWithEachCall(Sound):
    def find(self, name):
        if name == "a.png":
            self.points[name] = self.points[name] + 0.01
        return super().find(name)


@caught_by("test_same_ids_give_the_same")
class DrawsNumbers(Sound):
    def find(self, name):
        return super().find(name) + 0 * torch.rand(())


@caught_by("test_answers_are_new_tensors")
class HandsOutItsOwn(Sound):
    def __init__(self):
        super().__init__()
        self.answers = {}

    def __call__(self, ids):
        if tuple(ids) not in self.answers:
            self.answers[tuple(ids)] = super().__call__(ids)
        return self.answers[tuple(ids)]


@caught_by("test_ids_are_left_alone")
class SortsTheIds(Sound):
    def __call__(self, ids):
        answer = super().__call__(ids)
        if isinstance(ids, list):
            ids.sort()
        return answer
