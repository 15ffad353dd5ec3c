"""What a classifier makes of a whole data set."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from examples.train.data import Images
from examples.train.views import Views

_AT_ONCE = 256


@torch.no_grad()
def predict(fabric: Fabric, classifier: nn.Module, views: Views, images: Images) -> Tensor:
    """Return the logits of all images (N, C) on the CPU; the processes share the work."""
    classifier.eval()
    own = torch.arange(len(images))[fabric.global_rank :: fabric.world_size]
    parts = list(own.split(_AT_ONCE))
    logits: Tensor | None = None
    for rows, pixels in zip(parts, images.batches(parts), strict=True):
        with fabric.autocast():
            found = classifier(views.plain(pixels)).logits
        if logits is None:
            logits = torch.zeros(len(images), found.shape[1], device=found.device)
        logits[rows.to(found.device)] = found.to(logits.dtype)
    assert logits is not None
    return fabric.all_reduce(logits, reduce_op="sum").cpu()
