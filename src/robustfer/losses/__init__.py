"""Losses as plain modules: hyperparameters at construction, named tensors in ``forward``."""

from robustfer._checks import check_values
from robustfer.losses.adaptive_wing import AdaptiveWingLoss, LandmarkAdaptiveWingLoss
from robustfer.losses.attention_consistency import AttentionConsistencyLoss
from robustfer.losses.composite import CompositeLoss, Term
from robustfer.losses.eac import EACLoss
from robustfer.losses.expression_landmark_contrast import ExpressionLandmarkContrastiveLoss
from robustfer.losses.forward_correction import ForwardCorrectionLoss
from robustfer.losses.gsmc import GSMCLoss
from robustfer.losses.lanet import LANetLoss
from robustfer.losses.parameters import param_groups
from robustfer.losses.rank_regularization import RankRegularizationLoss
from robustfer.losses.scn import SCNLoss
from robustfer.losses.self_distillation import SelfDistillationLoss

__all__ = [
    "AdaptiveWingLoss",
    "AttentionConsistencyLoss",
    "CompositeLoss",
    "EACLoss",
    "ExpressionLandmarkContrastiveLoss",
    "ForwardCorrectionLoss",
    "GSMCLoss",
    "LANetLoss",
    "LandmarkAdaptiveWingLoss",
    "RankRegularizationLoss",
    "SCNLoss",
    "SelfDistillationLoss",
    "Term",
    "check_values",
    "param_groups",
]
