"""A classifier and a landmark branch that share the first stages (LA-Net)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timm.models import FeatureListNet
from torch import Tensor, nn

from robustfer._copying import independent_copy
from robustfer.models._layout import forward_features, outputs_of, record
from robustfer.models._placing import fit_to
from robustfer.models._probe import random_images, randomized_copy, undisturbed
from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.landmark_branch import LandmarkHead, channels_first


class LandmarkClassifierOutput(NamedTuple):
    """The fields of a :class:`CAMOutput`, and the output of the landmark branch.

    Attributes:
        heatmaps: (B, K, h, w) of the landmarks at stride 4, without activation.
        landmark_embeddings: (B, E) mean over places of the maps before the last layer.
    """

    logits: Tensor
    attention: Tensor
    features: Tensor
    embeddings: Tensor
    heatmaps: Tensor
    landmark_embeddings: Tensor


class LandmarkClassifier(nn.Module):
    """Add a landmark branch to a classifier, as one module to train, save and wrap.

    The two share the stem and the first stage, which run once. The branch continues with copies of
    the classifier's later stages and a :class:`LandmarkHead`, so load pretrained weights first.
    Inference does not need the branch: :func:`robustfer.models.strip_for_inference` removes it.

    Each stage must read the stage before it, and the first must have stride 4, as in ResNet,
    ConvNeXt, EfficientNet and Swin. The constructor checks this by running a copy on random images.
    :class:`LandmarkBranch`, which shares nothing, takes any pyramid of maps.

    Args:
        model: the classifier, which becomes a part of this module.
        num_landmarks: K.
        dim: E, channels of the merged map and width of the landmark embeddings.
        pyramid: network for the later stages instead of copies: a timm network made with
            ``features_only=True``, changed in place. Its first stages are removed. Its maps of
            stride 4 must have the channels of the classifier's.

    Shape:
        images ``(B, channels, H, W)`` -> :class:`LandmarkClassifierOutput`.

    Raises:
        TypeError: ``model`` is not a CAMClassifier.
        ValueError: the stages do not follow each other, or an option does not fit.
        RuntimeError: at a call, gradient checkpointing of the classifier skips the shared stage.

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
                "model must be a CAMClassifier around a timm network, without a wrapper, "
                f"got {type(model).__name__}; for another network use a LandmarkBranch"
            )
        shared, width = _stage_of_stride_4(model)
        if pyramid is None:
            _check_that_stages_follow(model, shared)
            pyramid = _pyramid(model.backbone)
        elif not isinstance(pyramid, FeatureListNet):
            raise ValueError(
                "pyramid must be a timm network made with features_only=True whose stages follow "
                f"each other (FeatureListNet), got {type(pyramid).__name__}"
            )
        strides, channels = pyramid.feature_info.reduction(), pyramid.feature_info.channels()
        first = strides.index(4) if 4 in strides else None
        if first is None or channels[first] != width:
            raise ValueError(
                f"pyramid must give maps of stride 4 with {width} channels, like {model.name}, "
                f"got strides {strides} with channels {channels}"
            )
        self.model = model
        self.dim = dim
        self.later = _after(pyramid, pyramid.feature_info.module_name()[first])
        self.head = LandmarkHead(
            channels[first:], strides[first:], num_landmarks=num_landmarks, dim=dim
        )
        fit_to(model, self.head)
        self.shared = shared
        record(model.backbone, shared)

    def forward(self, images: Tensor) -> LandmarkClassifierOutput:
        with outputs_of(self.model.backbone, [self.shared]) as maps:
            logits, attention, features, embeddings = self.model(images)
        if not maps:
            raise RuntimeError(
                f"{self.shared} of {self.model.name} must run as a module, but gradient "
                "checkpointing skips its call; switch it off for the classifier"
            )
        maps += self.later(maps[0])
        heatmaps, landmark_embeddings = self.head(channels_first(maps, self.later))
        return LandmarkClassifierOutput(
            logits, attention, features, embeddings, heatmaps, landmark_embeddings
        )


def _stage_of_stride_4(model: CAMClassifier) -> tuple[str, int]:
    """Return path and channels of the stage of stride 4, as timm declares them."""
    for stage in getattr(model.backbone, "feature_info", None) or ():
        if stage["reduction"] == 4:
            return stage["module"], stage["num_chs"]
    raise _refusal(model)


def _pyramid(backbone: Any) -> FeatureListNet:
    """Return a copy of a network as a list of stages."""
    network = independent_copy(backbone)
    names = [stage["module"] for stage in network.feature_info]
    return FeatureListNet(
        network,
        out_indices=tuple(range(len(names))),
        output_fmt=getattr(network, "output_fmt", "NCHW"),
        flatten_sequential=any("." in name for name in names),
    )


def _after(pyramid: FeatureListNet, last: str) -> FeatureListNet:
    """Return the stages of a pyramid after the last shared one."""
    for part in list(pyramid):
        del pyramid[part]
        if part == last.replace(".", "_"):
            break
    return pyramid


def _check_that_stages_follow(model: CAMClassifier, shared: str) -> None:
    """Check that a copy's later stages, run after the shared one, give the network's maps."""
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
        "model must wrap a timm network whose stages follow each other, the first of stride 4, "
        f"like ResNet or ConvNeXt, got {model.name}; use a LandmarkBranch, which takes any pyramid"
    )
