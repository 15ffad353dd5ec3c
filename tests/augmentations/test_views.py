import copy
import inspect
import subprocess
import sys

import kornia.augmentation as K
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.transforms.v2 import functional as TF

from robustfer.augmentations import KorniaPipeline, MirroredPair, SingleView
from robustfer.augmentations.erasing import sample_boxes
from robustfer.losses import check_values
from tests.other_device import DEVICE, OtherDevice

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
QUIET = {"erase_probability": 0.0}
MODES = ["independent", "shared"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pixels(batch=16, channels=3, height=24, width=31, *, dtype=torch.uint8, seed=0):
    shape = (batch, channels, height, width)
    images = torch.randint(256, shape, generator=seeded(seed), dtype=torch.uint8)
    return images if dtype == torch.uint8 else images.to(dtype) / 255


def normalized(images):
    return TF.normalize(TF.to_dtype(images, torch.float32, scale=True), MEAN, STD)


def boxed(erased, whole):
    """Which samples have a box, after checking that it is a filled rectangle within bounds."""
    changed = (erased != whole).any(1)
    assert (erased.movedim(1, -1)[changed] == 0).all()
    for rows, columns, area in zip(
        changed.any(2).sum(1), changed.any(1).sum(1), changed.sum((1, 2)), strict=True
    ):
        assert area == rows * columns
        assert area < 0.3 * changed[0].numel()
    return changed.any((1, 2))


# --- one view -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 5),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    dtype=st.sampled_from([torch.uint8, torch.float32, torch.float64]),
    training=st.booleans(),
)
def test_without_options_a_view_is_the_normalised_image(batch, height, width, dtype, training):
    images = pixels(batch, 3, height, width, dtype=dtype)
    given_images = images.clone()
    view = SingleView(**QUIET).train(training)(images)
    assert view.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert view.is_contiguous()
    torch.testing.assert_close(view.float(), normalized(images), rtol=1e-5, atol=1e-6)
    assert torch.equal(images, given_images)
    pair = MirroredPair(**QUIET).train(training)(images)
    assert torch.equal(pair.view, view)
    assert torch.equal(pair.view_flipped, view.flip(-1))


def test_normalisation_is_kornias():
    images = pixels(dtype=torch.float32)
    expected = K.Normalize(MEAN, STD)(images)
    torch.testing.assert_close(SingleView(**QUIET)(images), expected, rtol=1e-5, atol=1e-6)


def test_float64_is_exact():
    images = pixels(dtype=torch.float64)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    view = SingleView(**QUIET)(images)
    torch.testing.assert_close(view, (images - mean) / std, rtol=1e-13, atol=1e-13)


def test_one_channel():
    images = pixels(channels=1)
    view = SingleView(**QUIET, mean=[0.5], std=[0.25])(images)
    torch.testing.assert_close(view, (images / 255 - 0.5) / 0.25)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [40, (20, 33), [24, 31]])
def test_resizing_is_torchvisions(size, dtype):
    images = pixels(dtype=dtype)
    height_width = [size, size] if isinstance(size, int) else list(size)
    expected = normalized(
        TF.resize(images if dtype.is_floating_point else images / 255.0, height_width)
    )
    view = SingleView(**QUIET, size=size)(images)
    torch.testing.assert_close(view, expected, rtol=1e-5, atol=2e-6)
    assert torch.equal(SingleView(size=size).eval()(images), view)


def test_erasing():
    images = pixels(batch=400)
    erased = boxed(SingleView()(images, generator=seeded()), SingleView(**QUIET)(images))
    assert 160 < erased.sum() < 240
    everywhere = SingleView(erase_probability=1.0)(images, generator=seeded())
    assert boxed(everywhere, SingleView(**QUIET)(images)).all()


@pytest.mark.parametrize("size", [None, 40])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_noise(size, dtype):
    std = 30**0.5 / 255
    images = torch.full((200, 3, 24, 24), 128, dtype=torch.uint8)
    images = images if dtype == torch.uint8 else images / 255
    quiet = SingleView(**QUIET, size=size)(images)
    noisy = SingleView(**QUIET, size=size, noise_std=std)(images, generator=seeded())
    noise = (noisy - quiet) * torch.tensor(STD).view(3, 1, 1)
    rows = noise.abs().amax((1, 2, 3)) > 1e-6
    assert 70 < rows.sum() < 130
    if size is None:
        torch.testing.assert_close(noise[rows].std(), torch.tensor(std), rtol=0.01, atol=0)
        torch.testing.assert_close(noise[rows].mean(), torch.tensor(0.0), rtol=0, atol=1e-4)
    else:  # smoothed by the resizing that follows, and so weaker
        assert 0.3 * std < noise[rows].std() < 0.9 * std


def test_noise_stays_within_the_range_of_pixels():
    images = torch.cat((torch.zeros(4, 3, 9, 9), torch.ones(4, 3, 9, 9)))
    prepare = SingleView(
        **QUIET, noise_std=0.5, noise_probability=1.0, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    noisy = prepare(images, generator=seeded())
    assert 0 == noisy.min() < noisy.max() == 1
    assert (noisy != images).any((1, 2, 3)).all()


# --- the pair -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 5),
    height=st.integers(2, 20),
    width=st.integers(2, 20),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_shared_is_an_exact_mirror(batch, height, width, channels_last, seed):
    images = pixels(batch, 3, height, width)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    pair = MirroredPair(erase="shared", erase_probability=1.0, noise_std=0.1, noise_probability=1.0)
    view, view_flipped = pair(images, generator=seeded(seed))
    assert torch.equal(view_flipped, view.flip(-1))
    single = SingleView(erase_probability=1.0, noise_std=0.1, noise_probability=1.0)
    assert torch.equal(view, single(images, generator=seeded(seed)))


def test_independent_boxes_are_independent():
    images = pixels(batch=400)
    whole = SingleView(**QUIET)(images)
    view, view_flipped = MirroredPair()(images, generator=seeded())
    one, two = boxed(view, whole), boxed(view_flipped, whole.flip(-1))
    both = one & two
    assert 160 < one.sum() < 240
    assert 160 < two.sum() < 240
    assert 65 < both.sum() < 140
    # Where both are erased they are not erased alike.
    assert not torch.equal(view[both] == 0, view_flipped[both].flip(-1) == 0)
    assert not torch.equal(view[both] == 0, view_flipped[both] == 0)


def test_independent_noise_is_on_the_unmirrored_view_alone():
    images = pixels()
    clean = SingleView(**QUIET)(images)
    pair = MirroredPair(**QUIET, noise_std=0.1, noise_probability=1.0)
    view, view_flipped = pair(images, generator=seeded())
    assert (view != clean).any((1, 2, 3)).all()
    assert torch.equal(view_flipped, clean.flip(-1))


@pytest.mark.parametrize("erase", MODES)
def test_the_pipeline_shows_in_both_views(erase):
    pipeline = KorniaPipeline(K.RandomRotation(30.0, p=1.0), K.RandomBrightness((0.5, 0.8), p=1.0))
    images = pixels()
    pair = MirroredPair(erase=erase, **QUIET, pipeline=pipeline)
    view, view_flipped = pair(images, generator=seeded())
    assert torch.equal(view_flipped, view.flip(-1))
    assert (view != SingleView(**QUIET)(images)).any((1, 2, 3)).all()
    expected = normalized(pipeline(images, generator=seeded()))
    torch.testing.assert_close(view, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("erase", MODES)
def test_eval_leaves_conversion_resizing_and_normalisation(erase):
    options = {"noise_std": 0.1, "noise_probability": 1.0, "size": 20}
    pipeline = KorniaPipeline(K.RandomRotation(30.0, p=1.0))
    pair = MirroredPair(erase=erase, erase_probability=1.0, pipeline=pipeline, **options)
    images = pixels()
    view, view_flipped = pair.eval()(images)
    assert torch.equal(view, SingleView(**QUIET, size=20)(images))
    assert torch.equal(view_flipped, view.flip(-1))
    assert not torch.equal(pair.train()(images).view, view)


# --- what holds for both --------------------------------------------------------------------------

BOTH = pytest.mark.parametrize(
    "make", [SingleView, MirroredPair, lambda **o: MirroredPair(erase="shared", **o)]
)


def tensors(result):
    return tuple(result) if isinstance(result, tuple) else (result,)


@BOTH
def test_the_generator_decides_everything(make):
    pipeline = KorniaPipeline(K.RandomRotation(30.0, p=0.5), K.ColorJitter(0.2, 0.2, 0.2, p=0.5))
    prepare = make(noise_std=0.1, size=20, pipeline=pipeline)
    images = pixels()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = torch.cat(tensors(prepare(images, generator=seeded(1))))
    two = torch.cat(tensors(prepare(images, generator=seeded(1))))
    other = torch.cat(tensors(prepare(images, generator=seeded(2))))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    generator = seeded(1)
    first, second = (torch.cat(tensors(prepare(images, generator=generator))) for _ in "12")
    assert torch.equal(first, one)
    assert not torch.equal(first, second)
    without = torch.cat(tensors(prepare(images)))
    torch.manual_seed(5)
    assert torch.equal(without, torch.cat(tensors(prepare(images))))


@BOTH
def test_forward_leaves_no_trace(make):
    prepare = make(noise_std=0.1)
    before = copy.deepcopy(prepare.__dict__)
    images = pixels(dtype=torch.float32).requires_grad_()
    given_images = images.detach().clone()
    for view in tensors(prepare(images)):
        assert not view.requires_grad
    assert torch.equal(images, given_images)
    assert repr(prepare.__dict__) == repr(before)
    assert not prepare.state_dict()
    assert not list(prepare.parameters()) + list(prepare.buffers())


@BOTH
def test_half_precision_of_the_module_changes_nothing(make):
    images = pixels()
    expected = tensors(make()(images, generator=seeded()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = tensors(make().to(torch.bfloat16)(images, generator=seeded()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@BOTH
@pytest.mark.parametrize("size", [None, 20])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_memory_format_is_kept(make, size, dtype):
    images = pixels(dtype=dtype)
    prepare = make(size=size, noise_std=0.1)
    expected = tensors(prepare(images, generator=seeded()))
    last = images.contiguous(memory_format=torch.channels_last)
    found = tensors(prepare(last, generator=seeded()))
    for view, other in zip(found, expected, strict=True):
        assert view.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(view, other, rtol=1e-5, atol=2e-6)


@BOTH
def test_grey_images_that_share_memory_between_channels(make):
    images = pixels(channels=1)
    grey = images.expand(-1, 3, -1, -1)
    expected = tensors(make()(grey.clone(), generator=seeded()))
    found = tensors(make()(grey, generator=seeded()))
    torch.testing.assert_close(found, expected)


@BOTH
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_off_the_cpu_no_value_is_read_by_the_host(make, dtype):
    """Reading one on the meta device, where no tensor has values, would raise."""
    prepare = make(erase_probability=1.0, noise_std=0.1, noise_probability=1.0, size=20)
    images = torch.empty(4, 3, 8, 9, dtype=dtype, device="meta")
    for view in tensors(prepare(images)):
        assert view.is_meta
        assert view.shape == (4, 3, 20, 20)


@BOTH
def test_inference_mode(make):
    with torch.inference_mode():
        found = tensors(make()(pixels(), generator=seeded()))
    torch.testing.assert_close(found, tensors(make()(pixels(), generator=seeded())))


def test_the_pair_takes_the_options_of_a_single_view():
    def options(module):
        parameters = inspect.signature(module).parameters.values()
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters)
        return {p.name: (p.default, p.annotation) for p in parameters}

    pair = options(MirroredPair)
    assert pair.pop("erase")[0] == "independent"
    assert pair == options(SingleView)


def test_repr_tells_the_options():
    assert "noise_std=0.1" in repr(MirroredPair(erase="shared", noise_std=0.1))
    assert "erase='shared'" in repr(MirroredPair(erase="shared"))


def test_kornia_is_not_imported_for_a_pair_without_a_pipeline():
    program = (
        "import sys; from robustfer.augmentations import MirroredPair; MirroredPair();"
        "print(any(m in sys.modules for m in ('kornia', 'timm', 'torchvision')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# --- what is refused ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"erase_probability": -0.1}, r"erase_probability must lie in \[0, 1\], got -0.1"),
        ({"erase_scale": (0.3, 0.1)}, "erase_scale must be a pair"),
        ({"erase_ratio": (-1.0, 2.0)}, "erase_ratio must lie"),
        ({"noise_std": -1.0}, "noise_std must lie"),
        ({"noise_probability": 2.0}, "noise_probability must lie"),
        ({"mean": 0.5}, "mean and std must be sequences of numbers, got 0.5"),
        ({"mean": (), "std": ()}, "mean and std must be sequences"),
        ({"mean": (0.5,)}, "mean and std must hold one value per channel, got 1 and 3"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean must lie"),
        ({"std": (0.2, 0.0, 0.2)}, r"std must lie in \(0, inf\), got 0.0"),
        ({"size": 0}, "size must be a positive whole number or .*, got 0"),
        ({"size": True}, "size must be a positive whole number or .*, got True"),
        ({"size": (4, 4, 4)}, r"size must be a positive whole number or \(height, width\)"),
        ({"size": (4, -4)}, r"size must be a positive .* got \(4, -4\)"),
        ({"size": (4, 4.5)}, r"size must be a positive .* got \(4, 4.5\)"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@BOTH
@pytest.mark.parametrize("pipeline", [K.RandomRotation(5.0), nn.Identity()])
def test_a_pipeline_of_another_kind_is_refused(make, pipeline):
    with pytest.raises(TypeError, match=r"pipeline must be a KorniaPipeline\(...\) .*got "):
        make(pipeline=pipeline)


def test_a_mode_of_another_name_is_refused():
    with pytest.raises(ValueError, match="erase must be 'independent' or 'shared', got 'both'"):
        MirroredPair(erase="both")


@BOTH
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"images must have shape \(B, C, H, W\), got \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), "images is empty along B"),
        (torch.zeros(2, 3, 8, 0), "images is empty along W"),
        (torch.zeros(2, 1, 8, 8), "images have C=1 but mean and std have 3 values"),
        (torch.zeros(2, 3, 8, 8).half(), "images must be uint8 .* got torch.float16; augment in"),
        (torch.zeros(2, 3, 8, 8).bfloat16(), "images must be uint8 .* got torch.bfloat16"),
        (torch.zeros(2, 3, 8, 8).long(), "images must be uint8 .* got torch.int64"),
    ],
)
def test_images_that_do_not_fit_are_refused(make, images, message):
    for prepare in (make(), make().eval()):
        with pytest.raises(ValueError, match=message):
            prepare(images)


@BOTH
def test_pixels_out_of_range_are_refused_when_asked(make):
    with check_values(), pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 0 to 255"):
        make()(torch.tensor([0.0, 255.0]).expand(1, 3, 2, 2))
    with check_values():
        make()(torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2))
        make()(torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 2, 2))


@BOTH
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (x - 0.45) / 0.225, r"must lie in \[0, 1\], got -2 to 2.* before normalisation"),
        (lambda x: x * 2 - 1, r"got -1 to 1; pass them before normalisation"),
        (lambda x: x - 0.5, r"got -0.5 to 0.5; pass them before normalisation"),
        (lambda x: x * 255, r"got 0 to 255; divide them by 255, or pass uint8"),
    ],
)
def test_pixels_of_another_range_are_refused_on_the_cpu(make, change, message, mode):
    images = torch.linspace(0, 1, 48).repeat(2, 3, 40, 1).double()
    for part in (make(), KorniaPipeline(K.RandomRotation(5.0))):
        part.train(mode)(images)
        with pytest.raises(ValueError, match=message):
            part.train(mode)(change(images))


def test_overshoot_of_resizing_and_missing_values_pass():
    images = torch.full((2, 3, 9, 9), 1.02)
    images[0, 0] = -0.02
    images[1] = torch.nan
    view = SingleView(**QUIET)(images)
    assert view[0].isfinite().all()
    assert view[1].isnan().all()


@BOTH
def test_the_range_is_not_looked_at_off_the_cpu(make):
    with OtherDevice():
        images = (pixels(dtype=torch.float32) * 255).to(DEVICE)
        make()(images)
        with check_values(), pytest.raises(ValueError, match="got 0 to 255; divide them by 255"):
            make()(images)


@BOTH
def test_channels_last_are_told_what_to_do(make):
    images = pixels().permute(0, 2, 3, 1)
    for part in (make(), KorniaPipeline(K.RandomHorizontalFlip())):
        with pytest.raises(ValueError, match=r"got \(16, 24, 31, 3\).*permute\(0, 3, 1, 2\)"):
            part(images)


# --- where it runs --------------------------------------------------------------------------------

KORNIA = KorniaPipeline(K.RandomHorizontalFlip(), K.RandomAffine(10.0), K.ColorJitter(0.2, 0.2))
EVERYWHERE = [
    SingleView(noise_std=0.1, size=20),
    MirroredPair(noise_std=0.1),
    MirroredPair(erase="shared"),
    KORNIA,
    SingleView(pipeline=KORNIA),
]


def with_and_without_landmarks(prepare, images):
    points = torch.rand(len(images), 4, 2, generator=seeded()).to(images.device) * 24
    plain = prepare(images, generator=seeded())
    return *tensors(plain), *prepare.with_landmarks(
        images, points, swap=(1, 0, 3, 2), generator=seeded()
    )


@pytest.mark.parametrize("prepare", EVERYWHERE)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_default_dtype_and_device_change_nothing(prepare, dtype):
    images = pixels(dtype=dtype)
    expected = with_and_without_landmarks(prepare, images)
    points = torch.rand(len(images), 4, 2, generator=seeded())
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):  # on which nothing can be computed
            found = (
                *tensors(prepare(images, generator=seeded())),
                *prepare.with_landmarks(images, points * 24, swap=(1, 0, 3, 2), generator=seeded()),
            )
            assert torch.get_default_dtype() == torch.float64
            assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@BOTH
@pytest.mark.parametrize("pipeline", [None, KORNIA])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_device_without_float64_gives_the_same(make, dtype, pipeline):
    images, prepare = pixels(dtype=dtype), make(size=20, pipeline=pipeline)
    expected = with_and_without_landmarks(prepare, images)
    with OtherDevice():
        found = with_and_without_landmarks(prepare, images.to(DEVICE))
        for one, other in zip(found, expected, strict=True):
            assert one.device == DEVICE
            torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-5)
        noisy = make(noise_std=0.1)(images.to(DEVICE))
        assert all(view.device == DEVICE for view in tensors(noisy))


# --- compiled -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")  # kornia and the compiler have their own
@pytest.mark.parametrize(
    ("prepare", "seed", "points"),
    [
        (MirroredPair(), None, True),
        (MirroredPair(erase="shared", noise_std=0.1), 3, False),
        (SingleView(pipeline=KorniaPipeline(K.RandomHorizontalFlip())), 3, False),
    ],
)
def test_compiled_views_take_batches_of_any_length(prepare, seed, points):
    def step(images, landmarks, generator=None):
        if points:
            return prepare.with_landmarks(images, landmarks, swap=(1, 0, 3, 2), generator=generator)
        return prepare(images, generator=generator)

    def run(function, batch):
        images, landmarks = pixels(batch, dtype=torch.float32), torch.ones(batch, 4, 2)
        torch.manual_seed(5)
        options = {} if seed is None else {"generator": seeded(seed)}
        return tensors(function(images, landmarks, **options))

    torch._dynamo.reset()
    compiled = torch.compile(step, backend="eager")
    for batch in (8, 7, 5):
        for one, other in zip(run(compiled, batch), run(step, batch), strict=True):
            torch.testing.assert_close(one, other)


def test_boxes_of_batches_of_any_length_are_drawn_in_one_graph():
    torch._dynamo.reset()
    compiled = torch.compile(sample_boxes, backend="eager", fullgraph=True)
    for batch in (8, 7, 5):
        torch.manual_seed(5)
        expected = sample_boxes(batch, 24, 31)
        torch.manual_seed(5)
        assert torch.equal(compiled(batch, 24, 31), expected)
