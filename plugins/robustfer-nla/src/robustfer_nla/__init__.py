"""Offer noise-aware weighting to robustfer by its place, so listing it does not load torch."""

from __future__ import annotations

from robustfer import Component, hookimpl


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="noise_aware_weighting",
            factory="robustfer_nla.losses:NoiseAwareWeightingLoss",
            summary="Cross entropy weighted by ambiguity, and consistency of mirror images",
            reference=(
                "Lee et al., Navigating Label Ambiguity for Facial Expression Recognition in the "
                "Wild, AAAI 2025"
            ),
        )
    ]
