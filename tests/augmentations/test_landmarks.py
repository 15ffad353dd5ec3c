"""Landmarks go where the pixels go: points are drawn into images and looked for afterwards."""

import copy
import inspect
import math

import kornia.augmentation as K
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustfer.augmentations import (
    KorniaPipeline,
    LandmarkView,
    LandmarkViews,
    MirroredPair,
    SingleView,
)
from robustfer.augmentations._following import _RIGID, check_followable
from robustfer.data import DemoFaces
from robustfer.data.landmarks import layout, mirror_landmarks, swap_left_right
from robustfer.testing._state import changes, state_of

SWAP_5 = layout(5).swap
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
QUIET = {**PLAIN, "probability": 0.0}
SIZES = [48, 224]
SIGMA = 1.5
# Half the side of a drawn point, beyond which a border does not cut it.
REACH = 4 * SIGMA


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scattered(batch, points, height, width, *, margin=0.1, seed=0, dtype=torch.float32):
    size = torch.tensor([width - 1.0, height - 1.0], dtype=dtype)
    random = torch.rand(batch, points, 2, generator=seeded(seed), dtype=dtype)
    return (margin + (1 - 2 * margin) * random) * size


def drawn(landmarks, height, width, channels=3):
    """An image a landmark (B * K, C, H, W), with a bright bump at the landmark."""
    x, y = landmarks.flatten(0, 1)[..., None, None].unbind(1)
    squared = (torch.arange(width) - x) ** 2 + (torch.arange(height)[:, None] - y) ** 2
    return torch.exp(squared / (-2 * SIGMA**2))[:, None].expand(-1, channels, -1, -1)


def found(images):
    """Where the bump of each image is (B, 1, 2): its centre of gravity."""
    bumps = images.double().sum(1)
    total = bumps.sum((1, 2))
    x = (bumps.sum(1) * torch.arange(bumps.shape[2])).sum(1) / total
    y = (bumps.sum(2) * torch.arange(bumps.shape[1])).sum(1) / total
    return torch.stack((x, y), -1)[:, None]


def compare(result, *, at_least, within=0.1, scale=1.0):
    """The landmarks of a LandmarkView of drawn points, against the points found in its images."""
    height, width = result.view.shape[-2:]
    reach = REACH * max(scale, 1.0)
    x, y = result.landmarks[:, 0].unbind(-1)
    whole = (x > reach) & (x < width - 1 - reach) & (y > reach) & (y < height - 1 - reach)
    assert whole.sum() >= at_least
    assert result.visible[whole].all()
    error = (found(result.view) - result.landmarks)[whole].norm(dim=-1).max()
    assert error < within, f"{error:.3f} px off"
    # What is not in the image is not visible, and the other way round.
    gone = result.view.amax((1, 2, 3)) < 0.05
    assert not result.visible[gone].any()


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
    assert set(_RIGID) <= tried


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
    expected = mirror_landmarks(landmarks, layout(5), width=48)
    expected = torch.where(flipped[:, None, None], expected, landmarks)
    torch.testing.assert_close(result.landmarks, expected)
    expected = torch.where(flipped[:, None], swap_left_right(visible, layout(5)), visible)
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
            expected = swap_left_right(expected, layout(5))
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
    options = {**PLAIN, "probability": 0.8, "size": size}
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
        mirrored = swap_left_right(two.visible, layout(5))
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
    both = pair.with_landmarks(images, landmarks, swap=layout(points).swap)
    assert torch.equal(both.landmarks, landmarks)
    mirrored = mirror_landmarks(landmarks, layout(points), width=width)
    torch.testing.assert_close(both.landmarks_flipped, mirrored)
    assert torch.equal(both.visible_flipped, swap_left_right(both.visible, layout(points)))
    again = pair.with_landmarks(images, mirrored, swap=layout(points).swap)
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
    swap = list(layout(68).swap)
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
                points[:, layout(68).groups[f"{side}_{part}"], 0].mean(1)
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


# --- the same images, and no trace ----------------------------------------------------------------

MAKERS = {
    "pipeline": lambda pipeline: pipeline,
    "one view": lambda pipeline: SingleView(noise_std=0.1, size=40, pipeline=pipeline),
    "independent": lambda pipeline: MirroredPair(noise_std=0.1, pipeline=pipeline),
    "shared": lambda pipeline: MirroredPair(erase="shared", noise_std=0.1, pipeline=pipeline),
}


def busy():
    return KorniaPipeline(
        K.RandomRotation(30.0, p=0.5),
        K.RandomCrop((44, 44), padding=3),
        K.ColorJitter(0.2, 0.2, 0.2, p=0.5),
        K.RandomGaussianNoise(std=0.1, p=0.5),
        K.RandomHorizontalFlip(),
        K.AugmentationSequential(K.RandomPerspective(0.2), K.RandomGrayscale(), random_apply=1),
    )


def as_images(result):
    """The views of a result, with landmarks or without."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [getattr(result, name) for name in result._fields if name.startswith("view")]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
def test_images_are_the_same_without_landmarks(kind, training):
    augmentation = MAKERS[kind](busy()).train(training)
    images, landmarks = torch.rand(8, 3, 48, 48, generator=seeded()), scattered(8, 5, 48, 48)
    for seed in range(3):
        state = torch.get_rng_state()
        one, two = (
            augmentation.with_landmarks(images, landmarks, swap=SWAP_5, generator=seeded(seed))
            for _ in "12"
        )
        assert torch.equal(torch.get_rng_state(), state)
        assert all(map(torch.equal, one, two))
        plain = augmentation(images, generator=seeded(seed))
        assert all(map(torch.equal, as_images(plain), as_images(one)))
        torch.manual_seed(seed)
        plain = augmentation(images)
        torch.manual_seed(seed)
        one = augmentation.with_landmarks(images, landmarks, swap=SWAP_5)
        assert all(map(torch.equal, as_images(plain), as_images(one)))


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_is_left_behind(kind):
    pipeline = busy()
    augmentation = MAKERS[kind](pipeline)
    images, landmarks = torch.rand(8, 3, 48, 48), scattered(8, 5, 48, 48)
    visible = torch.ones(8, 5, dtype=torch.bool)
    given_inputs = images.clone(), landmarks.clone(), visible.clone()
    before = state_of(pipeline)
    result = augmentation.with_landmarks(images, landmarks, visible=visible, swap=SWAP_5)
    assert not changes(before, state_of(pipeline))
    assert not any(part._forward_hooks for part in pipeline._all[0].modules())
    assert all(map(torch.equal, (images, landmarks, visible), given_inputs))
    assert not any(tensor.requires_grad for tensor in result)
    copy.deepcopy(augmentation)


def test_hooks_are_taken_out_after_an_error():
    pipeline = KorniaPipeline(K.RandomRotation(5.0), K.ColorJitter(0.1, 0.1, 0.1, 0.1, p=1.0))
    with pytest.raises(ValueError, match="hue and saturation need three"):
        pipeline.with_landmarks(torch.rand(2, 1, 9, 9), torch.zeros(2, 5, 2))
    assert not any(part._forward_hooks for part in pipeline._all[0].modules())


@pytest.mark.parametrize("kind", MAKERS)
def test_results_do_not_share_memory_with_what_was_given(kind):
    augmentation = MAKERS[kind](KorniaPipeline(K.RandomBrightness((0.5, 0.6)))).eval()
    landmarks = scattered(2, 5, 40, 40).requires_grad_()
    visible = torch.ones(2, 5, dtype=torch.bool)
    result = augmentation.with_landmarks(
        torch.rand(2, 3, 40, 40), landmarks, visible=visible, swap=SWAP_5
    )
    assert not result.landmarks.requires_grad
    result.landmarks.zero_()
    result.visible.zero_()
    assert visible.all()
    assert landmarks.detach().any()


@pytest.mark.parametrize("kind", MAKERS)
def test_off_the_cpu_no_value_is_read_by_the_host(kind):
    """Reading one on the meta device, where no tensor has values, would raise."""
    augmentation = MAKERS[kind](busy())
    images, landmarks = torch.rand(4, 3, 48, 48).to("meta"), scattered(4, 5, 48, 48).to("meta")
    visible = torch.ones(4, 5, dtype=torch.bool, device="meta")
    result = augmentation.with_landmarks(images, landmarks, visible=visible, swap=SWAP_5)
    assert all(tensor.is_meta for tensor in result)


def test_inference_mode():
    pipeline = busy()
    images, landmarks = torch.rand(4, 3, 48, 48), scattered(4, 5, 48, 48)
    expected = pipeline.with_landmarks(images, landmarks, swap=SWAP_5, generator=seeded())
    with torch.inference_mode():
        result = pipeline.with_landmarks(images, landmarks, swap=SWAP_5, generator=seeded())
    assert all(map(torch.equal, result, expected))


# --- what is refused ------------------------------------------------------------------------------


class Own(K.AugmentationBase2D):
    def apply_transform(self, images, params, flags, transform=None):
        return images.roll(1, -1)


REFUSED = {
    "elastic": (lambda: K.RandomElasticTransform(), "RandomElasticTransform is not known to put"),
    "spline": (lambda: K.RandomThinPlateSpline(), "RandomThinPlateSpline is not known to put"),
    "fisheye": (
        lambda: K.RandomFisheye(*(torch.tensor([-0.1, 0.1]),) * 2, torch.tensor([0.9, 1.0])),
        "RandomFisheye is not known to put landmarks where it puts the image; leave it out, or",
    ),
    "smear": (lambda: K.RandomMotionBlur(5, 35.0, 0.5), "RandomMotionBlur is not known to put"),
    "patches": (
        lambda: K.PatchSequential(K.RandomGrayscale(), grid_size=(2, 2), random_apply=True),
        "PatchSequential is not known",
    ),
    "an operation of one's own": (lambda: Own(), "Own is not known"),
    "any module": (lambda: K.ImageSequential(nn.AvgPool2d(2)), "AvgPool2d is not known"),
    "policy": (
        lambda: K.AugmentationSequential(K.auto.TrivialAugment()),
        "TrivialAugment is not known",
    ),
    "erasing": (
        lambda: K.RandomErasing(),
        "RandomErasing hides landmarks without telling which; let SingleView or MirroredPair erase",
    ),
    "nearest": (
        lambda: K.RandomAffine(5.0, resample="nearest"),
        'RandomAffine with nearest resampling .* use resample="bilinear"',
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_operations_that_cannot_carry_landmarks_are_refused(name, training):
    make, message = REFUSED[name]
    images, landmarks = torch.rand(2, 3, 24, 24), scattered(2, 5, 24, 24)
    operations = (make(), K.ImageSequential(K.RandomGrayscale(), make()))
    for pipeline in map(KorniaPipeline, operations):
        pipeline.train(training)(images)  # without landmarks nothing speaks against it
        for augmentation in (
            pipeline,
            SingleView(pipeline=pipeline).train(training),
            MirroredPair(pipeline=pipeline).train(training),
        ):
            with pytest.raises(ValueError, match=message):
                augmentation.with_landmarks(images, landmarks, swap=SWAP_5)


def test_an_operation_that_paints_anew_is_refused():
    dissolving = K.RandomDissolving.__new__(K.RandomDissolving)  # making one fetches a network
    with pytest.raises(ValueError, match="RandomDissolving is not known"):
        check_followable([dissolving], None)


@pytest.mark.parametrize("flip", [K.RandomHorizontalFlip, K.RandomVerticalFlip])
def test_flips_ask_for_the_swap(flip):
    images, landmarks = torch.rand(2, 3, 24, 24), scattered(2, 5, 24, 24)
    pipeline = KorniaPipeline(K.RandomGrayscale(), K.AugmentationSequential(flip()))
    for augmentation in (pipeline, SingleView(pipeline=pipeline)):
        with pytest.raises(ValueError, match=f"{flip.__name__} makes left .* give swap="):
            augmentation.with_landmarks(images, landmarks)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": torch.zeros(3, 9, 9)}, r"images must have shape \(B, C, H, W\)"),
        ({"images": torch.zeros(4, 3, 9, 9).half()}, "images must be uint8 .* got torch.float16"),
        ({"landmarks": torch.zeros(4, 5)}, r"landmarks must have shape \(B, K, 2\)"),
        ({"landmarks": torch.zeros(4, 5, 3)}, r"landmarks must have shape \(B, K, 2\)"),
        ({"landmarks": torch.zeros(3, 5, 2)}, "landmarks has B=3 but images has B=4"),
        ({"landmarks": torch.zeros(4, 0, 2)}, "landmarks is empty along K"),
        ({"landmarks": torch.zeros(4, 5, 2).bfloat16()}, "landmarks must be float32 or float64"),
        ({"landmarks": torch.zeros(4, 5, 2).long()}, "landmarks must be float32 .* torch.int64"),
        ({"landmarks": torch.zeros(4, 5, 2).to("meta")}, "landmarks is on meta but images is on"),
        ({"visible": torch.ones(4, 4, dtype=torch.bool)}, "visible has K=4 but landmarks has K=5"),
        ({"visible": torch.ones(4, 5)}, "visible must be bool, got torch.float32"),
        ({"swap": (0, 1, 2)}, r"swap must pair the 5 landmarks, .* got \(0, 1, 2\)"),
        ({"swap": (1, 2, 0, 3, 4)}, "swap must pair the 5 landmarks"),
        ({"swap": (0, 1, 2, 3, 5)}, "swap must pair the 5 landmarks"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kind, changed, message):
    arguments = {
        "images": torch.zeros(4, 3, 9, 9),
        "landmarks": torch.zeros(4, 5, 2),
        "visible": None,
        "swap": SWAP_5,
    }
    augmentation = MAKERS[kind](KorniaPipeline(K.RandomGrayscale()))
    augmentation.with_landmarks(**arguments)
    with pytest.raises(ValueError, match=message):
        augmentation.with_landmarks(**{**arguments, **changed})


def test_the_pair_asks_for_the_swap():
    with pytest.raises(TypeError, match="swap"):
        MirroredPair().with_landmarks(torch.rand(1, 3, 9, 9), torch.zeros(1, 5, 2))


def test_all_take_the_same_arguments():
    names = ["self", "images", "landmarks", "generator", "swap", "visible"]
    for augmentation in (KorniaPipeline, SingleView, MirroredPair):
        parameters = inspect.signature(augmentation.with_landmarks).parameters
        assert list(parameters)[:3] == names[:3]
        assert sorted(list(parameters)[3:]) == names[3:]
