"""The checks that robustfer's own components pass, for everyone's.

Subclass the kit of your component in a test file, say how to make it and what to feed it, and run
pytest: :class:`LossConformance`, :class:`StatefulLossConformance` for a loss that remembers its
samples, :class:`ParametricLossConformance` for one with parameters of its own,
:class:`AugmentationConformance`.
"""

from robustfer.testing.augmentations import AugmentationConformance
from robustfer.testing.losses import LossConformance
from robustfer.testing.parametric_losses import ParametricLossConformance
from robustfer.testing.running import failing_checks
from robustfer.testing.stateful_losses import StatefulLossConformance

__all__ = [
    "AugmentationConformance",
    "LossConformance",
    "ParametricLossConformance",
    "StatefulLossConformance",
    "failing_checks",
]
