"""Noise-aware weighting, offered to robustfer by name: listing it loads no torch."""

from __future__ import annotations

from robustfer import Component, hookimpl


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="noise_aware_weighting",
            factory="robustfer_nla.losses:NoiseAwareWeightingLoss",
            summary="Cross entropy that weighs ambiguous faces more, and mirror images that agree",
            reference=(
                "Lee et al., Navigating Label Ambiguity for Facial Expression Recognition in the "
                "Wild, AAAI 2025"
            ),
        )
    ]
