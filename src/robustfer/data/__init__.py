"""Data sets of labelled faces, readers for them, and label noise."""

from robustfer.data.classes import EXPRESSIONS, EXPRESSIONS_WITH_CONTEMPT
from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo_faces import DemoFaces
from robustfer.data.ferplus import FERPlus
from robustfer.data.folder import ImageFolder
from robustfer.data.loading import load
from robustfer.data.noise import symmetric_noise, with_symmetric_noise

__all__ = [
    "EXPRESSIONS",
    "EXPRESSIONS_WITH_CONTEMPT",
    "DemoFaces",
    "FERPlus",
    "ImageFolder",
    "LabeledFaces",
    "load",
    "symmetric_noise",
    "with_symmetric_noise",
]
