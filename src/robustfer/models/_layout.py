"""Where the maps of a network are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

OWN_MODULE_HINT = (
    "choose another architecture, or build a module of your own and hand its maps and its "
    "classifier's weight to robustfer.models.cam_outputs"
)


@dataclass(frozen=True)
class Layout:
    """How to read (B, D, H, W) out of one backbone.

    A timm model returns its maps from ``forward_features``, and a network without a head as its
    plain output. In a whole classifier of another library a module inside returns them.
    """

    axes: Literal["NCHW", "NHWC", "NLC"]  # "NLC": tokens in rows of a grid
    channels: int
    prefix: int = 0  # tokens before those of the grid (class, distillation, register tokens)
    patch: tuple[int, int] | None = None  # a token's part of the image, if the network tells it
    tap: str | None = None  # path of the module in a whole classifier that returns the features
    named_logits: bool = False  # whether the classifier returns an object with logits

    def read(self, backbone: Any, images: Tensor) -> tuple[Any, Any]:
        """Return what the backbone's own head goes on from, and the features as they come."""
        if self.tap is None:
            raw = forward_features(backbone, images)
            return raw, tensor_of(raw)
        with outputs_of(backbone, [self.tap]) as outputs:
            raw = backbone(images)
        return raw, tensor_of(outputs[0])

    def maps(self, features: Tensor, backbone: nn.Module, images: Tensor) -> Tensor:
        """Return ``features`` as (B, D, H, W), a view if possible."""
        if self.axes == "NCHW":
            return features
        if self.axes == "NHWC":
            return features.permute(0, 3, 1, 2)
        tokens = features[:, self.prefix :]
        height, width = images.shape[2:]
        if self.patch is not None:
            grid = height // self.patch[0], width // self.patch[1]
        else:
            grid = _token_grid(backbone, tokens.shape[1], height, width)
        # Not len(tokens): torch.export would take the number for the one batch size there is.
        return tokens.transpose(1, 2).reshape(tokens.shape[0], self.channels, *grid)

    def logits(self, backbone: Any, raw: Any) -> Any:
        """Return the logits of the backbone's own head."""
        return backbone.forward_head(raw) if self.tap is None else logits_of(raw)


def forward_features(backbone: Any, images: Tensor) -> Any:
    """Return what precedes the head: of a timm model, or the plain output of any other module."""
    if hasattr(backbone, "forward_features"):
        return backbone.forward_features(images)
    return backbone(images)


def tensor_of(output: Any) -> Any:
    """Return the features in an output: a Hugging Face model names them."""
    return output if isinstance(output, Tensor) else getattr(output, "last_hidden_state", output)


def logits_of(output: Any) -> Any:
    """Return the logits in an output: a Hugging Face model names them."""
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


@contextmanager
def outputs_of(network: nn.Module, paths: list[str]) -> Iterator[list[Any]]:
    """Collect what the modules at these paths return, in the order in which they run.

    Its hooks are gone afterwards: they keep no maps, and stay out of copies of the network.
    """
    outputs: list[Any] = []
    handles = [
        network.get_submodule(path).register_forward_hook(
            lambda _, __, output: outputs.append(output)
        )
        for path in paths
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


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
    side = math.isqrt(count)
    if told is None and height == width and side * side == count:
        return side, side
    if told is not None:
        problem = f"but tells a grid of {told[0]}x{told[1]}"
        advice = "build it without what drops or merges tokens (timm: patch_drop_rate=0), or "
    else:
        problem = "and does not tell in what grid"
        advice = "" if height == width else "use square images, or "
    raise ValueError(
        f"{type(backbone).__name__} gives {count} tokens for images of {height}x{width}, {problem}"
        f": {advice}{OWN_MODULE_HINT}"
    )
