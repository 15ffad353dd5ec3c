"""The mathematics of the losses as pure functions of tensors."""

from robustfer.functional.attention import attention_consistency, class_attention

__all__ = ["attention_consistency", "class_attention"]
