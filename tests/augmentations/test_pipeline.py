import copy
import pickle

import kornia.augmentation as K
import pytest
import torch
from torch import nn

from robustfer.augmentations import KorniaPipeline
from robustfer.testing._state import changes, state_of

OPERATIONS = {
    "rotation": lambda: K.RandomRotation(20.0, p=0.5),
    "crop": lambda: K.RandomCrop((20, 22), padding=3),
    "resized crop": lambda: K.RandomResizedCrop((20, 22), scale=(0.5, 1.0)),
    "affine": lambda: K.RandomAffine(10.0, translate=(0.1, 0.1), p=0.5),
    "colour": lambda: K.ColorJitter(0.3, 0.3, 0.3, 0.1, p=0.7),
    "noise": lambda: K.RandomGaussianNoise(std=0.1, p=0.5),
    "blur": lambda: K.RandomGaussianBlur((3, 3), (0.5, 1.0), p=0.5),
    "normalise": lambda: K.Normalize((0.5,) * 3, (0.25,) * 3),
    "any two": lambda: K.AugmentationSequential(
        K.RandomRotation(20.0), K.RandomBrightness((0.5, 1.5)), K.RandomGrayscale(), random_apply=2
    ),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(channels=3, dtype=torch.float32):
    images = torch.randint(256, (8, channels, 24, 28), generator=seeded(), dtype=torch.uint8)
    return images if dtype == torch.uint8 else images.to(dtype) / 255


@pytest.mark.parametrize("name", OPERATIONS)
def test_runs_kornia_and_the_generator_decides(name):
    make = OPERATIONS[name]
    pipeline, images = KorniaPipeline(make()), pixels()
    torch.manual_seed(3)
    expected = K.AugmentationSequential(make(), data_keys=["input"])(images)
    torch.manual_seed(3)
    assert torch.equal(pipeline(images), expected)
    state = torch.get_rng_state()
    one, two = (pipeline(images, generator=seeded(1)) for _ in "12")
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state)
    if name != "normalise":
        assert not torch.equal(one, pipeline(images, generator=seeded(2)))
        generator = seeded(1)
        first, second = (pipeline(images, generator=generator) for _ in "12")
        assert torch.equal(first, one)
        assert not torch.equal(first, second)


def test_torchs_own_generator_may_be_named():
    pipeline, images = KorniaPipeline(K.RandomRotation(20.0, p=1.0)), pixels()
    first, second = (pipeline(images, generator=torch.default_generator) for _ in "12")
    assert not torch.equal(first, second)


def test_the_order_is_kept():
    pipeline = KorniaPipeline(K.Normalize((0.5,) * 3, (0.5,) * 3), K.CenterCrop(10), K.Resize(16))
    images = pixels()
    expected = K.Resize(16)(K.CenterCrop(10)(K.Normalize((0.5,) * 3, (0.5,) * 3)(images)))
    assert torch.equal(pipeline(images), expected)
    assert torch.equal(pipeline.eval()(images), expected)


def test_eval_switches_the_random_operations_off():
    random = [make() for name, make in OPERATIONS.items() if name != "normalise"]
    images = pixels()
    pipeline = KorniaPipeline(*random).eval()
    assert torch.equal(pipeline(images), images)
    fixed = K.Normalize((0.5,) * 3, (0.25,) * 3)
    pipeline = KorniaPipeline(*random[:2], fixed, *random[4:]).eval()
    torch.testing.assert_close(pipeline(images), (images - 0.5) / 0.25)
    assert torch.equal(KorniaPipeline(K.CenterCrop(10, p=0.5)).eval()(images), images)


def test_dtypes():
    pipeline = KorniaPipeline(K.RandomRotation(20.0, p=1.0))
    expected = pipeline(pixels(), generator=seeded())
    from_bytes = pipeline(pixels(dtype=torch.uint8), generator=seeded())
    assert from_bytes.dtype == torch.float32
    torch.testing.assert_close(from_bytes, expected)
    double = pipeline(pixels(dtype=torch.float64), generator=seeded())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), expected, rtol=0, atol=1e-4)


def test_autocast_does_not_move_the_geometry():
    pipeline = KorniaPipeline(K.RandomRotation(20.0, p=1.0))
    expected = pipeline(pixels(), generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pipeline(pixels(), generator=seeded())
    assert torch.equal(found, expected)


def test_copies_and_pickles():
    pipeline = KorniaPipeline(K.RandomRotation(20.0, p=1.0), K.CenterCrop(10))
    expected = pipeline(pixels(), generator=seeded())
    for other in (copy.deepcopy(pipeline), pickle.loads(pickle.dumps(pipeline))):
        assert torch.equal(other(pixels(), generator=seeded()), expected)
        assert torch.equal(other.eval()(pixels()), K.CenterCrop(10)(pixels()))
    assert not pipeline.state_dict()


def with_p(operation, p):
    """An operation with this probability: kornia's own constructor may refuse some."""
    operation.p = p
    return operation


@pytest.mark.parametrize(
    ("operations", "error", "message"),
    [
        ((), ValueError, "operations must hold at least one kornia augmentation, got none"),
        ((nn.Identity(),), TypeError, "must be two-dimensional kornia augmentations, got Identity"),
        ((K.RandomMixUpV2(),), TypeError, "must be two-dimensional .* got RandomMixUpV2"),
        (
            (K.AugmentationSequential(K.RandomMosaic((8, 8), data_keys=["input"])),),
            TypeError,
            "must not mix samples, got RandomMosaic",
        ),
        (
            (with_p(K.RandomRotation(5.0), 1.5),),
            ValueError,
            r"p of RandomRotation must lie in \[0, 1\], got 1.5",
        ),
        (
            (K.AugmentationSequential(with_p(K.RandomGrayscale(), -1)),),
            ValueError,
            r"p of RandomGrayscale must lie in \[0, 1\], got -1",
        ),
    ],
)
def test_operations_that_do_not_fit_are_refused(operations, error, message):
    with pytest.raises(error, match=message):
        KorniaPipeline(*operations)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"images must have shape \(B, C, H, W\)"),
        (torch.zeros(2, 3, 8, 8).bfloat16(), "images must be uint8 .* got torch.bfloat16"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message, training):
    pipeline = KorniaPipeline(K.RandomRotation(5.0)).train(training)
    with pytest.raises(ValueError, match=message):
        pipeline(images)


def test_colour_of_grey_images_is_explained():
    pipeline = KorniaPipeline(K.ColorJitter(0.1, 0.1, 0.1, 0.1, p=1.0))
    with pytest.raises(ValueError, match="refused images of 1 channels .*three, such as hue"):
        pipeline(pixels(channels=1))
    with pytest.raises(ValueError, match="refused images of 1 channels .mean length"):
        KorniaPipeline(K.Normalize((0.5,) * 3, (0.5,) * 3))(pixels(channels=1))
    plain = KorniaPipeline(K.ColorJitter(0.1, 0.1, p=1.0))
    assert plain(pixels(channels=1)).shape == (8, 1, 24, 28)


def test_other_errors_of_kornia_are_left_alone():
    pipeline = KorniaPipeline(K.Normalize((0.5,) * 4, (0.5,) * 4))
    with pytest.raises(ValueError, match="mean") as caught:
        pipeline(pixels())
    assert "hue" not in str(caught.value)


def test_moving_and_halving_change_nothing():
    def make(**move):
        return K.RandomRotation(20.0, p=0.5).to(**move), K.RandomAffine(7.0, p=0.5).to(**move)

    expected = KorniaPipeline(*make())(pixels(), generator=seeded())
    for pipeline in (
        KorniaPipeline(*make()).to(torch.bfloat16),
        KorniaPipeline(*make(dtype=torch.bfloat16)),
        KorniaPipeline(*make(dtype=torch.float64)),
    ):
        torch.testing.assert_close(
            pipeline(pixels(), generator=seeded()), expected, rtol=0, atol=0.02
        )


@pytest.mark.parametrize("name", OPERATIONS)
def test_off_the_cpu_no_value_is_read_by_the_host(name):
    """Reading one on the meta device, where no tensor has values, would raise."""
    pipeline = KorniaPipeline(OPERATIONS[name]())
    assert pipeline(pixels().to("meta"), generator=seeded()).is_meta


def test_kornias_records_are_undone():
    """They would keep noise and the last batch in memory."""
    pipeline = KorniaPipeline(*(make() for make in OPERATIONS.values()))
    before = state_of(pipeline)
    for _ in range(2):
        pipeline(pixels(), generator=seeded())
        assert not changes(before, state_of(pipeline))


def test_repr_tells_the_operations():
    assert "RandomRotation(degrees=20.0" in repr(KorniaPipeline(K.RandomRotation(20.0)))
