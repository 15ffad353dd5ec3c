"""Tools for authors of plugins: checks, precision, cross entropy, sums of terms, rows of state.

These names are a stable interface, like the hooks: only a major release removes one.
"""

from robustfer._checks import (
    check_bool,
    check_choice,
    check_floating,
    check_int64,
    check_probabilities,
    check_range,
    check_shapes,
    check_target,
    check_whole_number,
    values_are_checked,
)
from robustfer._dtypes import NeverHalf
from robustfer._saved_state import load_whole
from robustfer.functional._cross_entropy import at_label, cross_entropy
from robustfer.functional._precision import (
    Reduction,
    check_reduction,
    full_precision,
    reduce,
    without_autocast,
)
from robustfer.losses._terms import sum_of_terms
from robustfer.state._rows import read_rows, write_rows

__all__ = [
    "NeverHalf",
    "Reduction",
    "at_label",
    "check_bool",
    "check_choice",
    "check_floating",
    "check_int64",
    "check_probabilities",
    "check_range",
    "check_reduction",
    "check_shapes",
    "check_target",
    "check_whole_number",
    "cross_entropy",
    "full_precision",
    "load_whole",
    "read_rows",
    "reduce",
    "sum_of_terms",
    "values_are_checked",
    "without_autocast",
    "write_rows",
]
