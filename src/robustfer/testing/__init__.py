"""Test your own losses and augmentations with the checks that robustfer's components pass.

Subclass a kit in a test file, define how to make your component and its inputs, and run pytest:
:class:`LossConformance`, :class:`StatefulLossConformance` for a loss that remembers its samples,
:class:`ParametricLossConformance` for a loss with parameters, or :class:`AugmentationConformance`.
:class:`PluginConformance` tests the installed package that offers it.
"""

from robustfer.testing.augmentations import AugmentationConformance
from robustfer.testing.losses import LossConformance
from robustfer.testing.parametric_losses import ParametricLossConformance
from robustfer.testing.plugins import PluginConformance
from robustfer.testing.running import failing_checks
from robustfer.testing.stateful_losses import StatefulLossConformance

__all__ = [
    "AugmentationConformance",
    "LossConformance",
    "ParametricLossConformance",
    "PluginConformance",
    "StatefulLossConformance",
    "failing_checks",
]
