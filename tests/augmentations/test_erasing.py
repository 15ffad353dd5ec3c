import math

import kornia.augmentation as K
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from robustfer.augmentations.erasing import erase_boxes, fill_boxes_, sample_boxes

sizes = st.integers(1, 12)
seeds = st.integers(0, 2**31)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def by_mask(images, boxes, value=0.0):
    """The form for GPUs and for autograd, on the CPU."""
    return erase_boxes(images.clone().requires_grad_(), boxes, value=value).detach()


def by_loop(images, boxes, value=0.0):
    """Pixel by pixel."""
    erased = images.clone()
    for n, (left, top, right, bottom) in enumerate(boxes.tolist()):
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                if left <= x < right and top <= y < bottom:
                    erased[n, :, y, x] = value
    return erased


# --- which boxes are drawn ------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(batch=st.integers(1, 40), height=st.integers(1, 60), width=st.integers(1, 60), seed=seeds)
def test_boxes_lie_inside_the_image(batch, height, width, seed):
    boxes = sample_boxes(batch, height, width, scale=(0.0, 1.0), generator=seeded(seed))
    left, top, right, bottom = boxes.unbind(1)
    assert boxes.shape == (batch, 4)
    assert boxes.dtype == torch.int64
    assert ((left >= 0) & (left <= right) & (right <= width)).all()
    assert ((top >= 0) & (top <= bottom) & (bottom <= height)).all()
    # torchvision's rule: lower and narrower than the image, or not at all.
    assert ((right - left < width) & (bottom - top < height)).all()


def test_area_aspect_and_place_are_distributed_as_promised():
    size, count = 1000, 20_000
    boxes = sample_boxes(count, size, size, probability=1.0, generator=seeded())
    left, top, right, bottom = boxes.double().unbind(1)
    width, height = right - left, bottom - top
    share = width * height / size**2
    position = (share - 0.02) / (0.25 - 0.02)
    log_aspect = (height / width).log()
    stretch = (log_aspect - math.log(0.3)) / (math.log(3.3) - math.log(0.3))
    across, down = left / (size - width), top / (size - height)
    evenly = torch.linspace(0, 1, count, dtype=torch.float64)
    for name, drawn in (("area", position), ("aspect", stretch), ("x", across), ("y", down)):
        distance = (drawn.sort().values - evenly).abs().max()
        assert distance < 1.95 / count**0.5, name  # Kolmogorov-Smirnov, one in a thousand
    numbers = torch.stack((position, stretch, across, down))
    assert (torch.corrcoef(numbers) - torch.eye(4)).abs().max() < 0.04


@pytest.mark.parametrize(("height", "width"), [(40, 40), (16, 80), (5, 5)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    """Sizes and share of erased samples, where many boxes are drawn again or do not fit at all."""
    count, scale, ratio = 3000, (0.05, 0.9), (0.2, 4.0)
    theirs = v2.RandomErasing(1.0, scale, ratio)
    torch.manual_seed(0)
    image = torch.ones(1, height, width)
    drawn = [theirs.make_params([image]) for _ in range(count)]
    expected = torch.tensor([(p["h"], p["w"]) if p["v"] is not None else (0, 0) for p in drawn])
    boxes = sample_boxes(
        count, height, width, probability=1.0, scale=scale, ratio=ratio, generator=seeded()
    )
    found = torch.stack((boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]), 1)
    for axis, size in ((0, height), (1, width)):
        ours, other = (
            torch.bincount(v[:, axis], minlength=size).cumsum(0) for v in (found, expected)
        )
        assert (ours - other).abs().max() / count < 1.95 * (2 / count) ** 0.5


def test_probability():
    def share(probability):
        boxes = sample_boxes(10_000, 48, 48, probability=probability, generator=seeded())
        return boxes.any(1).double().mean()

    assert share(0.0) == 0
    assert share(1.0) == 1
    assert abs(share(0.3) - 0.3) < 3.3 * (0.3 * 0.7 / 10_000) ** 0.5


def test_the_generator_decides():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = sample_boxes(64, 48, 48, generator=seeded(1))
    assert torch.equal(one, sample_boxes(64, 48, 48, generator=seeded(1)))
    assert not torch.equal(one, sample_boxes(64, 48, 48, generator=seeded(2)))
    assert torch.equal(torch.get_rng_state(), state)
    without = sample_boxes(64, 48, 48)
    torch.manual_seed(0)
    assert torch.equal(without, sample_boxes(64, 48, 48))
    generator = seeded(1)
    first, second = (sample_boxes(64, 48, 48, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)


# --- filling them ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    height=sizes,
    width=sizes,
    seed=seeds,
    double=st.booleans(),
)
def test_slices_and_mask_are_the_loop(batch, channels, height, width, seed, double):
    dtype = torch.float64 if double else torch.float32
    images = torch.rand(batch, channels, height, width, generator=seeded(seed), dtype=dtype)
    # Any four numbers: empty boxes, turned ones, and such as reach over the edge.
    boxes = torch.randint(-2, 15, (batch, 4), generator=seeded(seed))
    given_images = images.clone()
    expected = by_loop(images, boxes, 0.25)
    assert torch.equal(erase_boxes(images, boxes, value=0.25), expected)
    assert torch.equal(by_mask(images, boxes, 0.25), expected)
    assert torch.equal(images, given_images)


def test_equals_kornia_given_the_same_boxes():
    images = torch.randn(16, 3, 31, 48, generator=seeded())
    theirs = K.RandomErasing((0.02, 0.25), (0.3, 3.3), p=0.5)
    torch.manual_seed(0)
    expected = theirs(images)
    params = theirs._params
    left, top, width, height = (params[name] for name in ("xs", "ys", "widths", "heights"))
    boxes = torch.stack((left, top, left + width, top + height), 1)
    boxes = (boxes * params["batch_prob"][:, None]).long()
    assert boxes.any(1).sum() not in (0, 16)
    assert torch.equal(erase_boxes(images, boxes), expected)
    assert torch.equal(by_mask(images, boxes), expected)
    # And the other way round: kornia replays the boxes that we draw.
    boxes = sample_boxes(16, 31, 48, generator=seeded())
    left, top, right, bottom = boxes.float().unbind(1)
    own = {"xs": left, "ys": top, "widths": right - left, "heights": bottom - top}
    own |= {"values": torch.zeros(16), "batch_prob": boxes.any(1).float()}
    assert torch.equal(theirs(images, params=params | own), erase_boxes(images, boxes))


def test_equals_torchvision_given_the_same_boxes():
    images = torch.randn(16, 3, 31, 48, generator=seeded())
    boxes = sample_boxes(16, 31, 48, probability=0.7, generator=seeded())
    expected = [
        TF.erase(image, top, left, bottom - top, right - left, torch.full((3, 1, 1), 0.5))
        for image, (left, top, right, bottom) in zip(images, boxes.tolist(), strict=True)
    ]
    assert torch.equal(erase_boxes(images, boxes, value=0.5), torch.stack(expected))


@pytest.mark.parametrize("erase", [erase_boxes, by_mask])
def test_memory_format_is_kept(erase):
    images = torch.rand(2, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([[1, 1, 3, 3], [0, 0, 0, 0]])
    erased = erase(images, boxes)
    assert erased.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(erased, by_loop(images, boxes))


def test_the_gradient_stops_at_the_box():
    images = torch.rand(1, 1, 2, 3, requires_grad=True)
    erase_boxes(images, torch.tensor([[1, 0, 3, 1]])).sum().backward()
    assert torch.equal(images.grad, torch.tensor([[[[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]]]))


def test_compiles():
    images = torch.rand(4, 3, 8, 9)
    boxes = sample_boxes(4, 8, 9, probability=1.0, generator=seeded())
    compiled = torch.compile(erase_boxes, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images, boxes), erase_boxes(images, boxes))


def test_bfloat16():
    images, boxes = torch.ones(1, 1, 2, 3, dtype=torch.bfloat16), torch.tensor([[1, 0, 3, 1]])
    assert torch.equal(erase_boxes(images, boxes), by_loop(images, boxes))


def test_off_the_cpu_no_value_is_read_by_the_host():
    """Reading one on the meta device, where no tensor has values, would raise."""
    images = torch.empty(4, 3, 8, 9, device="meta")
    erased = fill_boxes_(images, sample_boxes(4, 8, 9))
    assert erased is images
    assert erase_boxes(images, sample_boxes(4, 8, 9)).shape == images.shape


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"height": 0}, "height must be at least 1, got 0"),
        ({"width": -3}, "width must be at least 1, got -3"),
        ({"probability": 1.5}, r"probability must lie in \[0, 1\], got 1.5"),
        ({"probability": float("nan")}, "probability must lie"),
        ({"scale": (0.3, 0.2)}, r"scale must be a pair \(least, largest\), got \(0.3, 0.2\)"),
        ({"scale": (-0.1, 0.2)}, r"scale must lie in \[0, 1\], got -0.1"),
        ({"scale": (0.1, 1.2)}, r"scale must lie in \[0, 1\], got 1.2"),
        ({"scale": 0.3}, "scale must be a pair"),
        ({"scale": (0.1, 0.2, 0.3)}, "scale must be a pair"),
        ({"ratio": (0.0, 3.3)}, r"ratio must lie in \(0, inf\), got 0.0"),
        ({"ratio": (3.3, 0.3)}, "ratio must be a pair"),
        ({"ratio": (0.3, float("inf"))}, "ratio must lie"),
    ],
)
def test_sampling_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        sample_boxes(**{"batch": 2, "height": 8, "width": 8} | options)


class OnTheGPU(torch.Generator):
    device = torch.device("cuda")


def test_a_generator_on_a_gpu_is_refused():
    with pytest.raises(ValueError, match="generator must be on the CPU.* got cuda"):
        sample_boxes(2, 8, 8, generator=OnTheGPU())


@pytest.mark.parametrize(
    ("images", "boxes", "message"),
    [
        (torch.zeros(3, 8, 8), torch.zeros(3, 4).long(), r"images must have shape \(B, C, H, W\)"),
        (torch.zeros(2, 3, 8, 8).byte(), torch.zeros(2, 4).long(), "images must have a floating"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(3, 4).long(), r"boxes must hold .* \(2, 4\)"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2, 4), "boxes must hold integers .* torch.float32"),
        (
            torch.zeros(2, 3, 8, 8),
            torch.zeros(2, 4, device="meta").long(),
            "boxes must be on the CPU or on the images.* device cpu, got meta",
        ),
    ],
)
def test_erasing_refuses(images, boxes, message):
    with pytest.raises(ValueError, match=message):
        erase_boxes(images, boxes)
