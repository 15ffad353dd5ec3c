"""Batches of images as methods train on them: one view, or an image with its mirror image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import check_range
from robustfer.augmentations._pixels import (
    check_generator,
    check_images,
    draw_seed,
    to_device,
    to_float,
)
from robustfer.augmentations.erasing import check_erasing, fill_boxes_, sample_boxes
from robustfer.augmentations.pipeline import KorniaPipeline


class Views(NamedTuple):
    """The two views of a batch, each ``(B, C, H, W)``.

    Attributes:
        view: the images as they are, which a loss classifies.
        view_flipped: the images mirrored left to right.
    """

    view: Tensor
    view_flipped: Tensor


class SingleView(nn.Module):
    r"""Turn a batch of images into the normalised, randomly erased view that a network trains on.

    In this order: ``pipeline``; Gaussian noise on some samples, clipped to the range of pixels;
    resizing; :math:`(x - \text{mean}) / \text{std}`; erasing of a box in some samples, filled with
    0, which is the mean colour. In ``eval()`` resizing and normalisation alone are left, and what
    in the pipeline is not random.

    It holds no tensor: it works on the batch's device without being moved there, and adds nothing
    to a checkpoint. Boxes and choices are drawn on the CPU, the same for every device; the values
    of the noise are drawn on the batch's device. No gradient flows back to the images.

    Args:
        probability: chance of each sample to be erased.
        scale: least and largest area of the erased box, as a share of the image.
        ratio: least and largest height of the erased box over its width.
        noise_std: standard deviation of the noise, in units of a pixel in [0, 1]; 0 for none. The
            noise of EAC's public program has a variance of 30 in 0..255: ``30**0.5 / 255``.
        noise_probability: chance of each sample to get noise.
        mean: mean of each channel in [0, 1]; ImageNet's by default.
        std: standard deviation of each channel; ImageNet's by default.
        size: height and width to resize to (bilinear, antialiased), or one number for a square.
        pipeline: further random operations, which see pixels in [0, 1] before all else.

    Shape:
        images ``(B, C, H, W)`` uint8 0..255, or float32 or float64 0..1 -> ``(B, C, h, w)``
        float32 or float64, in the images' memory format unless a pipeline changes it.

    Raises:
        TypeError: ``pipeline`` is no :class:`KorniaPipeline`.
        ValueError: an option does not fit, or shape, dtype or channels of the images.

    Reference:
        Zhong et al., Random Erasing Data Augmentation, AAAI 2020.

    >>> prepare = SingleView(size=64)
    >>> images = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    >>> prepare(images, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 3, 64, 64])
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        *,
        probability: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.25),
        ratio: tuple[float, float] = (0.3, 3.3),
        noise_std: float = 0.0,
        noise_probability: float = 0.5,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        size: int | tuple[int, int] | None = None,
        pipeline: KorniaPipeline | None = None,
    ) -> None:
        super().__init__()
        check_erasing(probability, scale, ratio)
        self.probability, self.scale, self.ratio = probability, scale, ratio
        self.noise_std = check_range("noise_std", noise_std, 0.0)
        self.noise_probability = check_range("noise_probability", noise_probability, 0.0, 1.0)
        if not (isinstance(mean, Sequence) and isinstance(std, Sequence) and mean and std):
            raise ValueError(f"mean and std must be sequences of numbers, got {mean} and {std}")
        if len(mean) != len(std):
            raise ValueError(
                f"mean and std must hold one value a channel each, got {len(mean)} and {len(std)}"
            )
        self.mean = tuple(check_range("mean", value) for value in mean)
        self.std = tuple(check_range("std", value, 0.0, open_low=True) for value in std)
        pair = (size, size) if isinstance(size, int) else size
        if pair is not None and (len(pair) != 2 or min(pair) < 1):
            raise ValueError(f"size must be a pair of at least 1 pixel each, got {size}")
        self.size = None if pair is None else tuple(pair)
        if not (pipeline is None or isinstance(pipeline, KorniaPipeline)):
            raise TypeError(
                f"pipeline must be a KorniaPipeline(...) around the operations, "
                f"got {type(pipeline).__name__}"
            )
        self.pipeline = pipeline

    @torch.no_grad()
    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        pixels = self._pixels(images, generator)
        view = self._normalized(pixels)
        if self.training:
            self._add_noise_(view, pixels, generator)
            self._erase_((view,), generator)
        return view

    def _pixels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Checked images after the pipeline, as uint8 as long as nothing needs floats."""
        channels = check_images(images)["C"]
        check_generator(generator)
        if channels != len(self.mean):
            raise ValueError(
                f"images have C={channels} but mean and std have {len(self.mean)} values; give "
                "one value a channel, or repeat grey images with images.expand(-1, 3, -1, -1)"
            )
        return images if self.pipeline is None else self.pipeline(images, generator=generator)

    def _normalized(self, pixels: Tensor) -> Tensor:
        """Pixels resized and normalised, in a tensor of their own."""
        if self.size is not None and self.size != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(
                to_float(pixels), self.size, mode="bilinear", antialias=True, align_corners=False
            )
        from_bytes = pixels.dtype == torch.uint8
        top = 255 if from_bytes else 1
        dtype = torch.float32 if from_bytes else pixels.dtype
        mean, std = (
            to_device(torch.tensor([top * value for value in values], dtype=dtype), pixels.device)
            for values in (self.mean, self.std)
        )
        if pixels.is_cpu and not from_bytes:
            # Memory is the cost: one pass over it, where subtraction and division take two.
            return F.batch_norm(pixels, mean, std.square(), eps=0.0)
        mean, std = mean[:, None, None], std[:, None, None]
        # In place on the copy that the conversion has made.
        centred = pixels.float().sub_(mean) if from_bytes else pixels.sub(mean)
        return centred.div_(std)

    def _add_noise_(self, view: Tensor, pixels: Tensor, generator: torch.Generator | None) -> None:
        """Make the chosen rows of the view anew from noisy pixels."""
        if not self.noise_std:
            return
        chosen = torch.rand(len(pixels), generator=generator, device="cpu")
        rows = to_device((chosen < self.noise_probability).nonzero()[:, 0], pixels.device)
        if len(rows):
            clean = to_float(pixels[rows])
            noise = _normal_like(clean, generator).mul_(self.noise_std)
            view[rows] = self._normalized(noise.add_(clean).clamp_(0, 1))

    def _erase_(self, views: Sequence[Tensor], generator: torch.Generator | None) -> None:
        """Fill a box in some samples of each view, drawn for each view by itself."""
        if not self.probability:
            return
        batch, _, height, width = views[0].shape
        boxes = sample_boxes(
            len(views) * batch,
            height,
            width,
            probability=self.probability,
            scale=self.scale,
            ratio=self.ratio,
            generator=generator,
        )
        for view, own in zip(views, boxes.chunk(len(views)), strict=True):
            fill_boxes_(view, own)

    def extra_repr(self) -> str:
        return (
            f"probability={self.probability}, scale={self.scale}, ratio={self.ratio}, "
            f"noise_std={self.noise_std}, noise_probability={self.noise_probability}, "
            f"mean={self.mean}, std={self.std}, size={self.size}"
        )


class MirroredPair(nn.Module):
    """Turn a batch of images into EAC's pair: the images and their mirror images, both erased.

    Each is prepared as by :class:`SingleView`, whose options these are. What the pipeline does
    shows in both. In ``eval()`` the second is the exact mirror image of the first.

    Args:
        erase: ``"independent"``: each view has its own box, and only the unmirrored one gets noise,
            as in the public program's runs with noisy labels. ``"shared"``: the second view is
            the exact mirror image of the first with its box and noise, as in its clean runs.
        probability: see :class:`SingleView`, as for all that follow.
        scale: least and largest area of an erased box.
        ratio: least and largest height of an erased box over its width.
        noise_std: standard deviation of the noise on pixels in [0, 1].
        noise_probability: chance of each sample to get noise.
        mean: mean of each channel.
        std: standard deviation of each channel.
        size: height and width to resize to.
        pipeline: random operations on the image before it is mirrored.

    Shape:
        images ``(B, C, H, W)`` uint8 0..255, or float32 or float64 0..1 -> two views
        ``(B, C, h, w)`` float32 or float64, in the images' memory format unless a pipeline
        changes it.

    Raises:
        TypeError: ``pipeline`` is no :class:`KorniaPipeline`.
        ValueError: an option does not fit, or shape, dtype or channels of the images.

    Reference:
        Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial
        Expression Recognition, ECCV 2022.

    >>> pair = MirroredPair(erase="shared")
    >>> images = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    >>> view, view_flipped = pair(images, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(view_flipped, view.flip(-1))
    True
    """

    __call__: Callable[..., Views]

    def __init__(
        self,
        *,
        erase: Literal["independent", "shared"] = "independent",
        probability: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.25),
        ratio: tuple[float, float] = (0.3, 3.3),
        noise_std: float = 0.0,
        noise_probability: float = 0.5,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        size: int | tuple[int, int] | None = None,
        pipeline: KorniaPipeline | None = None,
    ) -> None:
        super().__init__()
        if erase not in ("independent", "shared"):
            raise ValueError(f'erase must be "independent" or "shared", got {erase!r}')
        self.erase = erase
        self.single = SingleView(
            probability=probability,
            scale=scale,
            ratio=ratio,
            noise_std=noise_std,
            noise_probability=noise_probability,
            mean=mean,
            std=std,
            size=size,
            pipeline=pipeline,
        )

    @torch.no_grad()
    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Views:
        single = self.single
        if self.erase == "shared" or not self.training:
            view = single(images, generator=generator)
            return Views(view, view.flip(-1))
        pixels = single._pixels(images, generator)
        view = single._normalized(pixels)
        view_flipped = view.flip(-1)
        single._add_noise_(view, pixels, generator)
        single._erase_((view, view_flipped), generator)
        return Views(view, view_flipped)

    def extra_repr(self) -> str:
        return f"erase={self.erase!r}"


def _normal_like(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers drawn where the images lie, which the CPU's generator decides."""
    if generator is not None and not images.is_cpu:
        generator = torch.Generator(images.device).manual_seed(draw_seed(generator))
    return torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)
