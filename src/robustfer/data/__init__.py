"""Data sets of labelled faces, readers for them, and label noise."""

from robustfer.data.affectnet import AffectNet
from robustfer.data.classes import (
    EXPRESSIONS,
    EXPRESSIONS_WITH_CONTEMPT,
    NUMBERINGS,
    canonical_name,
    class_order,
    renumber,
    translate_classes,
)
from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo_faces import DemoFaces
from robustfer.data.ferplus import FERPlus
from robustfer.data.folder import ImageFolder
from robustfer.data.label_table import LabelTable
from robustfer.data.loading import load
from robustfer.data.noise import symmetric_noise, with_symmetric_noise
from robustfer.data.rafdb import RAFDB
from robustfer.data.votes import draw_targets

__all__ = [
    "EXPRESSIONS",
    "EXPRESSIONS_WITH_CONTEMPT",
    "NUMBERINGS",
    "RAFDB",
    "AffectNet",
    "DemoFaces",
    "FERPlus",
    "ImageFolder",
    "LabelTable",
    "LabeledFaces",
    "canonical_name",
    "class_order",
    "draw_targets",
    "load",
    "renumber",
    "symmetric_noise",
    "translate_classes",
    "with_symmetric_noise",
]
