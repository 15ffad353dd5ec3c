"""What ``with_landmarks`` leaves alone, and what it refuses."""

import copy
import inspect

import kornia.augmentation as K
import pytest
import torch
from torch import nn

from robustfer.augmentations import KorniaPipeline, MirroredPair, SingleView
from robustfer.augmentations._moving_landmarks import check_followable
from robustfer.testing._state import changes, state_of
from tests.augmentations.drawn_points import SWAP_5, scattered, seeded

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
    with pytest.raises(ValueError, match="need three, such as hue and saturation"):
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
    torch.testing.assert_close(tuple(result), tuple(expected))


# --- what is refused ------------------------------------------------------------------------------


class Own(K.AugmentationBase2D):
    def apply_transform(self, images, params, flags, transform=None):
        return images.roll(1, -1)


REFUSED = {
    "elastic": (
        lambda: K.RandomElasticTransform(),
        "RandomElasticTransform is not known to move landmarks",
    ),
    "spline": (
        lambda: K.RandomThinPlateSpline(),
        "RandomThinPlateSpline is not known to move landmarks",
    ),
    "fisheye": (
        lambda: K.RandomFisheye(*(torch.tensor([-0.1, 0.1]),) * 2, torch.tensor([0.9, 1.0])),
        "RandomFisheye is not known to move landmarks with the image; leave it out, or",
    ),
    "smear": (
        lambda: K.RandomMotionBlur(5, 35.0, 0.5),
        "RandomMotionBlur is not known to move landmarks",
    ),
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
        "RandomErasing does not say which landmarks it hides; use the erase_probability",
    ),
    "nearest": (
        lambda: K.RandomAffine(5.0, resample="nearest"),
        'RandomAffine with nearest resampling .* use resample="bilinear"',
    ),
}


@pytest.mark.parametrize(
    "augmentation", [SingleView(), MirroredPair(), KorniaPipeline(K.ColorJitter(0.2))]
)
def test_shares_of_the_image_given_as_pixels_are_warned_of(augmentation):
    images, shares = torch.rand(2, 3, 24, 24), torch.linspace(0.1, 0.9, 20).view(2, 5, 2)
    with pytest.warns(
        UserWarning,
        match="landmarks must be in pixels, got values from 0.1 to 0.9, .* multiply x by",
    ):
        augmentation.with_landmarks(images, shares, swap=SWAP_5)
    augmentation.with_landmarks(images, shares * 24, swap=SWAP_5)


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
        with pytest.raises(ValueError, match=f"{flip.__name__} swaps left .* pass swap="):
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
        ({"swap": (0, 1, 2)}, r"swap must pair the 5 points, got \(0, 1, 2\)"),
        ({"swap": (1, 2, 0, 3, 4)}, "swap must pair the 5 points"),
        ({"swap": (0, 1, 2, 3, 5)}, "swap must pair the 5 points"),
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
