"""Augmentations of whole batches, on the device where the batch lies.

``MirroredPair`` and ``SingleView`` turn a batch of images into what a method trains on;
``KorniaPipeline`` runs kornia's operations inside them. ``with_landmarks`` of each takes the
landmarks of the faces along. kornia itself is imported only when a ``KorniaPipeline`` is made.
"""

from robustfer.augmentations._points import LandmarkView
from robustfer.augmentations.erasing import erase_boxes, sample_boxes
from robustfer.augmentations.mirrored_pair import LandmarkViews, MirroredPair, Views
from robustfer.augmentations.pipeline import KorniaPipeline
from robustfer.augmentations.single_view import SingleView

__all__ = [
    "KorniaPipeline",
    "LandmarkView",
    "LandmarkViews",
    "MirroredPair",
    "SingleView",
    "Views",
    "erase_boxes",
    "sample_boxes",
]
