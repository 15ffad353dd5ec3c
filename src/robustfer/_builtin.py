"""The core's own components, offered through the same hooks as those of plugins."""

from __future__ import annotations

from robustfer.hookspecs import Component, hookimpl

_EAC = (
    "Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial "
    "Expression Recognition, ECCV 2022"
)
_SCN = (
    "Wang et al., Suppressing Uncertainties for Large-Scale Facial Expression Recognition, "
    "CVPR 2020"
)
_GSMC = "Huang et al., A Global-Local Scalable Multi-task Contrastive Learning Framework, CGI 2024"
_LANET = (
    "Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition under "
    "Label Noise, ICCV 2023"
)
_PATRINI = (
    "Patrini et al., Making Deep Neural Networks Robust to Label Noise: A Loss Correction "
    "Approach, CVPR 2017"
)
_ADAPTIVE_WING = (
    "Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV 2019"
)


@hookimpl
def robustfer_losses() -> list[Component]:
    """Return the core's losses."""
    return [
        Component(
            name="adaptive_wing",
            factory="robustfer.losses:AdaptiveWingLoss",
            summary="Loss of heat maps, sharp at landmarks and soft in the background",
            reference=_ADAPTIVE_WING,
        ),
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
        Component(
            name="expression_landmark_contrast",
            factory="robustfer.losses:ExpressionLandmarkContrastiveLoss",
            summary="Contrast of expression and landmark embeddings both ways, over two queues",
            reference=_LANET,
        ),
        Component(
            name="forward_correction",
            factory="robustfer.losses:ForwardCorrectionLoss",
            summary="Cross entropy of the given label, through the label noise's transition matrix",
            reference=_PATRINI,
        ),
        Component(
            name="gsmc",
            factory="robustfer.losses:GSMCLoss",
            summary="Cross entropy, distillation from the model's average, attention consistency",
            reference=_GSMC,
        ),
        Component(
            name="landmark_adaptive_wing",
            factory="robustfer.losses:LandmarkAdaptiveWingLoss",
            summary="Adaptive wing loss against landmarks, without drawing their heat maps",
            reference=_ADAPTIVE_WING,
        ),
        Component(
            name="lanet",
            factory="robustfer.losses:LANetLoss",
            summary="Cross entropy, estimated label distribution, landmark heat maps, contrast",
            reference=_LANET,
        ),
        Component(
            name="rank_regularization",
            factory="robustfer.losses:RankRegularizationLoss",
            summary="Keeps the mean importance of the top samples above the rest by a margin",
            reference=_SCN,
        ),
        Component(
            name="scn",
            factory="robustfer.losses:SCNLoss",
            summary="Self-cure network: cross entropy of weighted logits, and rank regularization",
            reference=_SCN,
        ),
        Component(
            name="self_distillation",
            factory="robustfer.losses:SelfDistillationLoss",
            summary="Divergence from the prediction of a teacher, usually the model's average",
            reference="Hinton et al., Distilling the Knowledge in a Neural Network, NIPS workshop "
            "2014",
        ),
    ]


@hookimpl
def robustfer_augmentations() -> list[Component]:
    """Return the core's augmentations."""
    return [
        Component(
            name="mirrored_pair",
            factory="robustfer.augmentations:MirroredPair",
            summary="An image and its mirror image for EAC, normalised and randomly erased",
            reference=_EAC,
        ),
        Component(
            name="single_view",
            factory="robustfer.augmentations:SingleView",
            summary="An image, normalised and randomly erased",
            reference="Zhong et al., Random Erasing Data Augmentation, AAAI 2020",
        ),
    ]
