"""Generalized cross entropy, offered to robustfer.

robustfer imports this module to list what is installed. The loss is named as text, so torch is
loaded only when somebody shows or creates it. The module is therefore fast to import.
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
            summary="A compromise between fast cross entropy and the robust absolute error",
            reference=(
                "Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural "
                "Networks with Noisy Labels, NeurIPS 2018"
            ),
        )
    ]
