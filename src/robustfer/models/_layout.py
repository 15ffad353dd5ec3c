"""Where the maps are in what a timm model's ``forward_features`` returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

OWN_MODULE_HINT = (
    "choose another architecture, or build a module of your own and hand its maps and its "
    "classifier's weight to robustfer.models.cam_outputs"
)


def forward_features(backbone: Any, images: Tensor) -> Any:
    """Return what precedes the head: of a timm model, or the plain output of any other module."""
    if hasattr(backbone, "forward_features"):
        return backbone.forward_features(images)
    return backbone(images)


def probe_size(
    backbone: nn.Module, options: Mapping[str, Any], asked: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Return (channels, height, width) of images on which the backbone is examined.

    A fixed size is kept; else 128, where networks of stride 32 and 64 still give several
    places to average over, so that mean and maximum pooling differ.
    """
    if asked is not None:
        return asked
    config: Mapping[str, Any] = getattr(backbone, "pretrained_cfg", None) or {}
    channels, height, width = config.get("input_size", (3, 128, 128))
    fixed = options.get("img_size") or getattr(
        getattr(backbone, "patch_embed", None), "img_size", None
    )
    if fixed is not None:
        height, width = (fixed, fixed) if isinstance(fixed, int) else fixed
    elif not config.get("fixed_input_size", False):
        height = width = 128
    return options.get("in_chans", channels), height, width


@dataclass(frozen=True)
class Layout:
    """How to read (B, D, H, W) out of the features of one backbone.

    Attributes:
        axes: order of the axes; ``"NLC"`` are tokens in rows of a grid.
        channels: D.
        prefix: tokens before those of the grid (class, distillation, register tokens).
    """

    axes: Literal["NCHW", "NHWC", "NLC"]
    channels: int
    prefix: int = 0

    def maps(self, features: Tensor, backbone: nn.Module, images: Tensor) -> Tensor:
        """Return ``features`` as (B, D, H, W), a view where that is possible."""
        if self.axes == "NCHW":
            return features
        if self.axes == "NHWC":
            return features.permute(0, 3, 1, 2)
        tokens = features[:, self.prefix :]
        grid = _token_grid(backbone, tokens.shape[1], images.shape[2], images.shape[3])
        # Not len(tokens): torch.export would take the number for the one batch size there is.
        return tokens.transpose(1, 2).reshape(tokens.shape[0], self.channels, *grid)


def examine_features(name: str, probe: nn.Module, images: Tensor) -> tuple[Layout, Tensor]:
    """Return the features of random images, as they come, and their layout.

    Raises:
        ValueError: the features are no maps, or the images do not suit the network.
    """
    shown = "x".join(map(str, images.shape[1:]))
    try:
        with torch.no_grad():
            features = forward_features(probe, images)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise ValueError(
            f"{name} does not take images of {shown} (channels x height x width): {error}; "
            "give input_size"
        ) from error
    layout = _layout_of(name, probe, features)
    if layout.maps(features, probe, images)[0, 0].numel() == 1:
        raise ValueError(
            f"{name} gives maps of a single place for images of {shown}: give a larger input_size, "
            f"or {OWN_MODULE_HINT}"
        )
    return layout, features


def examine_training(name: str, probe: nn.Module, images: Tensor, evaluated: Tensor) -> None:
    """Refuse a network whose features have other places in training than in evaluation.

    Args:
        name: of the network.
        probe: a copy of it, left in eval mode; a forward in training may change its buffers.
        images: (B, C, H, W) random images.
        evaluated: their features in eval mode.

    Raises:
        ValueError: the features in training are of another shape, or not one tensor.
    """
    with torch.no_grad(), in_training(probe):
        features = forward_features(probe, images)
    if isinstance(features, Tensor) and features.shape == evaluated.shape:
        return
    got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise ValueError(
        f"{name} gives features of shape {tuple(evaluated.shape)} in eval mode and {got} in "
        "training mode, but class maps need the same places in both: build it without what drops "
        f"or merges tokens (timm: patch_drop_rate=0), or {OWN_MODULE_HINT}"
    )


@contextmanager
def in_training(probe: nn.Module) -> Iterator[None]:
    """Put a network into training mode, but for its batch norms, and into eval mode afterwards.

    Those would fail on one image, change their statistics and, if synchronised, wait for others.
    """
    probe.train()
    for part in probe.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    try:
        yield
    finally:
        probe.eval()


def _layout_of(name: str, backbone: nn.Module, features: object) -> Layout:
    if not isinstance(features, Tensor):
        raise ValueError(
            f"{name} gives a {type(features).__name__} as features, not one tensor with a place "
            f"for each part of the image: {OWN_MODULE_HINT}"
        )
    shape = tuple(features.shape)
    if not hasattr(backbone, "forward_features"):
        if len(shape) != 4:
            raise ValueError(
                f"{name} must return maps of shape (B, D, H, W), got {shape}; leave its pooling "
                "and its classifier out"
            )
        return Layout("NCHW", shape[1])
    channels = getattr(backbone, "num_features", None)
    if channels is None:
        raise ValueError(
            f"{name} has forward_features but no num_features, so its channels cannot be told "
            "apart from places: set self.num_features to their number"
        )
    axes = _axes(backbone, shape, channels)
    if axes is None:
        raise ValueError(
            f"{name} gives features of shape {shape}, in which its {channels} channels cannot be "
            f"told apart from places: {OWN_MODULE_HINT}"
        )
    if axes == "NLC":
        return Layout("NLC", shape[2], prefix=getattr(backbone, "num_prefix_tokens", 0) or 0)
    return Layout(axes, shape[1] if axes == "NCHW" else shape[3])


def _axes(
    backbone: nn.Module, shape: tuple[int, ...], channels: int | None
) -> Literal["NCHW", "NHWC", "NLC"] | None:
    if len(shape) == 3:
        return "NLC" if shape[2] == channels else None
    if len(shape) != 4:
        return None
    declared = str(getattr(backbone, "output_fmt", ""))
    first, last = shape[1] == channels, shape[3] == channels
    if declared == "NHWC" or (last and not first):
        return "NHWC"
    if declared == "NCHW" or (first and not last):
        return "NCHW"
    return None


def _token_grid(backbone: nn.Module, count: int, height: int, width: int) -> tuple[int, int]:
    """Return (rows, columns) of the tokens of an image.

    Never a guess where the network tells another grid, nor for an oblong image.
    """
    told = None
    for part in ("patch_embed", "stem"):
        grid_of = getattr(getattr(backbone, part, None), "dynamic_feat_size", None)
        if grid_of is not None:
            told = rows, columns = tuple(int(size) for size in grid_of((height, width)))
            if rows * columns == count:
                return rows, columns
    if told is not None:
        raise ValueError(
            f"{type(backbone).__name__} gives {count} tokens for images of {height}x{width}, but "
            f"tells a grid of {told[0]}x{told[1]}: build it without what drops or merges tokens "
            f"(timm: patch_drop_rate=0), or {OWN_MODULE_HINT}"
        )
    side = math.isqrt(count)
    if height == width and side * side == count:
        return side, side
    advice = OWN_MODULE_HINT if height == width else f"use square images, or {OWN_MODULE_HINT}"
    raise ValueError(
        f"{type(backbone).__name__} gives {count} tokens for images of {height}x{width} and does "
        f"not tell in what grid: {advice}"
    )
