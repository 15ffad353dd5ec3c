"""What every source of landmarks must keep to, as tests to inherit."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Sequence

import torch
from torch import Tensor

from robustfer.data.landmark_providers import LandmarkProvider
from robustfer.data.landmarks import LandmarkLayout
from robustfer.testing._requirements import explained
from robustfer.testing._state import random_state, same


class LandmarkProviderConformance:
    """Tests of a landmark provider: subclass under a name that starts with ``Test``.

    Define how it is made and some ids that it knows, upright faces that differ. Every check is
    one test. A check that a provider breaks on purpose is taken out by its name, the reason
    beside it: ``test_eyes_are_above_the_mouth = None  # thermal images, upside down``.

    Attributes:
        unknown_id: an id that the provider does not know.

    >>> from robustfer.data import DemoFaces
    >>> from robustfer.data.landmark_providers import DatasetLandmarks
    >>> class TestDemoFaces(LandmarkProviderConformance):
    ...     faces = DemoFaces(7)
    ...
    ...     def make_provider(self):
    ...         return DatasetLandmarks(self.faces)
    ...
    ...     def known_ids(self):
    ...         return self.faces.ids
    >>> TestDemoFaces().test_order_of_ids_is_kept()
    """

    unknown_id: str = "no-such-sample"

    def make_provider(self) -> LandmarkProvider:
        """Return a new provider, of the same landmarks each time."""
        raise NotImplementedError("define make_provider(self), which returns a new one")

    def known_ids(self) -> Sequence[str]:
        """Return the ids of two samples or more that have landmarks, not all the same."""
        raise NotImplementedError("define known_ids(self), which returns two ids or more")

    # What it is

    def test_is_documented(self) -> None:
        kind = type(self.make_provider())
        assert inspect.getdoc(kind), (
            f"{kind.__name__} has no docstring; say where its landmarks come from and what its ids "
            "are"
        )

    def test_layout_is_a_layout(self) -> None:
        layout = getattr(self.make_provider(), "layout", None)
        assert isinstance(layout, LandmarkLayout), (
            f"layout must be a LandmarkLayout, got {layout!r}; robustfer.data.landmarks.layout(68) "
            "returns a known one, and LandmarkLayout(...) makes any other"
        )

    def test_can_be_pickled(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        with explained(
            f"{type(provider).__name__} cannot be pickled, as the workers of a data loader need; "
            "keep no lambda, local function or open file in an attribute"
        ):
            loaded = pickle.loads(pickle.dumps(provider))
            answer = self._ask(loaded, ids)
        assert _same(answer, self._ask(provider, ids)), (
            "a pickled copy gives other landmarks; keep in attributes all that they depend on"
        )

    # What it answers

    def test_shapes(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        landmarks, visible = self._ask(provider, ids)
        layout = _layout(provider)
        points = landmarks[0].numel() // 2 if layout is None else layout.num_points
        for name, tensor, expected in (
            ("landmarks", landmarks, (len(ids), points, 2)),
            ("visible", visible, (len(ids), points)),
        ):
            assert tuple(tensor.shape) == expected, (
                f"{name} of {len(ids)} ids must have shape {expected}, got {tuple(tensor.shape)}; "
                "return a row for each id and in it a point for each of the layout"
            )

    def test_dtypes(self) -> None:
        landmarks, visible = self._ask(self.make_provider(), self._ids())
        assert landmarks.dtype == torch.float32, (
            f"landmarks must be float32, got {landmarks.dtype}; call .float()"
        )
        assert visible.dtype == torch.bool, (
            f"visible must be bool, got {visible.dtype}; compare what the source says, say > 0.5"
        )

    def test_no_gradient_hangs_on_them(self) -> None:
        landmarks, _ = self._ask(self.make_provider(), self._ids())
        assert not landmarks.requires_grad, (
            "landmarks require a gradient, and keep the graph that made them alive; look for them "
            "under torch.no_grad()"
        )

    def test_visible_points_are_finite(self) -> None:
        landmarks, visible = self._ask(self.make_provider(), self._ids())
        finite = landmarks.isfinite().all(dim=-1)
        if finite.shape == visible.shape:
            wrong = (visible.bool() & ~finite).nonzero().tolist()
            assert not wrong, (
                f"the points {wrong[:4]} (sample, point) are visible, but NaN or infinite; a point "
                "that is not known is not visible"
            )

    def test_samples_have_landmarks_of_their_own(self) -> None:
        ids = self._ids()
        landmarks, visible = self._ask(self.make_provider(), ids)
        assert visible.any(), (
            f"no point of {ids[:4]} is visible; let known_ids() return samples with a face"
        )
        own = any(not same(landmarks[0], row) for row in landmarks[1:])
        assert own, f"all of {ids[:4]} have the same landmarks; look them up by the sample's id"

    # What the points are

    def test_points_are_in_pixels(self) -> None:
        landmarks, visible = self._ask(self.make_provider(), self._ids())
        if visible.shape == landmarks.shape[:-1] and visible.any():
            farthest = landmarks[visible.bool()].abs().max()
            assert not farthest <= 1, (
                f"no coordinate is beyond {farthest:.3g}, so these are shares of the image; "
                "multiply them by its width and height as it is stored"
            )

    def test_left_is_left_in_the_picture(self) -> None:
        left, right = self._part("left_eye"), self._part("right_eye")
        if left is not None and right is not None:
            across, down = (right - left).tolist()
            assert across > abs(down), (
                f"the right eye is {across:.1f} pixels right of the left one and {down:.1f} below "
                "it; left and right are those of the picture, not the person's, and x comes "
                "before y"
            )

    def test_eyes_are_above_the_mouth(self) -> None:
        left, right, mouth = map(self._part, ("left_eye", "right_eye", "mouth"))
        if left is not None and right is not None and mouth is not None:
            across, down = (mouth - (left + right) / 2).tolist()
            assert down > abs(across), (
                f"the mouth is {down:.1f} pixels below the eyes and {across:.1f} right of them; y "
                "grows downwards, and x comes before y"
            )

    # What ids mean

    def test_order_of_ids_is_kept(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        turned = self._ask(provider, ids[::-1])
        assert _same(turned, [part.flip(0) for part in self._ask(provider, ids)]), (
            "ids in another order do not give the rows in that order; row i is of ids[i]"
        )

    def test_ids_may_come_twice(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        mend = "an id that comes twice must give its row twice; a batch may repeat a sample"
        with explained(mend):
            twice = self._ask(provider, [name for name in ids for _ in range(2)])
        expected = [part.repeat_interleave(2, dim=0) for part in self._ask(provider, ids)]
        assert _same(twice, expected), mend

    def test_one_id_gives_what_all_give(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        together = self._ask(provider, ids)
        mend = "an id alone gives other landmarks than among others; let no sample change another"
        with explained(mend):
            alone = [self._ask(provider, [one]) for one in ids]
        for row, answer in enumerate(alone):
            assert _same(answer, [part[row : row + 1] for part in together]), mend

    def test_no_ids_give_no_rows(self) -> None:
        provider = self.make_provider()
        expected = [part[:0] for part in self._ask(provider, self._ids())]
        mend = (
            f"no ids must give empty tensors of shapes {[tuple(part.shape) for part in expected]}; "
            "make them of the layout's size, not by stacking what was found"
        )
        with explained(mend):
            found = self._ask(provider, [])
        assert _same(found, expected), mend

    def test_takes_any_sequence(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        mend = "a tuple of ids must give what a list gives; take any sequence of texts"
        with explained(mend):
            found = self._ask(provider, tuple(ids))
        assert _same(found, self._ask(provider, ids)), mend

    def test_unknown_id_is_refused_or_not_found(self) -> None:
        provider, known = self.make_provider(), self._ids()[0]
        mend = "raise a ValueError that names it, or return a row of which nothing is visible"
        with explained(f"the unknown id {self.unknown_id!r} fails late; {mend}"):
            try:
                landmarks, visible = self._ask(provider, [self.unknown_id, known])
            except ValueError as error:
                text = str(error)
                assert self.unknown_id in text, (
                    f"the unknown id {self.unknown_id!r} raised {text!r}; {mend}"
                )
                return
        assert len(visible) == 2, (
            f"an unknown id and a known one give {len(visible)} rows, so that rows are no longer "
            f"those of their ids; {mend}"
        )
        assert not visible[0].any(), (
            f"the unknown id {self.unknown_id!r} has visible landmarks, {landmarks[0].tolist()}; "
            f"{mend}"
        )

    # What a call leaves alone

    def test_same_ids_give_the_same(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        once = [part.clone() for part in self._ask(provider, ids)]
        before = random_state()
        again = self._ask(provider, ids)
        assert _same(once, again), "the same ids give other landmarks the second time"
        assert random_state() == before, (
            "a call draws random numbers of a global generator, which changes what training draws "
            "next; use a generator of your own"
        )

    def test_answers_are_new_tensors(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        first = self._ask(provider, ids)
        kept = [part.clone() for part in first]
        mend = "return copies of what the provider keeps"
        with explained(f"nothing can be written into the landmarks; {mend}"), torch.no_grad():
            for part in first:
                part.zero_()
        assert _same(self._ask(provider, ids), kept), (
            f"what a caller writes into the landmarks is in the next answer; {mend}"
        )

    def test_ids_are_left_alone(self) -> None:
        provider, ids = self.make_provider(), self._ids()
        for given in (ids[:], ids[::-1]):  # one of them is not sorted
            kept = given[:]
            provider(given)
            assert given == kept, "the list of ids is changed; make a list of your own"

    def _ids(self) -> list[str]:
        ids = list(self.known_ids())
        assert len(set(ids)) == len(ids) > 1, (
            f"known_ids() must return two different ids or more, got {ids}"
        )
        return ids

    def _ask(self, provider: LandmarkProvider, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        answer = provider(ids[:])
        parts = answer if isinstance(answer, tuple) else (answer,)
        assert [isinstance(part, Tensor) for part in parts] == [True, True], (
            "a call must return a tuple of two tensors, landmarks and visible, got "
            f"{[type(part).__name__ for part in parts]}"
        )
        return answer

    def _part(self, group: str) -> Tensor | None:
        """Mean point of a part of the face, over all samples in which all of it is visible."""
        provider = self.make_provider()
        landmarks, visible = self._ask(provider, self._ids())
        layout = _layout(provider)
        if layout is None or group not in layout.groups:
            return None
        points = layout.num_points
        if landmarks.shape[1:] != (points, 2) or visible.shape[1:] != (points,):
            return None  # which another check says
        members = list(layout.groups[group])
        shown = visible[:, members].bool().all(dim=1)
        return landmarks[shown][:, members].mean(dim=(0, 1)) if shown.any() else None


def _layout(provider: LandmarkProvider) -> LandmarkLayout | None:
    """The provider's layout, unless it has none, which a check of its own says."""
    layout = getattr(provider, "layout", None)
    return layout if isinstance(layout, LandmarkLayout) else None


def _same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(map(same, one, other))
