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
from robustfer.data.confusions import (
    LANET_CONFUSIONS,
    confusion_counts,
    crowd_counts,
    noise_matrix,
    transition_matrix,
    without_diagonal,
)
from robustfer.data.dataset import LabeledFaces
from robustfer.data.demo_faces import DemoFaces
from robustfer.data.ferplus import FERPlus
from robustfer.data.folder import ImageFolder
from robustfer.data.label_table import LabelTable
from robustfer.data.loading import load
from robustfer.data.noise import (
    class_noise,
    symmetric_noise,
    with_class_noise,
    with_symmetric_noise,
)
from robustfer.data.noise_lists import (
    NoiseList,
    read_noise_list,
    with_noise_list,
    write_noise_list,
)
from robustfer.data.noise_report import NoiseReport, draw_noise, fingerprint, noise_report
from robustfer.data.noise_verification import verify_noise_list
from robustfer.data.rafdb import RAFDB
from robustfer.data.sampling import ProgressiveBalancedSampler
from robustfer.data.votes import draw_targets

__all__ = [
    "EXPRESSIONS",
    "EXPRESSIONS_WITH_CONTEMPT",
    "LANET_CONFUSIONS",
    "NUMBERINGS",
    "RAFDB",
    "AffectNet",
    "DemoFaces",
    "FERPlus",
    "ImageFolder",
    "LabelTable",
    "LabeledFaces",
    "NoiseList",
    "NoiseReport",
    "ProgressiveBalancedSampler",
    "canonical_name",
    "class_noise",
    "class_order",
    "confusion_counts",
    "crowd_counts",
    "draw_noise",
    "draw_targets",
    "fingerprint",
    "load",
    "noise_matrix",
    "noise_report",
    "read_noise_list",
    "renumber",
    "symmetric_noise",
    "transition_matrix",
    "translate_classes",
    "verify_noise_list",
    "with_class_noise",
    "with_noise_list",
    "with_symmetric_noise",
    "without_diagonal",
    "write_noise_list",
]
