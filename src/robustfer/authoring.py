"""What losses are written with, for authors of plugins: the checks and sums of robustfer's own.

It keeps its word as the hooks do: names may be added in any release, none goes without a major one.
Everything else that begins with an underscore is robustfer's own business.
"""

from __future__ import annotations

from robustfer._checks import check_floating, check_range, check_shapes, check_target
from robustfer.functional._precision import Reduction, check_reduction, full_precision, reduce

__all__ = [
    "Reduction",
    "check_floating",
    "check_range",
    "check_reduction",
    "check_shapes",
    "check_target",
    "full_precision",
    "reduce",
]
