"""A classifier with a landmark branch on the stages that the two share (LA-Net)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.models import FeatureListNet
from torch import Tensor, nn

from robustfer._copying import independent_copy
from robustfer.models._layout import forward_features, outputs_of
from robustfer.models._probe import random_images, randomized_copy, undisturbed
from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.landmark_branch import LandmarkHead, channels_first


class LandmarkClassifierOutput(NamedTuple):
    """What a :class:`CAMOutput` holds, and what the landmark branch makes of the same images.

    Attributes:
        heatmaps: (B, K, h, w) of the landmarks at a quarter of the image, without activation.
        landmark_embeddings: (B, E) mean of the maps that the heat maps are made of.
    """

    logits: Tensor
    attention: Tensor
    features: Tensor
    embeddings: Tensor
    heatmaps: Tensor
    landmark_embeddings: Tensor


class LandmarkClassifier(nn.Module):
    """A classifier and a landmark branch beside it, as one module to train, save and wrap.

    The two share the stem and the first stage, which run once. The branch goes on with copies of
    the classifier's later stages and a :class:`LandmarkHead`: load pretrained weights first.
    Inference does not need the branch: :func:`robustfer.models.strip_for_inference` removes it.

    Stages must follow each other, the first of stride 4, as those of ResNet, ConvNeXt, EfficientNet
    and Swin do. The constructor runs a copy on random images to see that they do.
    :class:`LandmarkBranch`, which shares nothing, takes any pyramid of maps.

    Args:
        model: the classifier, part of this from now on.
        num_landmarks: K.
        dim: E, channels of the merged map and width of the landmark embeddings.
        pyramid: later stages of another origin than a copy, such as weights drawn anew: a timm
            network made with ``features_only=True``, changed in place. Its first stages go; its
            maps of stride 4 must have the channels of the classifier's.

    Shape:
        images ``(B, channels, H, W)`` -> :class:`LandmarkClassifierOutput`.

    Raises:
        TypeError: the model is not a CAMClassifier.
        ValueError: the stages do not follow each other, or an option does not fit.
        RuntimeError: at a call: the classifier's gradient checkpointing goes around its stages.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> classifier = CAMClassifier("resnet10t", num_classes=7)
    >>> output = LandmarkClassifier(classifier, num_landmarks=19)(torch.rand(2, 3, 64, 64))
    >>> output.logits.shape, output.embeddings.shape
    (torch.Size([2, 7]), torch.Size([2, 512]))
    >>> output.heatmaps.shape, output.landmark_embeddings.shape
    (torch.Size([2, 19, 16, 16]), torch.Size([2, 64]))
    """

    __call__: Callable[..., LandmarkClassifierOutput]

    def __init__(
        self,
        model: CAMClassifier,
        *,
        num_landmarks: int,
        dim: int = 64,
        pyramid: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, CAMClassifier):
            raise TypeError(
                "model must be a CAMClassifier around a timm network, taken out of any wrapper, "
                f"got {type(model).__name__}; beside another network train a LandmarkBranch"
            )
        shared, width = _stage_of_stride_4(model)
        if pyramid is None:
            _check_that_stages_follow(model, shared)
            pyramid = _pyramid(model.backbone)
        elif not isinstance(pyramid, FeatureListNet):
            raise ValueError(
                "pyramid must be a timm network made with features_only=True whose stages follow "
                f"each other, got {type(pyramid).__name__}"
            )
        strides, channels = pyramid.feature_info.reduction(), pyramid.feature_info.channels()
        first = strides.index(4) if 4 in strides else None
        if first is None or channels[first] != width:
            raise ValueError(
                f"pyramid must give maps of stride 4 with {width} channels, as {model.name} does, "
                f"got strides {strides} with channels {channels}"
            )
        self.model = model
        self.dim = dim
        self.later = _after(pyramid, pyramid.feature_info.module_name()[first])
        self.head = LandmarkHead(
            channels[first:], strides[first:], num_landmarks=num_landmarks, dim=dim
        )
        self.head.to(next(model.parameters()).device)
        self.shared = shared

    def forward(self, images: Tensor) -> LandmarkClassifierOutput:
        with outputs_of(self.model.backbone, [self.shared]) as maps:
            logits, attention, features, embeddings = self.model(images)
        if not maps:
            raise RuntimeError(
                f"{self.shared} of {self.model.name} was not called: gradient checkpointing goes "
                "around its stages; switch it off for the classifier"
            )
        maps += self.later(maps[0])
        heatmaps, landmark_embeddings = self.head(channels_first(maps, self.later))
        return LandmarkClassifierOutput(
            logits, attention, features, embeddings, heatmaps, landmark_embeddings
        )


def _stage_of_stride_4(model: CAMClassifier) -> tuple[str, int]:
    """Return path and channels of the stage that the branch goes on from, as timm tells them."""
    for stage in getattr(model.backbone, "feature_info", None) or ():
        if stage["reduction"] == 4:
            return stage["module"], stage["num_chs"]
    raise _refusal(model)


def _pyramid(backbone: Any) -> FeatureListNet:
    """Return a copy of a network as its stages, one after the other."""
    network = independent_copy(backbone)
    names = [stage["module"] for stage in network.feature_info]
    return FeatureListNet(
        network,
        out_indices=tuple(range(len(names))),
        output_fmt=getattr(network, "output_fmt", "NCHW"),
        flatten_sequential=any("." in name for name in names),
    )


def _after(pyramid: FeatureListNet, last: str) -> FeatureListNet:
    """Return the stages of a pyramid without those up to the last one that is shared."""
    for part in list(pyramid):
        del pyramid[part]
        if part == last.replace(".", "_"):
            break
    return pyramid


def _check_that_stages_follow(model: CAMClassifier, shared: str) -> None:
    """Run the later stages of a copy on the shared one's maps, and compare with the network's."""
    with undisturbed():
        probe: Any = randomized_copy(model, seed=0).backbone
    names = [stage["module"] for stage in probe.feature_info]
    names = names[names.index(shared) :]
    images = random_images((2, *model.input_size), seed=0)
    try:
        later = _after(_pyramid(probe), shared)
        with undisturbed(), torch.no_grad(), outputs_of(probe, names) as maps:
            forward_features(probe, images)
            again = later(maps[0])
        follow = len(maps) == len(names) and all(map(torch.allclose, again, maps[1:]))
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError) as error:
        raise _refusal(model) from error
    if not follow:
        raise _refusal(model)


def _refusal(model: CAMClassifier) -> ValueError:
    return ValueError(
        f"model must wrap a timm network whose stages follow each other, the first of stride 4, as "
        f"those of ResNet and ConvNeXt do; {model.name} has none. LandmarkBranch takes any pyramid"
    )
