"""Augmentations of whole batches, on the device of the batch.

``MirroredPair`` and ``SingleView`` make the views that a method trains on. ``KorniaPipeline`` runs
kornia's operations inside them. Their ``with_landmarks`` moves the landmarks of the faces too.
``MixUp`` and ``CutMix`` mix the images of a view. kornia is imported only when a ``KorniaPipeline``
is made.
"""

from robustfer.augmentations._points import LandmarkView as LandmarkView
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
