"""Find the maps of a network by running a copy of it on random images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robustfer.models._layout import (
    OWN_MODULE_HINT,
    Layout,
    forward_features,
    logits_of,
    tensor_of,
)
from robustfer.models._probe import (
    Call,
    check_input_size,
    in_training,
    naming_the_size,
    recorded_calls,
    size_text,
)
from robustfer.models.outputs import CAMOutput

#: No network has more tokens before those of the grid.
_MOST_PREFIX = 16


def probe_size(
    backbone: nn.Module, options: Mapping[str, Any], asked: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Return (channels, height, width) of the images to examine the backbone with.

    It is the network's fixed size, or else 128. There even a stride of 64 gives several places,
    over which mean and maximum differ.
    """
    if asked is not None:
        return check_input_size(asked)
    of_timm: Mapping[str, Any] = getattr(backbone, "pretrained_cfg", None) or {}
    channels, height, width = of_timm.get("input_size", (3, 128, 128))
    fixed = options.get("img_size") or getattr(
        getattr(backbone, "patch_embed", None), "img_size", None
    )
    if not hasattr(backbone, "forward_features"):
        # Hugging Face has a config, torchvision has attributes.
        config = getattr(backbone, "config", backbone)
        channels = getattr(config, "num_channels", channels)
        fixed = getattr(config, "image_size", None)
    if fixed is not None:
        height, width = (fixed, fixed) if isinstance(fixed, int) else fixed
    elif not of_timm.get("fixed_input_size", False):
        height = width = 128
    return options.get("in_chans", channels), height, width


def examine_features(name: str, probe: nn.Module, images: Tensor) -> tuple[Layout, Any, Tensor]:
    """Return the layout of a network's features, the input of its head, and the features."""
    with torch.no_grad(), naming_the_size(name, images):
        raw = forward_features(probe, images)
    if isinstance(raw, CAMOutput):
        raise ValueError(
            f"{name} already returns class maps, as a CAMOutput; use it instead of a CAMClassifier"
        )
    logits = None if hasattr(probe, "forward_features") else logits_of(raw)
    whole = isinstance(logits, Tensor) and logits.ndim == 2
    if whole and (found := _find_tap(probe, images)) is not None:
        layout, features = found
        layout = replace(layout, named_logits=logits is not raw)
    else:
        features = tensor_of(raw)
        layout = _layout_of(name, probe, features, images)
    if layout.maps(features, probe, images)[0, 0].numel() == 1:
        raise ValueError(
            f"{name} gives maps of a single place for images of {size_text(images)}; pass a larger "
            f"input_size, or {OWN_MODULE_HINT}"
        )
    return layout, raw, features


def examine_training(
    name: str, layout: Layout, probe: nn.Module, images: Tensor, evaluated: Tensor
) -> None:
    """Require features of the same shape in training mode as in eval mode.

    The probe is a copy, because a forward in training mode may change buffers. It is left in eval
    mode.
    """
    # An auxiliary classifier, which runs only in training, may need larger images.
    with torch.no_grad(), in_training(probe), naming_the_size(name, images, " in training mode"):
        features = layout.read(probe, images)[1]
    if isinstance(features, Tensor) and features.shape == evaluated.shape:
        return
    got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    raise ValueError(
        f"{name} gives features of shape {tuple(evaluated.shape)} in eval mode and {got} in "
        "training mode, but class maps need the same places in both; build it without options "
        f"that drop or merge tokens (timm: patch_drop_rate=0), or {OWN_MODULE_HINT}"
    )


def _find_tap(probe: nn.Module, images: Tensor) -> tuple[Layout, Tensor] | None:
    """Return the layout of the module inside a classifier that returns the maps, and its output.

    It is the last module whose output, averaged over places, is the input of the classifier or of
    the norm before it. A classifier that is a 1x1 convolution may take maps. For a head without
    exact maps it is the last module with parameters whose channels fit the head's input, which
    those of an attention mask do not.
    """
    with torch.no_grad(), recorded_calls(probe) as calls:
        probe(images)
    paths = {module: path for path, module in probe.named_modules()}
    times = Counter(call.module for call in calls)
    # The inputs of the classifier and of a possible norm before it.
    behind = [place for place, call in enumerate(calls[:-1]) if call.has_own_parameters][-2:]
    vectors = {
        place: _vector(calls[place], last=place == behind[-1])
        for place in behind
        if isinstance(calls[place].taken, Tensor)
        and not _is_of_backbone(calls[place], last=place == behind[-1])
    }
    fallbacks: dict[int, tuple[Layout, Tensor]] = {}
    for place, call in reversed(list(enumerate(calls))):
        if call.module is probe or times[call.module] > 1:
            continue
        features = tensor_of(call.given)
        for layout in _possible_layouts(features, probe, images):
            tapped = replace(layout, tap=paths[call.module])
            pooled = tapped.maps(features, probe, images).mean(dim=(2, 3))
            later = [vector for use, vector in vectors.items() if use > place]
            if any(_alike(pooled, vector) for vector in later):
                return tapped, features
            has_parameters = next(call.module.parameters(), None) is not None
            if has_parameters and layout.axes != "NHWC":
                fit = _fit(layout.channels, [vector.shape[1] for vector in later])
                fallbacks.setdefault(fit, (tapped, features))
    return fallbacks[max(fallbacks)] if fallbacks else None


def _is_of_backbone(call: Call, *, last: bool) -> bool:
    """Return whether a layer makes maps from maps, so it comes before the pooling.

    Such layers are the last ones if the head calls no module, as a cosine classifier does.
    """
    if not isinstance(call.module, (nn.Conv2d, nn.BatchNorm2d)) or call.taken[0, 0].numel() == 1:
        return False
    return not (last and _convolves_places(call))


def _convolves_places(call: Call) -> bool:
    """Return whether a layer is a linear layer at each place, such as a classifier of places."""
    return isinstance(call.module, nn.Conv2d) and call.module.kernel_size == (1, 1)


def _vector(call: Call, *, last: bool) -> Tensor:
    """Return the input of a layer of the head as vectors."""
    taken: Tensor = call.taken
    if last and _convolves_places(call) and taken.ndim == 4:
        return taken.mean(dim=(2, 3))
    return taken.flatten(1)


def _fit(channels: int, widths: list[int]) -> int:
    """Return how well maps of so many channels explain the inputs of the head: 2 best, 0 not.

    The head may take several poolings, or the maps of several places.
    """
    return 0 if channels == 1 else 1 + any(width % channels == 0 for width in widths)


def _possible_layouts(features: Any, probe: nn.Module, images: Tensor) -> Iterator[Layout]:
    if not isinstance(features, Tensor) or features.numel() == 0:
        return
    shape = tuple(features.shape)
    if len(shape) == 4 and shape[2] * shape[3] > 1:
        yield Layout("NCHW", shape[1])
        yield Layout("NHWC", shape[3])
    elif len(shape) == 3 and shape[1] > 1:
        try:
            layout = _token_layout(shape, _patch(probe), images)
            layout.maps(features, probe, images)
        except (RuntimeError, ValueError):
            # Not tokens, or not in a grid.
            return
        yield layout


def _alike(one: Tensor, other: Tensor) -> bool:
    close = 1e-4 * float(other.abs().max())
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=close)


def _patch(backbone: nn.Module) -> tuple[int, int] | None:
    """Return the patch size (height, width) that Hugging Face or torchvision declares."""
    declared = getattr(getattr(backbone, "config", backbone), "patch_size", None)
    pair = (declared, declared) if isinstance(declared, int) else declared
    return tuple(pair) if isinstance(pair, (tuple, list)) and len(pair) == 2 else None


def _token_layout(shape: tuple[int, ...], patch: tuple[int, int] | None, images: Tensor) -> Layout:
    """Return the layout of tokens (B, L, D). Tokens beyond the grid of patches come first."""
    if patch is not None:
        height, width = images.shape[2:]
        prefix = shape[1] - (height // patch[0]) * (width // patch[1])
        if 0 <= prefix <= _MOST_PREFIX:
            return Layout("NLC", shape[2], prefix, patch)
    return Layout("NLC", shape[2])


def _layout_of(name: str, backbone: nn.Module, features: object, images: Tensor) -> Layout:
    if not isinstance(features, Tensor):
        raise ValueError(
            f"{name} gives a {type(features).__name__} as features, not one tensor with a place "
            f"for each part of the image; {OWN_MODULE_HINT}"
        )
    shape = tuple(features.shape)
    if not hasattr(backbone, "forward_features"):
        patch = _patch(backbone)
        if len(shape) == 3 and patch is not None:
            return _token_layout(shape, patch, images)
        if len(shape) != 4:
            raise ValueError(
                f"{name} must return maps of shape (B, D, H, W), got {shape}; leave out its "
                "pooling and classifier"
            )
        return Layout("NCHW", shape[1])
    channels = getattr(backbone, "num_features", None)
    if channels is None:
        raise ValueError(
            f"{name} has forward_features but no num_features, which tells channels from places; "
            "set self.num_features to the number of channels"
        )
    if len(shape) == 3 and shape[2] == channels:
        # Older timm does not count the class token of some networks.
        class_token = shape[1] > 1 and getattr(backbone, "cls_token", None) is not None
        prefix = getattr(backbone, "num_prefix_tokens", int(class_token)) or 0
        return Layout("NLC", shape[2], prefix)
    if len(shape) == 4:
        declared = str(getattr(backbone, "output_fmt", ""))
        first, last = shape[1] == channels, shape[3] == channels
        if declared == "NHWC" or (last and not first):
            return Layout("NHWC", shape[3])
        if declared == "NCHW" or (first and not last):
            return Layout("NCHW", shape[1])
    raise ValueError(
        f"{name} gives features of shape {shape}, in which its {channels} channels cannot be "
        f"told from places; {OWN_MODULE_HINT}"
    )
