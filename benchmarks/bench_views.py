"""Time EAC's mirrored pair: normalise, mirror, and erase a box in half of the samples of a view.

Every contender starts from float32 pixels on the device, because kornia does not take uint8. Each
uses the fastest way of its library that draws a box per sample. It normalises the batch once for
both views, and mirrors it by a flip.
"""

import math

import kornia.augmentation as K
import pytest
import torch
from kornia.geometry import hflip
from torchvision.transforms import v2

from robustfer.augmentations import MirroredPair

SHAPES = [(64, 3, 224, 224), (64, 3, 48, 48)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE, RATIO = (0.02, 0.25), (0.3, 3.3)


def kornia_containers(probability):
    erasing = K.RandomErasing(SCALE, RATIO, p=probability)
    options = {"data_keys": ["input"], "transformation_matrix_mode": "skip"}
    normalize = K.AugmentationSequential(K.Normalize(MEAN, STD), **options)
    erase = K.AugmentationSequential(erasing, **options)

    def pair(images):
        view = normalize(images)
        return erase(view), erase(hflip(view))

    return pair


def kornia_operations(probability):
    normalize = K.Normalize(MEAN, STD)
    erase = K.RandomErasing(SCALE, RATIO, p=probability)

    def pair(images):
        view = normalize(images)
        return erase(view), erase(hflip(view))

    return pair


def torchvision_per_sample(probability):
    normalize = v2.Normalize(MEAN, STD)
    erase = v2.RandomErasing(probability, SCALE, RATIO, inplace=True)

    def pair(images):
        view = normalize(images)
        views = view, view.flip(-1)
        for mirrored_or_not in views:
            for sample in mirrored_or_not:
                erase(sample)
        return views

    return pair


def plain(probability):
    """Draw boxes for all samples at once, and erase by slices on the CPU, or by a mask."""

    def draw(batch, height, width, device):
        area, aspect, x, y, chance = torch.rand(5, batch, device=device)
        area = (SCALE[0] + area * (SCALE[1] - SCALE[0])) * height * width
        low, high = map(math.log, RATIO)
        aspect = (low + aspect * (high - low)).exp()
        h, w = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        top, left = (y * (height - h + 1)).floor(), (x * (width - w + 1)).floor()
        return torch.stack((left, top, left + w, top + h)).int() * (chance < probability)

    def erase(view):
        height, width = view.shape[-2:]
        boxes = draw(len(view), height, width, view.device)
        if view.is_cpu:
            for sample, (left, top, right, bottom) in zip(view, boxes.T.tolist(), strict=True):
                if right:
                    sample[:, top:bottom, left:right] = 0
            return view
        left, top, right, bottom = boxes[..., None, None, None]
        x = torch.arange(width, device=view.device)
        y = torch.arange(height, device=view.device)[:, None]
        return view.masked_fill_((x >= left) & (x < right) & (y >= top) & (y < bottom), 0)

    def pair(images):
        mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1)
        std = torch.tensor(STD, device=images.device).view(3, 1, 1)
        view = images.sub(mean).div_(std)
        view_flipped = view.flip(-1)
        return erase(view), erase(view_flipped)

    return pair


def ours(probability):
    return MirroredPair(
        erase="independent",
        erase_probability=probability,
        erase_scale=SCALE,
        erase_ratio=RATIO,
        mean=MEAN,
        std=STD,
    )


COLUMNS = {
    "kornia AugmentationSequential": kornia_containers,
    "kornia operations": kornia_operations,
    "torchvision v2 per sample": torchvision_per_sample,
    "plain": plain,
    "ours": ours,
}


def check(make, images):
    """Check the pair: equal to ours without erasing, and with a box in every sample otherwise."""
    view, view_flipped = make(0.0)(images)
    torch.testing.assert_close(view_flipped, view.flip(-1), rtol=0, atol=0)
    torch.testing.assert_close(view, ours(0.0)(images).view, rtol=1e-5, atol=1e-5)
    for erased, whole in zip(make(1.0)(images), (view, view_flipped), strict=True):
        inside = (erased != whole).any(1)
        share = inside.float().mean((1, 2))
        assert (share > 0.8 * SCALE[0]).all()
        assert (share < 1.2 * SCALE[1]).all()
        assert (erased.movedim(1, -1)[inside] == 0).all()


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_mirrored_pair(compare, device, shape, column):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    make = COLUMNS[column]
    check(make, images)
    pair, plain_pair = make(0.5), plain(0.5)
    name = "x".join(map(str, shape))
    compare(
        lambda: pair(images),
        group=f"mirrored pair {name}",
        column=column,
        plain=lambda: plain_pair(images),
        min_rounds=30,
    )
