"""Early-learning regularization, offered to robustfer by name: listing it loads no torch."""

from __future__ import annotations

from robustfer import Component, hookimpl


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="early_learning_regularization",
            factory="robustfer_elr.losses:EarlyLearningLoss",
            summary="Cross entropy held to what was predicted before wrong labels were memorized",
            reference=(
                "Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels, "
                "NeurIPS 2020"
            ),
        ),
        Component(
            name="memory_targets",
            factory="robustfer_elr.losses:MemoryTargetLoss",
            summary="Labels mixed with what was predicted for each sample so far",
            reference=(
                "Laine and Aila, Temporal Ensembling for Semi-Supervised Learning, ICLR 2017; "
                "Huang et al., Self-Adaptive Training: beyond Empirical Risk Minimization, NeurIPS "
                "2020"
            ),
        ),
    ]
