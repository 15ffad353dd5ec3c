"""Use facial landmarks: layouts, geometry, conversion between layouts, and providers."""

from robustfer.landmarks.conversion import convert_landmarks
from robustfer.landmarks.geometry import mirror_landmarks, resize_landmarks
from robustfer.landmarks.layouts import LandmarkLayout as LandmarkLayout
from robustfer.landmarks.layouts import landmark_layout
from robustfer.landmarks.providers import DatasetLandmarks, LandmarkFile

__all__ = [
    "DatasetLandmarks",
    "LandmarkFile",
    "convert_landmarks",
    "landmark_layout",
    "mirror_landmarks",
    "resize_landmarks",
]
