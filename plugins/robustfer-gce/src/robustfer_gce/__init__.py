"""Generalized cross entropy, offered to robustfer.

robustfer imports this module to list what is installed. It stays quick because it names the loss
as text: torch is loaded once somebody shows or makes it.
"""

from __future__ import annotations

from robustfer import Component, hookimpl


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="generalized_cross_entropy",
            factory="robustfer_gce.losses:GeneralizedCrossEntropyLoss",
            summary="Between cross entropy, which learns fast, and absolute error, which forgives",
            reference=(
                "Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural "
                "Networks with Noisy Labels, NeurIPS 2018"
            ),
        )
    ]
