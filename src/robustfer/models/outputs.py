"""What a method reads from a network, and how your own module computes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import check_floating, check_shapes
from robustfer.functional._precision import autocasts, without_autocast
from robustfer.functional.attention import class_attention


class CAMOutput(NamedTuple):
    """Logits, class maps, features and embeddings; every field is differentiable.

    Attributes:
        logits: (B, C).
        attention: (B, C, H, W) class maps. Without dropout, their mean plus a bias are the logits.
            The classifier is a constant in them. float32 for half features.
        features: (B, D, H, W) last maps of the backbone, before pooling.
        embeddings: (B, D) input of the linear classifier, before dropout.
    """

    logits: Tensor
    attention: Tensor
    features: Tensor
    embeddings: Tensor


def cam_outputs(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: nn.LayerNorm | None = None,
) -> CAMOutput:
    r"""Compute class maps and logits of a network with mean pooling and a linear classifier.

    .. math:: z = W\,\bar f + b, \qquad M_{c,h,w} = \mathrm{sg}(W_c) \cdot f_{h,w}

    With a ``norm`` between pooling and classifier, as in ConvNeXt, of scale and shift
    :math:`\gamma, \beta` and of statistics :math:`\mu, \sigma` of the pooled vector:

    .. math::
        z = W \Bigl(\gamma\,\frac{\bar f - \mu(\bar f)}{\sigma(\bar f)} + \beta\Bigr) + b,
        \qquad M_{c,h,w} = \mathrm{sg}\Bigl(\frac{W_c\,\gamma}{\sigma(\bar f)}\Bigr)
        \cdot (f_{h,w} - \mu(f_{h,w}))

    In both cases ``attention.mean((2, 3)) + class_bias == logits``. The bias is :math:`b`, with a
    norm :math:`b + W \beta`. A loss on the maps trains only the features: :math:`\mathrm{sg}` marks
    constants.

    Use it in your own module like this::

        def forward(self, images):
            features = self.backbone(images)  # (B, D, H, W), before pooling
            return cam_outputs(features, self.classifier.weight, self.classifier.bias)

    Args:
        features: last maps, before pooling.
        weight: weight of the linear classifier; flatten that of a 1x1 convolution.
        bias: bias of the classifier, if it has one.
        norm: layer norm over the channels between pooling and classifier, if there is one.

    Shape:
        features ``(B, D, H, W)``, weight ``(C, D)``, bias ``(C)`` -> :class:`CAMOutput`.

    Raises:
        TypeError: an argument is not a tensor, or ``norm`` is another norm.
        ValueError: shapes or devices do not fit, dtypes differ outside autocast, or ``norm`` is not
            over D channels.

    >>> classifier = nn.Linear(16, 7)
    >>> output = cam_outputs(torch.rand(2, 16, 4, 4), classifier.weight, classifier.bias)
    >>> output.attention.shape
    torch.Size([2, 7, 4, 4])
    >>> pooled = output.attention.mean((2, 3)) + classifier.bias
    >>> torch.allclose(pooled, output.logits, atol=1e-6)
    True
    """
    check_shapes(features=(features, "B D H W"), weight=(weight, "C D"))
    check_floating(features=features, weight=weight)
    if bias is not None:
        check_shapes(weight=(weight, "C D"), bias=(bias, "C"))
    if norm is not None and not isinstance(norm, nn.LayerNorm):
        raise TypeError(f"norm must be a torch.nn.LayerNorm, got {type(norm).__name__}")
    if norm is not None and tuple(norm.normalized_shape) != (features.shape[1],):
        raise ValueError(
            f"norm must be over the {features.shape[1]} channels of features, "
            f"got normalized_shape {tuple(norm.normalized_shape)}"
        )
    _check_dtypes(features, weight, bias, norm)
    embeddings = pooled_embeddings(features, norm)
    logits = F.linear(embeddings, weight, bias)
    return CAMOutput(logits, class_maps(features, weight, norm), features, embeddings)


def check_cam_output(output: object, model: nn.Module) -> CAMOutput:
    """Return ``output``, or raise if it is not a CAMOutput."""
    if isinstance(output, CAMOutput):
        return output
    raise TypeError(
        f"model must return a CAMOutput, got {type(output).__name__} from {type(model).__name__}; "
        "return robustfer.models.cam_outputs(...) from its forward, or wrap a network that returns "
        "maps in CAMClassifier"
    )


def pooled_embeddings(features: Tensor, norm: nn.LayerNorm | None) -> Tensor:
    """Return the input (B, D) of the classifier: pooled maps, normalised with ``norm``."""
    pooled = features.mean(dim=(2, 3))
    if norm is None:
        return pooled
    # Not norm(pooled), because timm's LayerNorm2d needs four axes.
    return F.layer_norm(pooled, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def class_maps(features: Tensor, weight: Tensor, norm: nn.LayerNorm | None) -> Tensor:
    """Return class maps (B, C, H, W), see :func:`cam_outputs` for the equations."""
    if norm is None:
        return class_attention(features, weight)
    dtype = torch.promote_types(features.dtype, torch.float32)
    scaled = weight.detach().to(dtype)
    if norm.weight is not None:
        scaled = scaled * norm.weight.detach().to(dtype)
    # W (f - mean_c f) == (W - mean_c W) f, and the weight is smaller than the maps.
    centred = scaled - scaled.mean(dim=1, keepdim=True)
    pooled = features.detach().mean(dim=(2, 3), dtype=dtype)
    deviation = (pooled.var(dim=1, correction=0) + norm.eps).sqrt()
    return class_attention(features, centred) / deviation[:, None, None, None]


def class_bias(weight: Tensor, bias: Tensor | None, norm: nn.LayerNorm | None) -> Tensor:
    """Return (C), the difference of logits and mean of the class maps, a constant."""
    total = weight.new_zeros(len(weight)) if bias is None else bias.detach()
    if norm is not None and norm.bias is not None:
        with without_autocast(weight):
            total = total + weight.detach() @ norm.bias.detach()
    return total


def _check_dtypes(
    features: Tensor, weight: Tensor, bias: Tensor | None, norm: nn.LayerNorm | None
) -> None:
    if autocasts(features):
        return
    scale = None if norm is None else norm.weight
    for name, tensor in (("weight", weight), ("bias", bias), ("the scale of norm", scale)):
        if tensor is not None and tensor.dtype != features.dtype:
            raise ValueError(
                f"{name} must have the dtype of features, {features.dtype}, outside autocast, "
                f"got {tensor.dtype}"
            )
