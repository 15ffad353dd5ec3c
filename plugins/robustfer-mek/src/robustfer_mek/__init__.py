"""Offer the loss of MEK to robustfer by its place, so listing it does not load torch."""

from __future__ import annotations

from robustfer import Component, hookimpl


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="extra_knowledge",
            factory="robustfer_mek.losses:ExtraKnowledgeLoss",
            summary="Rare classes learn from all faces: rebalanced class maps and smooth labels",
            reference=(
                "Zhang et al., Leave No Stone Unturned: Mine Extra Knowledge for Imbalanced "
                "Facial Expression Recognition, NeurIPS 2023"
            ),
        )
    ]
