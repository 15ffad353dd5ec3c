"""Heat maps of landmarks, and an embedding of their places, from a feature pyramid (LA-Net)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import check_shapes, check_whole_number
from robustfer.models._placing import fit_to
from robustfer.models._probe import (
    check_input_size,
    naming_the_size,
    random_images,
    randomized_copy,
    undisturbed,
)
from robustfer.models.cam_classifier import network_of

_STRIDE = 4


class LandmarkOutput(NamedTuple):
    """Output of a landmark branch.

    Attributes:
        heatmaps: (B, K, h, w) predictions at stride 4, without activation.
        embeddings: (B, E) mean over places of the maps before the last layer.
    """

    heatmaps: Tensor
    embeddings: Tensor


class LandmarkHead(nn.Module):
    r"""Merge the maps of a pyramid from coarse to fine, and predict heat maps.

    .. math::
        P_l = V_l F_l + \mathrm{up}(P_{l+1}), \qquad
        \text{heat maps} = U P_1, \qquad \text{embedding} = \operatorname{mean}_{i,j} P_1

    :math:`V_l, U` are 1x1 convolutions and up is bilinear. Maps of a stride below 4 are not used.
    If the finest stride is above 4, the merged map is enlarged to stride 4.

    Args:
        channels: channels of each map of the pyramid, finest first.
        strides: stride of each map in pixels, increasing.
        num_landmarks: K.
        dim: E, channels of the merged map.

    Shape:
        maps, each ``(B, channels, H/stride, W/stride)`` -> :class:`LandmarkOutput`.

    Reference:
        Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017.
    """

    __call__: Callable[..., LandmarkOutput]

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, num_landmarks: int, dim: int = 64
    ) -> None:
        super().__init__()
        num_landmarks = check_whole_number("num_landmarks", num_landmarks, 1)
        dim = check_whole_number("dim", dim, 1)
        if len(channels) != len(strides) or list(strides) != sorted(strides):
            raise ValueError(
                "channels and strides must have the same length, with increasing strides, got "
                f"{list(channels)} and {list(strides)}"
            )
        used = [level for level, stride in enumerate(strides) if stride >= _STRIDE]
        if not used:
            raise ValueError(
                f"strides must hold a stride of {_STRIDE} or more, got {list(strides)}; take more "
                "maps of the network (out_indices in timm)"
            )
        self.channels = tuple(channels)
        self.dim = dim
        self.first = used[0]
        self.enlarge = strides[self.first] / _STRIDE
        self.laterals = nn.ModuleList(nn.Conv2d(channels[level], dim, 1) for level in used)
        self.heatmaps = nn.Conv2d(dim, num_landmarks, 1)

    def forward(self, maps: Sequence[Tensor]) -> LandmarkOutput:
        if len(maps) != len(self.channels):
            raise ValueError(f"maps must hold {len(self.channels)} maps, got {len(maps)}")
        shapes = [f"B {channels} h{level} w{level}" for level, channels in enumerate(self.channels)]
        named = zip(maps, shapes, strict=True)
        check_shapes(**{f"maps[{level}]": each for level, each in enumerate(named)})
        *finer, coarsest = zip(self.laterals, maps[self.first :], strict=True)
        merged = coarsest[0](coarsest[1])
        for lateral, features in reversed(finer):
            merged = lateral(features) + _enlarged(merged, features.shape[2:])
        height, width = merged.shape[2:]
        merged = _enlarged(merged, (round(height * self.enlarge), round(width * self.enlarge)))
        return LandmarkOutput(self.heatmaps(merged), merged.mean(dim=(2, 3)))


class LandmarkBranch(nn.Module):
    """Predict landmark heat maps by a network of its own with a :class:`LandmarkHead`.

    It is the landmark space of a :class:`LANetModel`. Inference does not need it. It shares nothing
    with the classifier. In the paper the two share the stem and the first stage, see
    :class:`LandmarkClassifier`.

    Args:
        pyramid: name of a timm model, or one made with ``features_only=True``; or any module that
            returns its maps as a sequence or a dict, finest first, such as torchvision's
            ``create_feature_extractor(network, ["layer1", "layer2", "layer3", "layer4"])``.
        num_landmarks: K.
        dim: E, channels of the merged map and width of the embeddings.
        pretrained: load timm's pretrained weights, if ``pyramid`` is a name.
        model_options: options of ``timm.create_model``, if ``pyramid`` is a name, such as
            ``in_chans``, ``img_size``, ``out_indices``.
        input_size: (channels, height, width) of the image to examine a module with that is not of
            timm.

    Shape:
        images ``(B, channels, H, W)`` -> :class:`LandmarkOutput`.

    Raises:
        TypeError: ``pyramid`` is not a name or a module, or ``pretrained`` is not a bool.
        RuntimeError: timm has no model of this name.
        ValueError: an option does not fit, or the network does not return several maps.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> import torch
    >>> branch = LandmarkBranch("resnet10t", num_landmarks=19)
    >>> output = branch(torch.rand(2, 3, 64, 64))
    >>> output.heatmaps.shape, output.embeddings.shape
    (torch.Size([2, 19, 16, 16]), torch.Size([2, 64]))
    """

    __call__: Callable[..., LandmarkOutput]

    def __init__(
        self,
        pyramid: str | nn.Module,
        *,
        num_landmarks: int,
        dim: int = 64,
        pretrained: bool = False,
        model_options: Mapping[str, Any] | None = None,
        input_size: tuple[int, int, int] = (3, 128, 128),
    ) -> None:
        super().__init__()
        pyramid = network_of(
            "pyramid", pyramid, pretrained, model_options or {}, features_only=True
        )
        info: Any = getattr(pyramid, "feature_info", None)
        declared = hasattr(info, "channels")
        if declared:
            channels, strides = info.channels(), info.reduction()
        else:
            channels, strides = _measured(pyramid, input_size)
        self.pyramid = pyramid
        self.head = LandmarkHead(channels, strides, num_landmarks=num_landmarks, dim=dim)
        fit_to(pyramid, self.head)
        self.dim = self.head.dim

    def forward(self, images: Tensor) -> LandmarkOutput:
        return self.head(channels_first(_sequence(self.pyramid(images)), self.pyramid))


def _measured(pyramid: nn.Module, input_size: tuple[int, int, int]) -> tuple[list[int], list[int]]:
    """Return channels and strides of a network's maps, by running a copy on a random image."""
    with undisturbed(), torch.no_grad():
        images = random_images((1, *check_input_size(input_size)), 0)
        with naming_the_size(type(pyramid).__name__, images):
            maps = _sequence(randomized_copy(pyramid, seed=0)(images))
    if isinstance(maps, Tensor) or any(getattr(each, "ndim", None) != 4 for each in maps):
        raise ValueError(
            "pyramid must be a timm model made with features_only=True, or a module that returns "
            f"several maps (B, channels, H, W), got {type(pyramid).__name__}"
        )
    return [each.shape[1] for each in maps], [round(input_size[1] / each.shape[2]) for each in maps]


def _sequence(maps: Any) -> Sequence[Tensor]:
    """Return the maps of a pyramid as a sequence. A Hugging Face backbone names them."""
    maps = getattr(maps, "feature_maps", maps)
    return list(maps.values()) if isinstance(maps, Mapping) else maps


def channels_first(maps: Sequence[Tensor], network: Any) -> Sequence[Tensor]:
    """Return maps of a timm network as (B, C, H, W)."""
    axes = getattr(network, "output_fmt", None)
    if getattr(axes, "value", axes) == "NHWC":
        return [each.permute(0, 3, 1, 2) for each in maps]
    return maps


def _enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
