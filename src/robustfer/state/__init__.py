"""Modules that remember: state changes in ``update`` alone, after the optimizer's step."""

from robustfer.state._change_journal import ChangeReason
from robustfer.state.feature_queue import FeatureQueue
from robustfer.state.label_distribution_bank import LabelDistributionBank
from robustfer.state.label_store import LabelStore
from robustfer.state.model_ema import ModelEMA
from robustfer.state.relabeler import Relabeler

__all__ = [
    "ChangeReason",
    "FeatureQueue",
    "LabelDistributionBank",
    "LabelStore",
    "ModelEMA",
    "Relabeler",
]
