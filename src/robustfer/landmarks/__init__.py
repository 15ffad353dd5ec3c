"""Facial landmarks: layouts, geometry, conversion between layouts, and where they come from."""

from robustfer.landmarks.conversion import convert_landmarks
from robustfer.landmarks.geometry import mirror_landmarks, resize_landmarks, swap_left_right
from robustfer.landmarks.layouts import LandmarkLayout, landmark_layout
from robustfer.landmarks.providers import CallableLandmarks, DatasetLandmarks, LandmarkFile
from robustfer.landmarks.providers import LandmarkProvider as LandmarkProvider

__all__ = [
    "CallableLandmarks",
    "DatasetLandmarks",
    "LandmarkFile",
    "LandmarkLayout",
    "convert_landmarks",
    "landmark_layout",
    "mirror_landmarks",
    "resize_landmarks",
    "swap_left_right",
]
