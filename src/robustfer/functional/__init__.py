"""The mathematics of the losses as pure functions of tensors."""

from robustfer.functional._contrast_kernel import UNFILLED as UNFILLED
from robustfer.functional.adjustment import adjust_logits
from robustfer.functional.attention import attention_consistency
from robustfer.functional.contrast import expression_landmark_contrast, pseudo_labels
from robustfer.functional.correction import forward_correction
from robustfer.functional.distillation import self_distillation
from robustfer.functional.heatmaps import Heatmaps as Heatmaps
from robustfer.functional.heatmaps import render_heatmaps
from robustfer.functional.ranking import ImportanceHealth as ImportanceHealth
from robustfer.functional.ranking import importance_health, rank_regularization
from robustfer.functional.wing import adaptive_wing, landmark_adaptive_wing

__all__ = [
    "adaptive_wing",
    "adjust_logits",
    "attention_consistency",
    "expression_landmark_contrast",
    "forward_correction",
    "importance_health",
    "landmark_adaptive_wing",
    "pseudo_labels",
    "rank_regularization",
    "render_heatmaps",
    "self_distillation",
]
