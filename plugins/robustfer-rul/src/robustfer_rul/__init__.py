"""Relative uncertainty learning, offered to robustfer.

robustfer imports this module to list what is installed, so that it names the loss as text and
loads no torch.
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
            summary="Two faces' features mixed by how uncertain each is, to be told apart as both",
            reference=(
                "Zhang, Wang and Deng, Relative Uncertainty Learning for Facial Expression "
                "Recognition, NeurIPS 2021"
            ),
        )
    ]
