"""What is left of a trained model where it is used: images in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustfer._copying import independent_copy
from robustfer._wrappers import unwrapped
from robustfer.models._layout import Layout, forward_features
from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.importance import ImportanceClassifier
from robustfer.models.landmark_classifier import LandmarkClassifier
from robustfer.models.lanet import LANetModel
from robustfer.models.outputs import check_cam_output, pooled_embeddings


def strip_for_inference(model: nn.Module) -> nn.Module:
    """Copy what makes the logits, in eval mode, without what only training needs.

    Class maps are not made, and landmarks neither. An importance head is gone: its factor is the
    same for all logits of a sample, so it changes how sure the network seems, not its class (but
    for the classifier's bias, which the paper's form does not weight). Where the network's own head
    was kept, what comes back is that timm model itself, whose weights load without robustfer.
    Of a module of your own everything is kept, and its logits come back.

    Args:
        model: a trained model, not changed. A :class:`CAMClassifier`, an
            :class:`ImportanceClassifier`, a :class:`LandmarkClassifier`, a :class:`LANetModel`, or
            any module that returns a :class:`CAMOutput`.

    Returns:
        A module: images ``(B, channels, height, width)`` -> logits ``(B, C)``.

    Raises:
        TypeError: the model is not a module; or, at a call, it returns something else.

    >>> model = CAMClassifier("resnet18", num_classes=7)
    >>> type(strip_for_inference(ImportanceClassifier(model))).__name__
    'ResNet'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            "model must be a CAMClassifier or another module that returns a CAMOutput, got "
            f"{type(model).__name__}"
        )
    model = unwrapped(model)
    if isinstance(model, LANetModel):
        model = unwrapped(model.faces)
    if isinstance(model, (ImportanceClassifier, LandmarkClassifier)):
        model = unwrapped(model.model)
    if not isinstance(model, CAMClassifier):
        kept: nn.Module = _Logits(model)
    elif model.own_head is None:
        kept = model.backbone
    else:
        kept = _PooledClassifier(model.backbone, model.own_head, model._layout)
    with torch.inference_mode(False):  # a copy made inside could not be used outside
        return independent_copy(kept).eval()


class _Logits(nn.Module):
    """The logits of a module that returns a CAMOutput."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return check_cam_output(self.model(images), self.model).logits


class _PooledClassifier(nn.Module):
    """A backbone, mean pooling and a linear layer."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, layout: Layout) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._layout = layout

    def forward(self, images: Tensor) -> Tensor:
        raw = forward_features(self.backbone, images)
        features = self._layout.maps(raw, self.backbone, images)
        logits: Tensor = self.head(pooled_embeddings(features, None))
        return logits
