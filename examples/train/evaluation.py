"""Predict a whole data set."""

from __future__ import annotations

import math

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from examples.train.data import Images
from examples.train.views import Views

_AT_ONCE = 256


@torch.no_grad()
def predict(
    fabric: Fabric, classifier: nn.Module, views: Views, images: Images, *, mirrored: bool = False
) -> Tensor:
    """Return the logits of all images (N, C) on the CPU. The processes share the work.

    Args:
        fabric: connects the processes.
        classifier: the network, or its average.
        views: normalises the images.
        images: the images to predict.
        mirrored: predict their mirror images instead.
    """
    classifier.eval()
    own = torch.arange(len(images))[fabric.global_rank :: fabric.world_size]
    parts = list(own.split(_AT_ONCE))
    logits: Tensor | None = None
    for rows, pixels in zip(parts, images.batches(parts), strict=True):
        with fabric.autocast():
            found = classifier(views.plain(pixels.flip(-1) if mirrored else pixels)).logits
        if logits is None:
            logits = torch.zeros(len(images), found.shape[1], device=found.device)
        logits[rows.to(found.device)] = found.to(logits.dtype)
    assert logits is not None
    return fabric.all_reduce(logits, reduce_op="sum").cpu()


def mean_prediction(logits: Tensor, other: Tensor) -> Tensor:
    """Return the logarithm of the mean probabilities of two predictions."""
    return torch.logaddexp(logits.log_softmax(1), other.log_softmax(1)) - math.log(2)
