"""What a method needs of a network: logits, class attention maps, features and embeddings.

:class:`CAMClassifier` wraps any timm model, :func:`cam_outputs` is the plain way for a module of
your own, and :func:`cam_exactness` measures whether maps and logits agree.
"""

from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.exactness import CAMExactness, cam_exactness
from robustfer.models.outputs import CAMOutput, cam_outputs

__all__ = ["CAMClassifier", "CAMExactness", "CAMOutput", "cam_exactness", "cam_outputs"]
