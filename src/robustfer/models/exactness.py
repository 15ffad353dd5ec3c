"""Measure whether class maps are exact: mean of map plus bias are the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from robustfer._checks import check_seed, check_whole_number
from robustfer._wrappers import unwrapped
from robustfer.models._probe import (
    TOLERANCE,
    random_images,
    randomized_copy,
    relative_error,
    undisturbed,
)
from robustfer.models.outputs import check_cam_output


@dataclass(frozen=True)
class CAMExactness:
    """What :func:`cam_exactness` measured.

    Attributes:
        exact: whether ``error`` is at most 1e-5.
        error: largest ``|attention.mean((2, 3)) + class_bias - logits|``, relative to the largest
            logit.
        name: name of the backbone, or the class of your own module.
        head: the kind of head, see :class:`robustfer.models.CAMClassifier`; ``"module"`` for your
            own module.
    """

    exact: bool
    error: float
    name: str
    head: str


def cam_exactness(
    model: nn.Module,
    *,
    image_size: int | tuple[int, ...] | None = None,
    batch: int = 2,
    seed: int = 0,
) -> CAMExactness:
    r"""Measure whether the means of the class maps plus the bias are the logits.

    .. math:: \max_{n,c} \bigl|\tfrac{1}{HW} \textstyle\sum_{h,w} M_{n,c,h,w} + b_c - z_{n,c}
        \bigr| \;/\; \max_{n,c} |z_{n,c}|

    It runs a copy on random images, on the CPU, in float32 and eval mode. The copy's norms and its
    ``get_classifier()`` get random weights, because ones and zeros can hide a wrong map. The model
    and the global random state do not change.

    Args:
        model: a :class:`CAMClassifier`, or any module that returns a :class:`CAMOutput`. Without a
            method ``class_bias()``, the bias is the mean difference over the images.
        image_size: side, (height, width), or (channels, height, width) of the images in pixels;
            default: the model's ``input_size``.
        batch: number of random images, at least 2 for a model without ``class_bias()``.
        seed: seed of the images and the random parameters.

    Raises:
        TypeError: the model does not return a :class:`CAMOutput`.
        ValueError: ``batch`` is too small, or ``image_size`` does not fit.

    >>> from robustfer.models import CAMClassifier
    >>> cam_exactness(CAMClassifier("resnet10t", num_classes=7)).exact
    True
    """
    model = unwrapped(model)
    has_bias = hasattr(model, "class_bias")
    batch = check_whole_number("batch", batch, 1 if has_bias else 2)
    seed = check_seed(seed)
    shape = _image_shape(getattr(model, "input_size", None), image_size)
    with undisturbed(), torch.no_grad():
        probe: Any = randomized_copy(model, seed)
        output = probe(random_images((batch, *shape), seed))
        if not (hasattr(output, "logits") and hasattr(output, "attention")):
            output = check_cam_output(output, model)
        pooled = output.attention.mean(dim=(2, 3))
        bias = probe.class_bias() if has_bias else (output.logits - pooled).mean(dim=0)
        error = relative_error(output.attention, bias, output.logits)
    return CAMExactness(
        error <= TOLERANCE,
        error,
        getattr(model, "name", type(model).__name__),
        getattr(model, "head_kind", "module"),
    )


def _image_shape(
    own: tuple[int, int, int] | None, asked: int | tuple[int, ...] | None
) -> tuple[int, int, int]:
    """Return (channels, height, width) of the images."""
    asked = own if asked is None else (asked, asked) if isinstance(asked, int) else tuple(asked)
    if asked is not None and own is not None and len(asked) == 2:
        asked = own[0], *asked
    if asked is None or len(asked) != 3:
        raise ValueError(
            "image_size must be (channels, height, width) for a module without input_size, got "
            f"{asked}"
        )
    return asked
