"""The mathematics of the losses as pure functions of tensors."""

from robustfer.functional.attention import attention_consistency, class_attention
from robustfer.functional.heatmaps import Heatmaps, render_heatmaps

__all__ = ["Heatmaps", "attention_consistency", "class_attention", "render_heatmaps"]
