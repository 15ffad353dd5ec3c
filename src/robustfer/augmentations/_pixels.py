"""Shared by all augmentations: checks of images, and random numbers drawn on the host.

Choices (which sample, which box) are a few numbers from a generator on the CPU. One seed gives the
same boxes on every device, and no GPU has to be waited for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer._checks import check_shapes, values_are_checked

_DTYPES = (torch.uint8, torch.float32, torch.float64)

# Resizing and noise may overshoot [0, 1] by this much, unless values are checked.
_OVERSHOOT = 0.25
_ROWS_LOOKED_AT = 4


def check_images(images: Tensor) -> dict[str, int]:
    """Check a batch ``(B, C, H, W)`` of uint8 0..255, or float32 or float64 0..1.

    On the CPU, where it needs no synchronisation, the range of floats is checked in some rows and
    with a margin. Under ``check_values()`` it is checked in full, on any device.
    """
    sizes = check_shapes(images=(images, "B C H W"))
    if sizes["W"] <= 4 < sizes["C"]:
        raise ValueError(
            f"images must have shape (B, C, H, W), got {tuple(images.shape)}, which looks like "
            "(B, H, W, C); pass images.permute(0, 3, 1, 2)"
        )
    if images.dtype not in _DTYPES:
        raise ValueError(
            f"images must be uint8 (0..255), float32 or float64 (0..1), got {images.dtype}; "
            "augment in float32 and cast afterwards, because half precision moves the geometry"
        )
    if not images.is_floating_point():
        return sizes
    if values_are_checked():
        low, high = (float(value) for value in images.aminmax())
        fits = low >= 0.0 and high <= 1.0
    elif images.is_cpu and not torch.compiler.is_compiling():
        # A few rows cost almost nothing, and a wrong scale shows in all rows.
        few = max(1, sizes["H"] // _ROWS_LOOKED_AT)
        low, high = (float(value) for value in images[:, :, ::few].aminmax())
        # NaN passes this comparison, and stays visible in the loss.
        fits = not (low < -_OVERSHOOT or high > 1.0 + _OVERSHOOT)
    else:
        return sizes
    if not fits:
        scaled = "divide them by 255, or pass uint8"
        raw = "pass them before normalisation, which the augmentation does"
        raise ValueError(
            f"floating-point images must lie in [0, 1], got {low:.6g} to {high:.6g}; "
            f"{raw if low < 0.0 else scaled}"
        )
    return sizes


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], and others unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def uniform(
    *shape: int, generator: torch.Generator | None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw from U(0, 1) on the CPU, independent of the default dtype and device."""
    if generator is None:
        # For a batch of unknown size, compiled code cannot trace the argument, not even as None.
        return torch.rand(shape, dtype=dtype, device="cpu")
    return torch.rand(shape, generator=generator, dtype=dtype, device="cpu")


def check_generator(generator: torch.Generator | None) -> None:
    """Require a generator on the CPU, or ``None``."""
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(
            f"generator must be on the CPU, wherever the images are, got {generator.device}; make "
            "it with torch.Generator()"
        )


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a seed for a source of random numbers that cannot take the generator."""
    return int(torch.randint(2**63 - 1, (), generator=generator, device="cpu"))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a small tensor from the host without waiting for the work queued on a GPU.

    Compiled code keeps the blocking copy, because inductor may read the host's memory too late.
    """
    return tensor.to(
        device, non_blocking=device.type == "cuda" and not torch.compiler.is_compiling()
    )
