"""What is left of a trained model where it is used: images in, logits out."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from robustfer.models._layout import Layout, forward_features
from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.importance import ImportanceClassifier
from robustfer.models.landmark_classifier import LandmarkClassifier
from robustfer.models.lanet import LANetModel
from robustfer.models.outputs import pooled_embeddings


def strip_for_inference(
    model: CAMClassifier | ImportanceClassifier | LandmarkClassifier | LANetModel,
) -> nn.Module:
    """Copy of what makes the logits, in eval mode, without what training alone needs.

    Class maps are not made, and landmarks neither. An importance head is gone: its factor is the
    same for all logits of a sample, so it changes how sure the network seems, not its class (but
    for the classifier's bias, which the paper's form does not weight). Where the network's own head
    was kept, what comes back is that timm model itself, whose weights load without robustfer.

    Args:
        model: a trained model; not changed.

    Returns:
        A module: images ``(B, channels, height, width)`` -> logits ``(B, C)``.

    Raises:
        TypeError: the model is none of the four.

    >>> model = CAMClassifier("resnet18", num_classes=7)
    >>> type(strip_for_inference(ImportanceClassifier(model))).__name__
    'ResNet'
    """
    if isinstance(model, LANetModel):
        model = model.faces
    if isinstance(model, (ImportanceClassifier, LandmarkClassifier)):
        model = model.model
    if not isinstance(model, CAMClassifier):
        raise TypeError(
            "model must be a CAMClassifier, an ImportanceClassifier, a LandmarkClassifier or a "
            f"LANetModel, taken out of any wrapper, got {type(model).__name__}"
        )
    if model.own_head is None:
        return copy.deepcopy(model.backbone).eval()
    return copy.deepcopy(_PooledClassifier(model.backbone, model.own_head, model._layout)).eval()


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
