"""The checks that robustfer's own losses and augmentations pass, for everyone's.

Subclass :class:`LossConformance` or :class:`AugmentationConformance` in a test file, say how to
make the component and what to feed it, and run pytest.
"""

from robustfer.testing.augmentations import AugmentationConformance
from robustfer.testing.landmark_providers import LandmarkProviderConformance
from robustfer.testing.losses import LossConformance
from robustfer.testing.parametric_losses import ParametricLossConformance
from robustfer.testing.running import failing_checks
from robustfer.testing.stateful_losses import StatefulLossConformance

__all__ = [
    "AugmentationConformance",
    "LandmarkProviderConformance",
    "LossConformance",
    "ParametricLossConformance",
    "StatefulLossConformance",
    "failing_checks",
]
