"""Augmentations of whole batches, on the device where the batch lies.

``MirroredPair`` and ``SingleView`` turn a batch of images into what a method trains on;
``KorniaPipeline`` runs kornia's operations inside them. kornia itself is imported only when a
``KorniaPipeline`` is made.
"""

from robustfer.augmentations.erasing import erase_boxes, sample_boxes
from robustfer.augmentations.pipeline import KorniaPipeline
from robustfer.augmentations.views import MirroredPair, SingleView, Views

__all__ = [
    "KorniaPipeline",
    "MirroredPair",
    "SingleView",
    "Views",
    "erase_boxes",
    "sample_boxes",
]
