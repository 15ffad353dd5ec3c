"""The losses, each as a function with the mathematics and a module with the options."""

from robustfer_robust_losses.losses.active_passive import ActivePassiveLoss
from robustfer_robust_losses.losses.bootstrapping import (
    HardBootstrappingLoss,
    SoftBootstrappingLoss,
    hard_bootstrapping,
    soft_bootstrapping,
)
from robustfer_robust_losses.losses.mean_absolute_error import (
    MeanAbsoluteErrorLoss,
    mean_absolute_error,
)
from robustfer_robust_losses.losses.normalized import (
    NormalizedCrossEntropyLoss,
    NormalizedGeneralizedCrossEntropyLoss,
    normalized_cross_entropy,
    normalized_generalized_cross_entropy,
)
from robustfer_robust_losses.losses.reverse import ReverseCrossEntropyLoss, reverse_cross_entropy
from robustfer_robust_losses.losses.symmetric import (
    SymmetricCrossEntropyLoss,
    symmetric_cross_entropy,
)
from robustfer_robust_losses.losses.truncated import (
    TruncatedGeneralizedCrossEntropyLoss,
    truncated_generalized_cross_entropy,
)

__all__ = [
    "ActivePassiveLoss",
    "HardBootstrappingLoss",
    "MeanAbsoluteErrorLoss",
    "NormalizedCrossEntropyLoss",
    "NormalizedGeneralizedCrossEntropyLoss",
    "ReverseCrossEntropyLoss",
    "SoftBootstrappingLoss",
    "SymmetricCrossEntropyLoss",
    "TruncatedGeneralizedCrossEntropyLoss",
    "hard_bootstrapping",
    "mean_absolute_error",
    "normalized_cross_entropy",
    "normalized_generalized_cross_entropy",
    "reverse_cross_entropy",
    "soft_bootstrapping",
    "symmetric_cross_entropy",
    "truncated_generalized_cross_entropy",
]
