"""Offer relative uncertainty learning to robustfer by its place.

robustfer imports this module to list the installed plugins. So it does not import torch.
"""

from __future__ import annotations

from robustfer import Component, hookimpl


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="relative_uncertainty",
            factory="robustfer_rul.losses:RelativeUncertaintyLoss",
            summary="Cross entropy of two mixed faces, with a learnt uncertainty of each",
            reference=(
                "Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression "
                "Recognition, NeurIPS 2021"
            ),
        )
    ]
