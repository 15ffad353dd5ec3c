"""Random erasing of a batch: draw boxes, fill boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustfer._checks import check_floating, check_range, check_shapes
from robustfer.augmentations._pixels import check_generator, to_device, uniform

_ATTEMPTS = 10


def sample_boxes(
    batch: int,
    height: int,
    width: int,
    *,
    probability: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.25),
    ratio: tuple[float, float] = (0.3, 3.3),
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Draw the box of random erasing for each sample of a batch.

    .. math::
        a \sim U(\text{scale}), \quad \log r \sim U(\log \text{ratio}), \quad
        h = \operatorname{round} \sqrt{a H W r}, \quad w = \operatorname{round} \sqrt{a H W / r}

    Area and aspect are drawn up to ten times, until the box is lower and narrower than the image.
    If none fits, nothing is erased. The corner is uniform. This is the distribution of
    torchvision's ``RandomErasing``, which EAC's authors used. kornia's differs: it draws the aspect
    uniformly on either side of 1 and cuts boxes that do not fit.

    Args:
        batch: number of samples.
        height: height of the images in pixels.
        width: width of the images in pixels.
        probability: probability that a sample is erased.
        scale: least and largest area of the box, as a share of the image.
        ratio: least and largest ratio of height to width of the box.
        generator: source of the random numbers, on the CPU; default: torch's global generator.

    Shape:
        -> ``(B, 4)`` int64 on the CPU: left, top, right, bottom in pixels, right and bottom
        excluded; four zeros for a sample that is not erased.

    Reference:
        Zhong et al., Random Erasing Data Augmentation, AAAI 2020.

    >>> sample_boxes(2, 48, 48, probability=1.0, generator=torch.Generator().manual_seed(0))
    tensor([[ 5, 18, 30, 40],
            [ 7, 19, 34, 31]])
    """
    for name, size in (("batch", batch), ("height", height), ("width", width)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    check_erasing(probability, scale, ratio)
    check_generator(generator)

    # In float64 the product of a size and a number below 1 never rounds up to the size.
    drawn = uniform(batch, 2 * _ATTEMPTS + 3, generator=generator, dtype=torch.float64)
    areas, aspects = drawn[:, :_ATTEMPTS], drawn[:, _ATTEMPTS:-3]
    place, chance = drawn[:, -3:-1], drawn[:, -1:]
    low, high = (share * height * width for share in scale)
    side = (areas * (high - low)).add_(low).sqrt_()
    low, high = (math.log(bound) / 2 for bound in ratio)
    stretch = (aspects * (high - low)).add_(low).exp_()
    heights, widths = (side * stretch).round_(), (side / stretch).round_()

    fits = (heights < height) & (widths < width)
    first = fits.byte().argmax(1, keepdim=True)
    chosen = torch.cat((widths, heights), 1).gather(1, torch.cat((first, first + _ATTEMPTS), 1))
    room = torch.tensor((width + 1.0, height + 1.0), dtype=torch.float64, device="cpu") - chosen
    corner = (room * place).floor_()
    erased = (chance < probability) & fits.any(1, keepdim=True)
    boxes: Tensor = torch.cat((corner, corner + chosen), 1) * erased
    return boxes.long()


def erase_boxes(images: Tensor, boxes: Tensor, *, value: float = 0.0) -> Tensor:
    """Return the images with each sample's box filled with one value.

    Args:
        images: images after normalisation, where 0 is the mean colour.
        boxes: as :func:`sample_boxes` draws them; an empty box erases nothing.
        value: value to fill the box with.

    Shape:
        images ``(B, C, H, W)`` floating-point, boxes ``(B, 4)`` integers on the CPU or on the
        images' device -> ``(B, C, H, W)``, in the images' memory format.

    >>> erase_boxes(torch.ones(1, 1, 2, 3), torch.tensor([[1, 0, 3, 1]]))
    tensor([[[[1., 0., 0.],
              [1., 1., 1.]]]])
    """
    check_floating(images=images)
    batch = check_shapes(images=(images, "B C H W"))["B"]
    if tuple(boxes.shape) != (batch, 4) or boxes.is_floating_point():
        raise ValueError(
            f"boxes must hold integers of shape ({batch}, 4), "
            f"got {boxes.dtype} of shape {tuple(boxes.shape)}"
        )
    if not boxes.is_cpu and boxes.device != images.device:
        raise ValueError(
            f"boxes must be on the CPU or on the images' device {images.device}, got {boxes.device}"
        )
    if _sliceable(images):
        return fill_boxes_(images.clone(), boxes, value)
    return torch.where(box_mask(images, boxes), value, images)


def fill_boxes_(images: Tensor, boxes: Tensor, value: float = 0.0) -> Tensor:
    """Fill the boxes in place, without checks, in images that the caller has just made."""
    if not _sliceable(images):
        return images.masked_fill_(box_mask(images, boxes), value)
    # Slices touch only the erased pixels, and numpy's are much faster than torch's.
    pixels = images.numpy()
    for sample, (left, top, right, bottom) in zip(pixels, boxes.clamp(min=0).tolist(), strict=True):
        if right > left:
            sample[:, top:bottom, left:right] = value
    return images


def check_erasing(
    probability: float,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    *,
    prefix: str = "",
) -> None:
    """Require a probability in [0, 1] and valid ranges."""
    check_range(f"{prefix}probability", probability, 0.0, 1.0)
    for name, bounds, most in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
        pair = isinstance(bounds, Sequence) and len(bounds) == 2
        if not (pair and bounds[0] <= bounds[1]):
            raise ValueError(f"{prefix}{name} must be a pair (least, largest), got {bounds}")
        for bound in bounds:
            check_range(f"{prefix}{name}", bound, 0.0, most, open_low=name == "ratio")


def _sliceable(images: Tensor) -> bool:
    """Return whether a numpy view can be filled: not on a GPU, under autograd or when compiling."""
    return (
        images.is_cpu
        and images.dtype != torch.bfloat16
        and not images.requires_grad
        and not torch.compiler.is_compiling()
    )


def box_mask(images: Tensor, boxes: Tensor) -> Tensor:
    """Return which pixels are in the boxes, (B, 1, H, W), without reading a value on the host."""
    height, width = images.shape[-2:]
    left, top, right, bottom = to_device(boxes, images.device)[..., None, None, None].unbind(1)
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    return ((x >= left) & (x < right)) & ((y >= top) & (y < bottom))
