"""Find labels that look wrong, let people review them, and apply their decisions."""

from robustfer._predictions import Predictions as Predictions
from robustfer._predictions import read_probabilities
from robustfer.audit.correction import corrected_labels
from robustfer.audit.decisions import Decisions as Decisions
from robustfer.audit.decisions import read_decisions
from robustfer.audit.duplicates import Duplicates as Duplicates
from robustfer.audit.duplicates import find_duplicates
from robustfer.audit.page import write_review
from robustfer.audit.ranking import Audit as Audit
from robustfer.audit.ranking import ClassSummary as ClassSummary
from robustfer.audit.ranking import audit

__all__ = [
    "audit",
    "corrected_labels",
    "find_duplicates",
    "read_decisions",
    "read_probabilities",
    "write_review",
]
