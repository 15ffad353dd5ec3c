"""The core's own components, offered through the same hooks as anyone's."""

from __future__ import annotations

from robustfer.hookspecs import Component, hookimpl

_EAC = (
    "Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial "
    "Expression Recognition, ECCV 2022"
)


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the core's losses."""
    return [
        Component(
            name="attention_consistency",
            factory="robustfer.losses:AttentionConsistencyLoss",
            summary="Squared difference of the class maps of an image and of its mirror image",
            reference=_EAC,
        ),
        Component(
            name="eac",
            factory="robustfer.losses:EACLoss",
            summary="Erasing attention consistency: cross entropy and attention consistency",
            reference=_EAC,
        ),
    ]


@hookimpl
def robustfer_augmentations() -> list[Component]:
    """Return the core's augmentations."""
    return [
        Component(
            name="mirrored_pair",
            factory="robustfer.augmentations:MirroredPair",
            summary="An image and its mirror image, normalised and randomly erased, as EAC trains",
            reference=_EAC,
        ),
        Component(
            name="single_view",
            factory="robustfer.augmentations:SingleView",
            summary="An image, normalised and randomly erased",
            reference="Zhong et al., Random Erasing Data Augmentation, AAAI 2020",
        ),
    ]
