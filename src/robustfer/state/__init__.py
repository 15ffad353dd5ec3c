"""Modules that remember: state changes in ``update`` alone, after the optimizer's step."""

from robustfer.state._change_journal import ChangeReason
from robustfer.state.label_store import LabelStore

__all__ = ["ChangeReason", "LabelStore"]
