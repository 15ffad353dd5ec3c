"""Landmarks go where the pixels go: points are drawn into images and looked for afterwards."""

import math

import kornia.augmentation as K
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.augmentations import (
    KorniaPipeline,
    LandmarkView,
    LandmarkViews,
    MirroredPair,
    SingleView,
)
from robustfer.augmentations._moving_landmarks import _FOLLOWED
from robustfer.data import DemoFaces
from robustfer.landmarks import landmark_layout, mirror_landmarks
from tests.augmentations.drawn_points import (
    PLAIN,
    QUIET,
    SWAP_5,
    compare,
    drawn,
    scattered,
    seeded,
)

SIZES = [48, 224]


# --- kornia's operations --------------------------------------------------------------------------


def in_two_places(operation):
    return K.AugmentationSequential(operation, K.ImageSequential(operation))


# For an image of the size s: all operations that may carry landmarks, in all their ways.
MOVES = {
    "horizontal flip": lambda s: K.RandomHorizontalFlip(p=0.5),
    "vertical flip": lambda s: K.RandomVerticalFlip(p=0.5),
    "rotation": lambda s: K.RandomRotation(30.0, p=0.7),
    "rotation, corners not aligned": lambda s: K.RandomRotation(30.0, p=1.0, align_corners=False),
    "rotation, bicubic": lambda s: K.RandomRotation(30.0, p=1.0, resample="bicubic"),
    "quarter turns": lambda s: K.RandomRotation90((-3, 3), p=0.7),
    "affine": lambda s: K.RandomAffine(20.0, (0.1, 0.1), (0.8, 1.2), 5.0, p=0.7),
    "affine, aligned": lambda s: K.RandomAffine(20.0, (0.1, 0.1), p=1.0, align_corners=True),
    "shear": lambda s: K.RandomShear(15.0, p=0.7),
    "translation": lambda s: K.RandomTranslate((-0.1, 0.2), (-0.2, 0.1), p=0.7),
    "perspective": lambda s: K.RandomPerspective(0.3, p=0.7),
    "perspective, of all sides": lambda s: K.RandomPerspective(
        0.2, p=1.0, sampling_method="area_preserving"
    ),
    "crop": lambda s: K.RandomCrop((s * 3 // 4, s * 2 // 3)),
    "crop of some batches": lambda s: K.RandomCrop((s * 3 // 4, s * 2 // 3), p=0.5),
    "crop, padded": lambda s: K.RandomCrop((s, s + 3), padding=(5, 3, 1, 7)),
    "crop, padded as needed": lambda s: K.RandomCrop((s + 20, s + 9), pad_if_needed=True),
    "crop, resampled": lambda s: K.RandomCrop((s * 3 // 4, s), padding=4, cropping_mode="resample"),
    "crop larger than the image": lambda s: K.RandomCrop((s + 20, s + 9)),
    "resized crop": lambda s: K.RandomResizedCrop((s, s + 9), scale=(0.6, 1.0)),
    "resized crop, not aligned": lambda s: K.RandomResizedCrop(
        (s, s), scale=(0.6, 1.0), align_corners=False
    ),
    "resized crop, resampled": lambda s: K.RandomResizedCrop(
        (s, s), scale=(0.6, 1.0), cropping_mode="resample", align_corners=False
    ),
    "central crop": lambda s: K.CenterCrop((s * 3 // 4 + 1, s * 3 // 4)),
    "central crop, resampled": lambda s: K.CenterCrop(s * 3 // 4 + 1, cropping_mode="resample"),
    "larger": lambda s: K.Resize((s * 3 // 2, 2 * s)),
    "larger, not aligned": lambda s: K.Resize((s * 3 // 2, 2 * s), align_corners=False),
    "smaller": lambda s: K.Resize((s * 4 // 5, s * 3 // 4), antialias=True),
    "longest side": lambda s: K.LongestMaxSize(s * 3 // 2),
    "shortest side": lambda s: K.SmallestMaxSize(s * 3 // 2, align_corners=False),
    "padding": lambda s: K.PadTo((s + 9, s + 2)),
    "padding that cuts": lambda s: K.PadTo((s - 9, s + 2)),
    "one after the other": lambda s: K.AugmentationSequential(
        K.RandomCrop((s, s), padding=s // 12),
        K.RandomRotation(15.0, p=0.5),
        K.ImageSequential(K.RandomHorizontalFlip(p=0.5), K.RandomBrightness((0.8, 1.0), p=0.5)),
        K.RandomResizedCrop((s, s), scale=(0.8, 1.0)),
    ),
    "one operation in two places": lambda s: in_two_places(K.RandomRotation(20.0, p=1.0)),
    "any three, an operation perhaps twice": lambda s: K.ImageSequential(
        K.RandomAffine(8.0, (0.05, 0.05), p=0.7), K.RandomHorizontalFlip(p=0.5), random_apply=3
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", MOVES)
def test_points_go_where_the_pixels_go(name, size):
    height, width = size, size + 8
    landmarks = scattered(60 if size == 48 else 16, 1, height, width)
    images = drawn(landmarks, height, width, channels=1)
    pipeline = KorniaPipeline(MOVES[name](size))
    result = pipeline.with_landmarks(images, landmarks, swap=(0,), generator=seeded())
    compare(result, at_least=8, scale=result.view.shape[-1] / width)


def test_every_operation_that_may_carry_landmarks_is_tried():
    tried = {part.__class__ for make in MOVES.values() for part in make(48).modules()}
    assert set(_FOLLOWED) <= tried


STAYS = {
    "colour": lambda: K.ColorJitter(0.3, 0.3, 0.3, 0.1, p=1.0),
    "grey": lambda: K.RandomGrayscale(p=1.0),
    "noise": lambda: K.RandomGaussianNoise(std=0.01, p=1.0),
    "normalisation": lambda: K.Normalize((0.5,) * 3, (0.25,) * 3),
    "compression": lambda: K.RandomJPEG(p=1.0),
    "blur": lambda: K.RandomGaussianBlur((5, 5), (0.5, 1.5), p=1.0),
    "flat blur": lambda: K.RandomBoxBlur((3, 5), p=1.0),
    "median": lambda: K.RandomMedianBlur((3, 3), p=1.0),
    "sharpness": lambda: K.RandomSharpness(2.0, p=1.0),
}


@pytest.mark.parametrize("name", STAYS)
def test_points_stay_under_operations_on_colour(name):
    landmarks = scattered(8, 1, 48, 48, margin=0.2)
    images = drawn(landmarks, 48, 48)
    result = KorniaPipeline(STAYS[name]()).with_landmarks(images, landmarks, generator=seeded())
    assert torch.equal(result.landmarks, landmarks)
    assert result.visible.all()
    if name in ("blur", "flat blur", "median", "sharpness"):
        compare(result, at_least=6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_other_dtypes(dtype):
    landmarks = scattered(20, 1, 48, 56, dtype=torch.float64)
    images = drawn(landmarks, 48, 56, channels=1)
    images = (images * 255).round().to(dtype) if dtype == torch.uint8 else images.to(dtype)
    pipeline = KorniaPipeline(K.RandomRotation(20.0, p=1.0), K.RandomCrop((44, 44)))
    result = pipeline.with_landmarks(images, landmarks, generator=seeded())
    assert result.landmarks.dtype == torch.float64
    compare(result, at_least=8)
    single = pipeline.with_landmarks(images, landmarks.float(), generator=seeded())
    assert single.landmarks.dtype == torch.float32
    torch.testing.assert_close(single.landmarks.double(), result.landmarks, rtol=0, atol=1e-4)


def test_autocast_does_not_move_the_points():
    pipeline = KorniaPipeline(K.RandomRotation(20.0, p=1.0))
    landmarks, images = scattered(4, 5, 48, 48), torch.rand(4, 3, 48, 48, generator=seeded())
    expected = pipeline.with_landmarks(images, landmarks, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = pipeline.with_landmarks(images, landmarks, generator=seeded())
    assert all(map(torch.equal, result, expected))


def test_eval_moves_points_by_what_is_not_random():
    pipeline = KorniaPipeline(
        K.RandomRotation(30.0, p=1.0), K.CenterCrop(32), K.RandomHorizontalFlip(p=1.0), K.Resize(64)
    ).eval()
    landmarks = scattered(12, 1, 48, 48, margin=0.3)
    result = pipeline.with_landmarks(drawn(landmarks, 48, 48), landmarks, swap=(0,))
    torch.testing.assert_close(result.landmarks, (landmarks - 8) * (63 / 31), rtol=0, atol=1e-4)
    compare(result, at_least=8, scale=2.0)


# --- left and right -------------------------------------------------------------------------------


def test_flips_swap_left_and_right_where_they_were_done():
    landmarks, images = scattered(32, 5, 40, 48), torch.rand(32, 3, 40, 48, generator=seeded())
    visible = torch.rand(32, 5, generator=seeded(1)) < 0.7
    result = KorniaPipeline(K.RandomHorizontalFlip(p=0.5)).with_landmarks(
        images, landmarks, visible=visible, swap=SWAP_5, generator=seeded()
    )
    flipped = (result.view == images.flip(-1)).all((1, 2, 3))
    assert 8 < flipped.sum() < 24
    expected = mirror_landmarks(landmarks, landmark_layout(5), width=48)
    expected = torch.where(flipped[:, None, None], expected, landmarks)
    torch.testing.assert_close(result.landmarks, expected)
    expected = torch.where(flipped[:, None], visible[:, landmark_layout(5).swap], visible)
    assert torch.equal(result.visible, expected)


@pytest.mark.parametrize("flip", [K.RandomHorizontalFlip, K.RandomVerticalFlip])
def test_flips_of_all_and_of_none(flip):
    landmarks, images = scattered(4, 5, 48, 48), torch.rand(4, 3, 48, 48, generator=seeded())
    for p, batch, swapped in ((1.0, 1.0, True), (1.0, 0.0, False), (0.0, 1.0, False)):
        pipeline = KorniaPipeline(flip(p=p, p_batch=batch))
        result = pipeline.with_landmarks(images, landmarks, swap=SWAP_5)
        across = 0 if flip is K.RandomHorizontalFlip else 1
        expected = landmarks.clone()
        if swapped:
            expected = expected[:, landmark_layout(5).swap]
            expected[..., across] = 47 - expected[..., across]
        torch.testing.assert_close(result.landmarks, expected)
        assert torch.equal(result.view, images.flip(-1 - across) if swapped else images)


def test_upside_down_is_mirrored_and_turned():
    landmarks, images = scattered(4, 5, 48, 48), torch.rand(4, 3, 48, 48, generator=seeded())
    one = KorniaPipeline(K.RandomVerticalFlip(p=1.0))
    two = KorniaPipeline(K.RandomHorizontalFlip(p=1.0), K.RandomRotation90((2, 2), p=1.0))
    one, two = (p.with_landmarks(images, landmarks, swap=SWAP_5) for p in (one, two))
    torch.testing.assert_close(one.view, two.view, rtol=0, atol=1e-4)
    torch.testing.assert_close(one.landmarks, two.landmarks, rtol=0, atol=1e-4)


# --- what is visible ------------------------------------------------------------------------------

EDGES = [
    ((-0.5, 0.0), True),
    ((-0.51, 0.0), False),
    ((47.5, 39.5), True),
    ((47.51, 39.0), False),
    ((0.0, 39.51), False),
    ((20.0, -0.51), False),
    ((math.nan, 3.0), False),
    ((3.0, math.nan), False),
    ((math.inf, 3.0), False),
]


@pytest.mark.parametrize(
    "make",
    [
        lambda: KorniaPipeline(K.RandomBrightness((0.5, 0.6))),
        lambda: SingleView(**QUIET),
        lambda: MirroredPair(**QUIET),
    ],
)
def test_points_outside_the_image_are_not_visible(make):
    landmarks = torch.tensor([[point for point, _ in EDGES]])
    expected = torch.tensor([[inside for _, inside in EDGES]])
    swap = tuple(range(len(EDGES)))
    images = torch.rand(1, 3, 40, 48)
    result = make().with_landmarks(images, landmarks, swap=swap)
    assert torch.equal(result.visible, expected)
    torch.testing.assert_close(result.landmarks, landmarks, equal_nan=True)
    hidden = make().with_landmarks(images, landmarks, visible=~expected, swap=swap)
    assert not hidden.visible.any()
    if isinstance(result, LandmarkViews):
        assert torch.equal(result.visible_flipped, expected)
        known = landmarks.isfinite()
        assert torch.equal(result.landmarks_flipped.isfinite(), known)


@pytest.mark.parametrize(
    "operations",
    [
        (K.CenterCrop(20), K.PadTo((40, 40))),
        (
            K.RandomTranslate((0.5, 0.5), (0.0, 0.0), p=1.0),
            K.RandomTranslate((-0.5, -0.5), (0.0, 0.0), p=1.0),
        ),
        (K.RandomRotation((45.0, 45.0), p=1.0), K.RandomRotation((-45.0, -45.0), p=1.0)),
    ],
)
def test_what_left_the_frame_once_does_not_come_back(operations):
    landmarks = torch.tensor([[[1.0, 1.0], [38.0, 38.0], [20.0, 20.0]]])
    images = torch.ones(1, 3, 40, 40)
    for made in (operations, (K.AugmentationSequential(*operations),)):
        result = KorniaPipeline(*made).with_landmarks(images, landmarks)
        back = (result.landmarks.clamp(0, 39) == result.landmarks).all(-1)
        assert (back & ~result.visible).any()
        x, y = result.landmarks.clamp(0, 39).round().long().unbind(-1)
        assert torch.equal(result.visible, back & (result.view[0, 0][y, x] > 0.5))


@pytest.mark.parametrize("erase", ["one view", "independent", "shared"])
@pytest.mark.parametrize("size", [None, (60, 72)])
def test_points_under_the_erased_box_are_not_visible(erase, size):
    options = {**PLAIN, "erase_probability": 0.8, "size": size}
    landmarks, images = scattered(100, 5, 40, 48, margin=0.02), torch.ones(100, 3, 40, 48)
    images[0] = 0.5  # so that the pixels are no boxes themselves
    if erase == "one view":
        one = SingleView(**options).with_landmarks(images, landmarks, generator=seeded())
        views = [one]
    else:
        two = MirroredPair(erase=erase, **options).with_landmarks(
            images, landmarks, swap=SWAP_5, generator=seeded()
        )
        views = [
            LandmarkView(two.view, two.landmarks, two.visible),
            LandmarkView(two.view_flipped, two.landmarks_flipped, two.visible_flipped),
        ]
        mirrored = two.visible[:, landmark_layout(5).swap]
        assert torch.equal(two.visible_flipped, mirrored) == (erase == "shared")
    for view, points, visible in views:
        x, y = points.round().long().unbind(-1)
        shown = view[torch.arange(100)[:, None], 0, y, x] > 0.25
        assert torch.equal(visible, shown)
        assert 10 < (~visible).sum() < 200


# --- views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "new"), [(48, (80, 64)), (48, 224), (224, (96, 120)), (48, None)])
def test_resizing_and_mirroring_of_views(size, new):
    landmarks = scattered(20, 1, size, size + 8)
    images = drawn(landmarks, size, size + 8)
    one = SingleView(**QUIET, size=new).with_landmarks(images, landmarks)
    compare(one, at_least=8, scale=one.view.shape[-1] / size)
    two = MirroredPair(**QUIET, size=new).with_landmarks(images, landmarks, swap=(0,))
    assert torch.equal(two.landmarks, one.landmarks)
    mirrored = LandmarkView(two.view_flipped, two.landmarks_flipped, two.visible_flipped)
    compare(mirrored, at_least=8, scale=one.view.shape[-1] / size)


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(2, 30),
    width=st.integers(2, 30),
    points=st.sampled_from([5, 19, 68, 98]),
    erase=st.sampled_from(["independent", "shared"]),
    training=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_pair_mirrors_as_the_data_set_does(height, width, points, erase, training, seed):
    images = torch.rand(3, 3, height, width, generator=seeded(seed))
    landmarks = scattered(3, points, height, width, margin=-0.2, seed=seed)
    pair = MirroredPair(erase=erase, **QUIET).train(training)
    both = pair.with_landmarks(images, landmarks, swap=landmark_layout(points).swap)
    assert torch.equal(both.landmarks, landmarks)
    mirrored = mirror_landmarks(landmarks, landmark_layout(points), width=width)
    torch.testing.assert_close(both.landmarks_flipped, mirrored)
    assert torch.equal(both.visible_flipped, both.visible[:, landmark_layout(points).swap])
    again = pair.with_landmarks(images, mirrored, swap=landmark_layout(points).swap)
    torch.testing.assert_close(again.landmarks_flipped, landmarks, rtol=0, atol=1e-4)


def colours(images, landmarks):
    """The colours of images at their landmarks (B, K, C)."""
    size = torch.tensor([images.shape[-1], images.shape[-2]])
    grid = (2 * landmarks + 1) / size - 1
    return F.grid_sample(images, grid[:, :, None], align_corners=False)[..., 0].transpose(1, 2)


def test_drawn_faces():
    faces = DemoFaces(14, size=96)
    images = torch.stack([faces[row]["image"] for row in range(14)]).float() / 255
    landmarks = torch.stack([faces.landmarks(row) for row in range(14)])
    swap = list(landmark_layout(68).swap)
    crop = K.RandomCrop((96, 96), padding=6)
    pair = MirroredPair(**QUIET, pipeline=KorniaPipeline(crop))
    both = pair.with_landmarks(images, landmarks, swap=swap, generator=seeded())
    shown = both.visible & (both.landmarks.clamp(0, 95) == both.landmarks).all(-1)
    assert shown.float().mean() > 0.9
    torch.testing.assert_close(
        colours(both.view, both.landmarks)[shown],
        colours(images, landmarks)[shown],
        rtol=0,
        atol=1e-4,
    )
    # A point of the mirrored face shows what its partner shows in the other.
    torch.testing.assert_close(
        colours(both.view_flipped, both.landmarks_flipped),
        colours(both.view, both.landmarks)[:, swap],
        rtol=0,
        atol=1e-4,
    )
    # The names are those that the face has now: left is left of right in both.
    for points in (both.landmarks, both.landmarks_flipped):
        for part in ("eye", "brow"):
            left, right = (
                points[:, landmark_layout(68).groups[f"{side}_{part}"], 0].mean(1)
                for side in ("left", "right")
            )
            assert (left < right).all()


def test_drawn_faces_turned():
    """Turned by kornia and turned back by hand, each landmark is on the same spot of the face."""
    faces = DemoFaces(7, size=96)
    images = torch.stack([faces[row]["image"] for row in range(7)]).float() / 255
    images = F.avg_pool2d(images, 5, 1, 2)  # soft, so that colours tell little shifts from noise
    landmarks = torch.stack([faces.landmarks(row) for row in range(7)])
    single = SingleView(**QUIET, pipeline=KorniaPipeline(K.RandomRotation(25.0, p=1.0)))
    one = single.with_landmarks(images, landmarks, generator=seeded())
    inside = one.visible & (landmarks > 8).all(-1) & (landmarks < 87).all(-1)
    difference = (colours(one.view, one.landmarks) - colours(images, landmarks))[inside].abs()
    elsewhere = (colours(one.view, one.landmarks + 0.5) - colours(images, landmarks))[inside].abs()
    assert difference.mean() < 0.3 * elsewhere.mean()
