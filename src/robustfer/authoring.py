"""What losses are written with, for authors of plugins: robustfer's own checks, sums and rows.

Like the hooks it is an interface: names may be added in any release, none goes without a major one.
"""

from __future__ import annotations

from robustfer._checks import (
    Variant,
    check_bool,
    check_distribution,
    check_finite,
    check_floating,
    check_int64,
    check_range,
    check_shapes,
    check_target,
    check_variant,
    check_whole_number,
    check_within,
    values_are_checked,
)
from robustfer._saved_state import load_whole
from robustfer.functional._cross_entropy import cross_entropy
from robustfer.functional._precision import Reduction, check_reduction, full_precision, reduce
from robustfer.losses._terms import sum_of_terms
from robustfer.state._rows import read_rows, write_rows

__all__ = [
    "Reduction",
    "Variant",
    "check_bool",
    "check_distribution",
    "check_finite",
    "check_floating",
    "check_int64",
    "check_range",
    "check_reduction",
    "check_shapes",
    "check_target",
    "check_variant",
    "check_whole_number",
    "check_within",
    "cross_entropy",
    "full_precision",
    "load_whole",
    "read_rows",
    "reduce",
    "sum_of_terms",
    "values_are_checked",
    "write_rows",
]
