"""Offer sparse over-parameterization to robustfer by its place, so listing does not load torch."""

from __future__ import annotations

from robustfer import Component, hookimpl

_REFERENCE = "Liu et al., Robust Training under Label Noise by Over-parameterization, ICML 2022"


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the losses of this package."""
    return [
        Component(
            name="sparse_over_parameterization",
            factory="robustfer_sop.losses:SparseOverParameterizationLoss",
            summary="Cross entropy that learns for each sample how wrong its label is",
            reference=_REFERENCE,
        ),
        Component(
            name="sparse_over_parameterization_plus",
            factory="robustfer_sop.losses:SparseOverParameterizationPlusLoss",
            summary="The same, with consistency of two views and balanced classes",
            reference=_REFERENCE,
        ),
    ]
