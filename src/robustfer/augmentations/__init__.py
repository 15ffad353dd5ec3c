"""Augmentations of whole batches, on the device where the batch lies.

``MirroredPair`` and ``SingleView`` turn a batch of images into what a method trains on;
``KorniaPipeline`` runs kornia's operations inside them. ``with_landmarks`` of each takes the
landmarks of the faces along. ``MixUp`` and ``CutMix`` mix the images that a view returns. kornia
itself is imported only when a ``KorniaPipeline`` is made.
"""

from robustfer.augmentations._points import LandmarkView as LandmarkView
from robustfer.augmentations.erasing import erase_boxes as erase_boxes
from robustfer.augmentations.erasing import sample_boxes as sample_boxes
from robustfer.augmentations.mirrored_pair import LandmarkViews as LandmarkViews
from robustfer.augmentations.mirrored_pair import MirroredPair
from robustfer.augmentations.mirrored_pair import Views as Views
from robustfer.augmentations.mixing import CutMix, MixUp
from robustfer.augmentations.mixing import MixedBatch as MixedBatch
from robustfer.augmentations.pipeline import KorniaPipeline
from robustfer.augmentations.single_view import SingleView

__all__ = [
    "CutMix",
    "KorniaPipeline",
    "MirroredPair",
    "MixUp",
    "SingleView",
]
