"""Whether class maps keep their promise: mean of map plus bias are the logits."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from robustfer._checks import check_whole_number

if TYPE_CHECKING:
    from robustfer.models.cam_classifier import CAMClassifier

TOLERANCE = 1e-5
"""Largest error of exact maps, relative to the largest logit; float32 leaves about 1e-6."""

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class CAMExactness:
    """What :func:`cam_exactness` measured.

    Attributes:
        exact: whether ``error`` is at most 1e-5.
        error: largest of ``|attention.mean((2, 3)) + class_bias - logits|``, relative to the
            largest logit.
        name: the backbone.
        head: the kind of head, see :class:`robustfer.models.CAMClassifier`.
    """

    exact: bool
    error: float
    name: str
    head: str


def cam_exactness(
    model: CAMClassifier,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch: int = 2,
    seed: int = 0,
) -> CAMExactness:
    r"""Measure whether class maps averaged over places, plus the bias, are the logits.

    .. math:: \max_{n,c} \bigl|\tfrac{1}{HW} \textstyle\sum_{h,w} M_{n,c,h,w} + b_c - z_{n,c}
        \bigr| \;/\; \max_{n,c} |z_{n,c}|

    It runs on a copy, on the CPU, in float32 and eval mode, on random images. The copy's
    classifier and the scales and shifts of its norms are drawn anew, since a wrong map can look
    right while they are one and zero. The model and the global random state stay as they are.

    Args:
        model: the wrapped network.
        image_size: side, or (height, width), of the images in pixels; by default that of the
            model's own examination at construction.
        batch: number of random images.
        seed: of the images and of the drawn parameters.

    Raises:
        ValueError: ``batch`` is no positive whole number.

    >>> from robustfer.models import CAMClassifier
    >>> cam_exactness(CAMClassifier("resnet10t", num_classes=7)).exact
    True
    """
    batch = check_whole_number("batch", batch, 1)
    seed = check_whole_number("seed", seed, 0, 2**63 - 1)
    channels, height, width = model.input_size
    if image_size is not None:
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    with torch.no_grad(), undisturbed():
        probe = randomized_copy(model, seed)
        output = probe(random_images((batch, channels, height, width), seed))
        error = relative_error(output.attention, probe.class_bias(), output.logits)
    return CAMExactness(error <= TOLERANCE, error, model.name, model.head_kind)


def relative_error(attention: Tensor, bias: Tensor, logits: Tensor) -> float:
    """Return the largest ``|mean of map + bias - logit|``, relative to the largest logit."""
    difference = attention.mean(dim=(2, 3)) + bias - logits
    return float(difference.abs().max() / logits.abs().max().clamp_min(1e-30))


def random_images(shape: tuple[int, int, int, int], seed: int) -> Tensor:
    """Return standard normal images on the CPU, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Take no random numbers from the program, and no notice of its autocast and device."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.autocast("cpu", enabled=False),
        torch.device("cpu"),
    ):
        yield


def randomized_copy(module: _Module, seed: int) -> _Module:
    """Return a float32 copy in eval mode on the CPU, its norms and classifier drawn anew.

    Fresh norms scale by one and shift by zero, and some classifiers start at zero: all of that
    would hide a head that is read wrongly.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = copy.deepcopy(module).cpu().float().eval()
    with torch.no_grad():
        for part in probe.modules():
            if "norm" not in type(part).__name__.lower():
                continue
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.ndim == 1 and name == "bias":
                    parameter.normal_(0.0, 0.5, generator=generator)
                elif parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5, generator=generator)
        classifier = getattr(probe, "get_classifier", lambda: None)()
        if isinstance(classifier, nn.Module):
            for parameter in classifier.parameters():
                parameter.normal_(generator=generator)
    return probe
