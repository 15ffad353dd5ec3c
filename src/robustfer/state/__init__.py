"""Modules that remember: state changes only in ``update``, after the optimizer's step.

**A memory of samples holds only finite numbers.** ``update`` skips a row with NaN or infinity in
it: the memory stays as if that sample had not been in the batch, and no host waits. Under
:func:`robustfer.losses.check_values` such a row is refused by name. :class:`LabelStore` looks at
all values anyway and always refuses it. A refused batch changes nothing. :class:`ModelEMA`
remembers no samples: it follows the model, and refuses one that is not finite only under
``check_values``.

**State is loaded whole or not at all.** ``load_state_dict`` looks at everything before it copies
anything: names, shapes and dtypes, cursors and counts, and whose labels they are.
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
