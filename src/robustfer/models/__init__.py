"""What a method needs of a network: logits, class attention maps, features and embeddings.

:class:`CAMClassifier` wraps any timm model, :func:`cam_outputs` is the plain way for a module of
your own, and :func:`cam_exactness` measures whether maps and logits agree.
:class:`ImportanceClassifier` adds SCN's importance head, :class:`LandmarkClassifier` a landmark
branch. :class:`LANetModel` is LA-Net's whole network. :func:`strip_for_inference` leaves what makes
the logits.
"""

from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.exactness import CAMExactness, cam_exactness
from robustfer.models.importance import ImportanceClassifier, ImportanceHead, ImportanceOutput
from robustfer.models.inference import strip_for_inference
from robustfer.models.label_distribution import LabelDistributionEstimator, PairScorer
from robustfer.models.landmark_branch import LandmarkBranch, LandmarkHead, LandmarkOutput
from robustfer.models.landmark_classifier import LandmarkClassifier, LandmarkClassifierOutput
from robustfer.models.landmark_coordinates import LandmarkCoordinates
from robustfer.models.lanet import LANetModel, LANetOutput
from robustfer.models.outputs import CAMOutput, cam_outputs
from robustfer.models.projection import ProjectionHead

__all__ = [
    "CAMClassifier",
    "CAMExactness",
    "CAMOutput",
    "ImportanceClassifier",
    "ImportanceHead",
    "ImportanceOutput",
    "LANetModel",
    "LANetOutput",
    "LabelDistributionEstimator",
    "LandmarkBranch",
    "LandmarkClassifier",
    "LandmarkClassifierOutput",
    "LandmarkCoordinates",
    "LandmarkHead",
    "LandmarkOutput",
    "PairScorer",
    "ProjectionHead",
    "cam_exactness",
    "cam_outputs",
    "strip_for_inference",
]
