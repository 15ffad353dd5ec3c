"""Networks that give what a method needs: logits, class maps, features and embeddings.

:class:`CAMClassifier` wraps a network of timm, torchvision or Hugging Face. :func:`cam_outputs`
does the same in your own module. :func:`cam_exactness` measures whether maps and logits agree.
:class:`ImportanceClassifier` adds SCN's importance head, :class:`LandmarkClassifier` a landmark
branch. :class:`LANetModel` is the network of LA-Net. :func:`strip_for_inference` keeps only what
the logits need.
"""

from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.exactness import CAMExactness as CAMExactness
from robustfer.models.exactness import cam_exactness
from robustfer.models.importance import ImportanceClassifier
from robustfer.models.importance import ImportanceOutput as ImportanceOutput
from robustfer.models.inference import strip_for_inference
from robustfer.models.landmark_branch import LandmarkBranch
from robustfer.models.landmark_branch import LandmarkOutput as LandmarkOutput
from robustfer.models.landmark_classifier import LandmarkClassifier
from robustfer.models.landmark_classifier import (
    LandmarkClassifierOutput as LandmarkClassifierOutput,
)
from robustfer.models.landmark_coordinates import LandmarkCoordinates
from robustfer.models.lanet import LANetModel
from robustfer.models.lanet import LANetOutput as LANetOutput
from robustfer.models.outputs import CAMOutput as CAMOutput
from robustfer.models.outputs import cam_outputs

__all__ = [
    "CAMClassifier",
    "ImportanceClassifier",
    "LANetModel",
    "LandmarkBranch",
    "LandmarkClassifier",
    "LandmarkCoordinates",
    "cam_exactness",
    "cam_outputs",
    "strip_for_inference",
]
