"""Where to find the maps in a network's output."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

OWN_MODULE_HINT = (
    "choose another architecture, or write your own module that passes its maps and its "
    "classifier's weight to robustfer.models.cam_outputs"
)


class SkippedMapsError(RuntimeError):
    """The module that returns the maps did not run."""


@dataclass(frozen=True)
class Layout:
    """How to read maps (B, D, H, W) from one backbone.

    A timm model returns them from ``forward_features``, and a network without a head from
    ``forward``. In a classifier of another library, an inner module returns them.

    Attributes:
        axes: order of the axes; ``"NLC"`` are tokens in rows of a grid.
        channels: D.
        prefix: number of tokens before those of the grid (class, distillation, register tokens).
        patch: size of a token's part of the image, if the network declares it.
        tap: path of the inner module that returns the features, if there is one.
        named_logits: whether the classifier returns an object with ``logits``.
    """

    axes: Literal["NCHW", "NHWC", "NLC"]
    channels: int
    prefix: int = 0
    patch: tuple[int, int] | None = None
    tap: str | None = None
    named_logits: bool = False

    def read(self, backbone: Any, images: Tensor) -> tuple[Any, Any]:
        """Return the input of the backbone's own head, and the features."""
        if self.tap is None:
            raw = forward_features(backbone, images)
            return raw, tensor_of(raw)
        with outputs_of(backbone, [self.tap]) as outputs:
            raw = backbone(images)
        if not outputs:
            raise SkippedMapsError(
                f"{self.tap} of {type(backbone).__name__}, which returns its maps, did not run in "
                "this forward; make it run in training and in eval mode, and without gradient "
                "checkpointing that skips its call"
            )
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
        # Not len(tokens), because torch.export would fix the batch size.
        return tokens.transpose(1, 2).reshape(tokens.shape[0], self.channels, *grid)

    def logits(self, backbone: Any, raw: Any) -> Any:
        """Return the logits of the backbone's own head."""
        return backbone.forward_head(raw) if self.tap is None else logits_of(raw)


def forward_features(backbone: Any, images: Tensor) -> Any:
    """Return the features of a timm model before its head, or the output of another module."""
    if hasattr(backbone, "forward_features"):
        return backbone.forward_features(images)
    return backbone(images)


def tensor_of(output: Any) -> Any:
    """Return the features in an output. A Hugging Face model names them."""
    return output if isinstance(output, Tensor) else getattr(output, "last_hidden_state", output)


def logits_of(output: Any) -> Any:
    """Return the logits in an output. A Hugging Face model names them."""
    return output if isinstance(output, Tensor) else getattr(output, "logits", output)


@contextmanager
def outputs_of(network: nn.Module, paths: list[str]) -> Iterator[list[Any]]:
    """Collect the outputs of the modules at these paths, in the order in which they run.

    A module that :func:`record` has prepared needs no new hook, which ``torch.compile`` could not
    trace. Nothing is kept afterwards. Each thread collects its own outputs.
    """
    outputs: list[Any] = []
    modules = [network.get_submodule(path) for path in paths]
    handles = [part.register_forward_hook(_keep) for part in modules if not _recorded(part)]
    for part in modules:
        # For compiled code, which does not know its thread.
        part._robustfer_outputs = outputs  # type: ignore[assignment]
    if not torch.compiler.is_compiling():
        in_thread = _outputs_in_thread()
        before = {part: in_thread.get(part) for part in modules}
        in_thread.update(dict.fromkeys(modules, outputs))
    try:
        yield outputs
    finally:
        for part in modules:
            part._robustfer_outputs = None  # type: ignore[assignment]
        if not torch.compiler.is_compiling():
            in_thread.update(before)
            for part in [part for part in modules if in_thread[part] is None]:
                del in_thread[part]
        for handle in handles:
            handle.remove()


def record(network: nn.Module, path: str) -> None:
    """Prepare the module at a path for :func:`outputs_of`."""
    part = network.get_submodule(path)
    part._robustfer_outputs = None  # type: ignore[assignment]
    if not _recorded(part):
        part.register_forward_hook(_keep)


def unrecord(network: nn.Module) -> None:
    """Undo :func:`record` in all parts of a network."""
    for part in network.modules():
        for key in [key for key, hook in part._forward_hooks.items() if hook is _keep]:
            del part._forward_hooks[key]
        vars(part).pop("_robustfer_outputs", None)


def _recorded(part: nn.Module) -> bool:
    return any(hook is _keep for hook in part._forward_hooks.values())


_THREAD = threading.local()


def _outputs_in_thread() -> dict[nn.Module, Any]:
    """Return where the running calls of this thread collect outputs, by module."""
    found: dict[nn.Module, Any] | None = getattr(_THREAD, "outputs", None)
    if found is None:
        _THREAD.outputs = found = {}
    return found


def _keep(part: nn.Module, _: Any, output: Any) -> None:
    # A function of a module, because it is copied and pickled with the network.
    compiling = torch.compiler.is_compiling()
    outputs: Any = part._robustfer_outputs if compiling else _outputs_in_thread().get(part)
    if outputs is not None:
        outputs.append(output)


def _token_grid(backbone: nn.Module, count: int, height: int, width: int) -> tuple[int, int]:
    """Return (rows, columns) of the grid of an image's tokens.

    A square grid is assumed only for a square image, if the network does not declare a grid.
    """
    declared = None
    for part in ("patch_embed", "stem"):
        grid_of = getattr(getattr(backbone, part, None), "dynamic_feat_size", None)
        if grid_of is not None:
            declared = rows, columns = tuple(int(size) for size in grid_of((height, width)))
            if rows * columns == count:
                return rows, columns
    side = math.isqrt(count)
    if declared is None and height == width and side * side == count:
        return side, side
    if declared is not None:
        problem = f"but declares a grid of {declared[0]}x{declared[1]}"
        advice = "build it without options that drop or merge tokens (timm: patch_drop_rate=0), or "
    else:
        problem = "and does not declare their grid"
        advice = "" if height == width else "use square images, or "
    raise ValueError(
        f"{type(backbone).__name__} gives {count} tokens for images of {height}x{width}, {problem}"
        f"; {advice}{OWN_MODULE_HINT}"
    )
