"""Modules with state. State changes only in ``update``, after the optimizer's step.

**State of samples is always finite.** ``update`` skips a row with NaN or infinity, without waiting
for the device. Under :func:`robustfer.losses.check_values` such a row raises an error.
:class:`LabelStore` always raises. An ``update`` that raises changes nothing. :class:`ModelEMA` is
not state of samples: it takes over NaN from the model, and raises only under ``check_values``.

**State is loaded whole or not at all.** ``load_state_dict`` checks everything before it copies
anything: names, shapes and dtypes, cursors and counts, and that the given labels are the same.
"""

from robustfer.state._change_journal import ChangeReason as ChangeReason
from robustfer.state.feature_queue import FeatureQueue
from robustfer.state.label_distribution_bank import LabelDistributionBank
from robustfer.state.label_store import LabelStore
from robustfer.state.model_ema import ModelEMA
from robustfer.state.relabeler import Relabeler
from robustfer.state.training_dynamics import TrainingDynamics

__all__ = [
    "FeatureQueue",
    "LabelDistributionBank",
    "LabelStore",
    "ModelEMA",
    "Relabeler",
    "TrainingDynamics",
]
