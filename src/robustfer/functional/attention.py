"""Class attention maps and their consistency under mirroring (EAC)."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import check_floating, check_shapes
from robustfer.functional._precision import Reduction, full_precision, reduce, without_autocast


def class_attention(features: Tensor, weight: Tensor) -> Tensor:
    r"""Return the activation map of every class, with the classifier's weight as a constant.

    .. math:: M_{n,c,h,w} = \sum_d \mathrm{sg}(W_{c,d})\, F_{n,d,h,w}

    where sg marks a constant. Maps are not rectified or normalised, and have no bias. After average
    pooling and a linear classifier, ``logits == attention.mean((2, 3)) + bias``. A loss on the maps
    trains the backbone through ``features``, never the classifier.

    Args:
        features: :math:`F`, last feature maps of the backbone, before pooling.
        weight: :math:`W`, weight of the linear classifier; detached inside.

    Shape:
        features ``(B, D, H, W)``, weight ``(C, D)`` -> ``(B, C, H, W)``; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.

    Reference:
        Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016;
        Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial
        Expression Recognition, ECCV 2022.

    >>> features = torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)
    >>> class_attention(features, torch.tensor([[1.0, 1.0], [0.0, -1.0]])).flatten()
    tensor([ 3., -2.])
    """
    sizes = check_shapes(features=(features, "B D H W"), weight=(weight, "C D"))
    check_floating(features=features, weight=weight)
    features = full_precision(features)
    weight = weight.detach().to(features.dtype)
    # Autocast would round the maps to half precision, and losses use their small differences.
    with without_autocast(features):
        # bmm, because matmul would copy the features to fold the batch into one product.
        maps = torch.bmm(weight.expand(sizes["B"], -1, -1), features.flatten(2))
    return maps.reshape(sizes["B"], sizes["C"], sizes["H"], sizes["W"])


def attention_consistency(
    attention: Tensor, attention_flipped: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    r"""Return the mean squared difference between class maps and those of the mirror image.

    .. math::
        \ell_n = \frac{1}{CHW} \sum_{c,h,w} (M_{n,c,h,w} - M'_{n,c,h,W-1-w})^2

    Gradients reach both maps. Maps of 2x2 places or fewer have almost nothing to compare: a warning
    says this once, except when compiling.

    Args:
        attention: :math:`M`, class maps of the images.
        attention_flipped: :math:`M'`, class maps of the mirrored images, not mirrored back.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"`` for a value per sample.

    Shape:
        both ``(B, C, H, W)`` -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, or the reduction is unknown.

    Reference:
        Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial
        Expression Recognition, ECCV 2022.

    >>> maps = torch.tensor([1.0, 2.0, 4.0]).reshape(1, 1, 1, 3)
    >>> attention_consistency(maps, maps.flip(-1))
    tensor(0.)
    >>> attention_consistency(maps, maps)
    tensor(6.)
    """
    sizes = check_shapes(
        attention=(attention, "B C H W"), attention_flipped=(attention_flipped, "B C H W")
    )
    # The compiler cannot trace a warning.
    if sizes["H"] <= 2 and sizes["W"] <= 2 and not torch.compiler.is_compiling():
        _warn_of_few_places()
    check_floating(attention=attention, attention_flipped=attention_flipped)
    maps, mirrored = full_precision(attention), full_precision(attention_flipped).flip(-1)
    # The same as the mean of the values per sample, in one kernel.
    if reduction == "mean":
        return F.mse_loss(maps, mirrored)
    return reduce((maps - mirrored).square().mean(dim=(1, 2, 3)), reduction)


@lru_cache
def _warn_of_few_places() -> None:
    warnings.warn(
        "attention holds maps of 2x2 places or fewer, which leave attention consistency almost "
        "nothing to compare (at 1x1 nothing); enlarge the images, or lower the stride of the "
        "network (timm's ResNets: model_options={'output_stride': 8})",
        stacklevel=3,
    )
