"""Offer losses that tolerate wrong labels to robustfer by their places.

robustfer imports this module to list the installed plugins. So it does not import torch. The losses
are in :mod:`robustfer_robust_losses.losses`.
"""

from __future__ import annotations

from robustfer import Component, hookimpl

_GHOSH = "Ghosh et al., Robust Loss Functions under Label Noise for Deep Neural Networks, AAAI 2017"
_MA = "Ma et al., Normalized Loss Functions for Deep Learning with Noisy Labels, ICML 2020"
_REED = (
    "Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping, "
    "ICLR 2015 workshop"
)
_WANG = "Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019"
_ZHANG = (
    "Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with "
    "Noisy Labels, NeurIPS 2018"
)


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="active_passive",
            factory="robustfer_robust_losses.losses:ActivePassiveLoss",
            summary="Two robust losses that learn more together than separately",
            reference=_MA,
        ),
        Component(
            name="hard_bootstrapping",
            factory="robustfer_robust_losses.losses:HardBootstrappingLoss",
            summary="Cross entropy with a mixture of the label and the most probable class",
            reference=_REED,
        ),
        Component(
            name="mean_absolute_error",
            factory="robustfer_robust_losses.losses:MeanAbsoluteErrorLoss",
            summary="One minus the probability of the label: robust, but slow to learn",
            reference=_GHOSH,
        ),
        Component(
            name="normalized_cross_entropy",
            factory="robustfer_robust_losses.losses:NormalizedCrossEntropyLoss",
            summary="Cross entropy as a share of its sum over all labels, in [0, 1]",
            reference=_MA,
        ),
        Component(
            name="normalized_generalized_cross_entropy",
            factory="robustfer_robust_losses.losses:NormalizedGeneralizedCrossEntropyLoss",
            summary="Generalized cross entropy as a share of its sum over all labels, in [0, 1]",
            reference=_MA,
        ),
        Component(
            name="reverse_cross_entropy",
            factory="robustfer_robust_losses.losses:ReverseCrossEntropyLoss",
            summary="Cross entropy with label and prediction exchanged, zeros raised to a floor",
            reference=_WANG,
        ),
        Component(
            name="soft_bootstrapping",
            factory="robustfer_robust_losses.losses:SoftBootstrappingLoss",
            summary="Cross entropy with a mixture of the label and the prediction",
            reference=_REED,
        ),
        Component(
            name="symmetric_cross_entropy",
            factory="robustfer_robust_losses.losses:SymmetricCrossEntropyLoss",
            summary="Cross entropy, which learns fast, plus its reverse, which is robust",
            reference=_WANG,
        ),
        Component(
            name="truncated_generalized_cross_entropy",
            factory="robustfer_robust_losses.losses:TruncatedGeneralizedCrossEntropyLoss",
            summary="Generalized cross entropy without the labels of low probability",
            reference=_ZHANG,
        ),
    ]
