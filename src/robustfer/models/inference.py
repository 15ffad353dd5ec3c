"""Keep only what inference needs of a trained model: images in, logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustfer._copying import independent_copy
from robustfer._wrappers import unwrapped
from robustfer.models._layout import Layout, record, unrecord
from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.importance import ImportanceClassifier
from robustfer.models.landmark_classifier import LandmarkClassifier
from robustfer.models.lanet import LANetModel
from robustfer.models.outputs import check_cam_output, pooled_embeddings


def strip_for_inference(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode that computes only the logits.

    It computes no class maps and no landmarks, and drops an importance head. The logits are those
    without importance weighting. If the network kept its own head, the result is a copy of that
    network. For a timm model, :func:`robustfer.checkpoint.save_model` then writes a file for
    ``timm.create_model(name, num_classes=7, checkpoint_path=...)``. Your own module is kept whole
    and returns its logits.

    Args:
        model: a trained model, which does not change: a :class:`CAMClassifier`, an
            :class:`ImportanceClassifier`, a :class:`LandmarkClassifier`, a :class:`LANetModel`, or
            any module that returns a :class:`CAMOutput`.

    Returns:
        A module: images ``(B, channels, height, width)`` -> logits ``(B, C)``.

    Raises:
        TypeError: ``model`` is not a module, or at a call it does not return a :class:`CAMOutput`.

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
    while isinstance(model, (ImportanceClassifier, LandmarkClassifier, LANetModel)):
        model = unwrapped(model.model)
    if not isinstance(model, CAMClassifier):
        kept: nn.Module = _Logits(model)
    elif model.own_head is None:
        named = model._layout.named_logits
        kept = _Logits(model.backbone) if named else model.backbone
    else:
        kept = _PooledClassifier(model.backbone, model.own_head, model._layout)
    # A copy made in inference mode could not be used outside of it.
    with torch.inference_mode(False):
        copied = independent_copy(kept).eval()
    unrecord(copied)
    if isinstance(copied, _PooledClassifier) and copied._layout.tap is not None:
        record(copied.backbone, copied._layout.tap)
    return copied


class _Logits(nn.Module):
    """Return only the logits of a module's CAMOutput, or of a Hugging Face classifier."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(images)
        if isinstance(output, Tensor) or not hasattr(output, "logits"):
            output = check_cam_output(output, self.model)
        logits: Tensor = output.logits
        return logits


class _PooledClassifier(nn.Module):
    """A backbone, mean pooling and a linear layer."""

    def __init__(self, backbone: nn.Module, head: nn.Linear, layout: Layout) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._layout = layout

    def forward(self, images: Tensor) -> Tensor:
        features = self._layout.read(self.backbone, images)[1]
        features = self._layout.maps(features, self.backbone, images)
        logits: Tensor = self.head(pooled_embeddings(features, None))
        return logits
