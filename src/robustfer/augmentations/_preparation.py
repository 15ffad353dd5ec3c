"""The steps that every view of a batch goes through, and their options."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import check_range, check_size
from robustfer.augmentations._pixels import (
    check_generator,
    check_images,
    draw_seed,
    to_device,
    to_float,
    uniform,
)
from robustfer.augmentations._points import Points
from robustfer.augmentations.erasing import check_erasing, fill_boxes_, sample_boxes
from robustfer.augmentations.pipeline import KorniaPipeline, carried

# Some versions of torch refuse 0. Next to the square of a standard deviation this rounds to it.
_NOTHING = torch.finfo(torch.float32).tiny


class Preparation(nn.Module):
    """The steps and options that ``SingleView`` and ``MirroredPair`` share.

    :class:`robustfer.augmentations.SingleView` explains the options.
    """

    def __init__(
        self,
        *,
        erase_probability: float = 0.5,
        erase_scale: tuple[float, float] = (0.02, 0.25),
        erase_ratio: tuple[float, float] = (0.3, 3.3),
        noise_std: float = 0.0,
        noise_probability: float = 0.5,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        size: int | tuple[int, int] | None = None,
        pipeline: KorniaPipeline | None = None,
    ) -> None:
        super().__init__()
        check_erasing(erase_probability, erase_scale, erase_ratio, prefix="erase_")
        self.erase_probability = erase_probability
        self.erase_scale, self.erase_ratio = erase_scale, erase_ratio
        self.noise_std = check_range("noise_std", noise_std, 0.0)
        self.noise_probability = check_range("noise_probability", noise_probability, 0.0, 1.0)
        if not (isinstance(mean, Sequence) and isinstance(std, Sequence) and mean and std):
            raise ValueError(f"mean and std must be sequences of numbers, got {mean} and {std}")
        if len(mean) != len(std):
            raise ValueError(
                f"mean and std must hold one value per channel, got {len(mean)} and {len(std)}"
            )
        self.mean = tuple(check_range("mean", value) for value in mean)
        self.std = tuple(check_range("std", value, 0.0, open_low=True) for value in std)
        self.size = None if size is None else check_size("size", size)
        if not (pipeline is None or isinstance(pipeline, KorniaPipeline)):
            raise TypeError(
                "pipeline must be a KorniaPipeline(...) around the operations, got "
                f"{type(pipeline).__name__}"
            )
        self.pipeline = pipeline

    def _pixels(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return images after the pipeline. Without a pipeline uint8 images stay uint8."""
        self._check(images, generator)
        return images if self.pipeline is None else self.pipeline(images, generator=generator)

    def _pixels_and_points(
        self, images: Tensor, points: Points, generator: torch.Generator | None
    ) -> tuple[Tensor, Points]:
        """Return images and landmarks after the pipeline."""
        if self.pipeline is None:
            return self._pixels(images, generator), points
        self._check(images, generator)
        return carried(self.pipeline, images, points, generator)

    def _check(self, images: Tensor, generator: torch.Generator | None) -> None:
        channels = check_images(images)["C"]
        check_generator(generator)
        if channels != len(self.mean):
            raise ValueError(
                f"images have C={channels} but mean and std have {len(self.mean)} values; pass "
                "one value per channel, or repeat grey images with images.expand(-1, 3, -1, -1)"
            )

    def _finished(self, pixels: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return the view and its erased boxes."""
        view = self._normalized(pixels)
        if self.training:
            self._add_noise_(view, pixels, generator)
        return view, self._erase_((view,), generator)

    def _normalized(self, pixels: Tensor) -> Tensor:
        """Return pixels resized and normalised, in a new tensor."""
        if self.size is not None and self.size != tuple(pixels.shape[-2:]):
            pixels = F.interpolate(
                to_float(pixels), self.size, mode="bilinear", antialias=True, align_corners=False
            )
        from_bytes = pixels.dtype == torch.uint8
        top = 255 if from_bytes else 1
        dtype = torch.float32 if from_bytes else pixels.dtype
        scaled = ([top * value for value in values] for values in (self.mean, self.std))
        mean, std = (
            to_device(torch.tensor(values, dtype=dtype, device="cpu"), pixels.device)
            for values in scaled
        )
        if pixels.is_cpu and not from_bytes:
            # One pass over memory, where subtraction and division take two.
            return F.batch_norm(pixels, mean, std.square(), eps=_NOTHING)
        mean, std = mean[:, None, None], std[:, None, None]
        # In place on the copy that the conversion or the subtraction makes.
        centred = pixels.float().sub_(mean) if from_bytes else pixels.sub(mean)
        return centred.div_(std)

    def _add_noise_(self, view: Tensor, pixels: Tensor, generator: torch.Generator | None) -> None:
        """Replace the chosen rows of the view by those of noisy pixels."""
        if not self.noise_std:
            return
        chosen = uniform(len(pixels), generator=generator)
        rows = to_device((chosen < self.noise_probability).nonzero()[:, 0], pixels.device)
        if len(rows):
            clean = to_float(pixels[rows])
            noise = _normal_like(clean, generator).mul_(self.noise_std)
            view[rows] = self._normalized(noise.add_(clean).clamp_(0, 1))

    def _erase_(self, views: Sequence[Tensor], generator: torch.Generator | None) -> Tensor:
        """Fill a box in some samples of each view, and return all boxes, view after view."""
        batch, _, height, width = views[0].shape
        if not (self.training and self.erase_probability):
            return torch.zeros(len(views) * batch, 4, dtype=torch.int64, device="cpu")
        boxes = sample_boxes(
            len(views) * batch,
            height,
            width,
            probability=self.erase_probability,
            scale=self.erase_scale,
            ratio=self.erase_ratio,
            generator=generator,
        )
        for view, own in zip(views, boxes.chunk(len(views)), strict=True):
            fill_boxes_(view, own)
        return boxes

    def extra_repr(self) -> str:
        names = [f"erase_{name}" for name in ("probability", "scale", "ratio")]
        names += ["noise_std", "noise_probability", "mean", "std", "size"]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def _normal_like(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw standard normal numbers on the images' device, seeded by the CPU's generator."""
    if generator is not None and not images.is_cpu:
        generator = torch.Generator(images.device).manual_seed(draw_seed(generator))
    # Compiled code cannot trace the argument, see uniform.
    if generator is None:
        return torch.randn(images.shape, dtype=images.dtype, device=images.device)
    return torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)
