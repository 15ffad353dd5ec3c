"""Label noise: models of it, noise lists, and reports of how labels differ."""

from robustfer.data.readers.votes import sample_targets
from robustfer.noise.estimation import TransitionEstimate as TransitionEstimate
from robustfer.noise.estimation import (
    transition_from_confident_joint,
    transition_from_verified,
)
from robustfer.noise.lists import NoiseList as NoiseList
from robustfer.noise.lists import read_noise_list, with_noise_list, write_noise_list
from robustfer.noise.matrices import (
    LANET_CONFUSIONS,
    crowd_counts,
    noise_matrix,
    transition_matrix,
    without_diagonal,
)
from robustfer.noise.models import (
    class_noise,
    symmetric_noise,
    with_class_noise,
    with_symmetric_noise,
)
from robustfer.noise.report import NoiseReport as NoiseReport
from robustfer.noise.report import fingerprint as fingerprint
from robustfer.noise.report import noise_report
from robustfer.noise.verification import verify_noise_list as verify_noise_list

__all__ = [
    "LANET_CONFUSIONS",
    "class_noise",
    "crowd_counts",
    "noise_matrix",
    "noise_report",
    "read_noise_list",
    "sample_targets",
    "symmetric_noise",
    "transition_from_confident_joint",
    "transition_from_verified",
    "transition_matrix",
    "with_class_noise",
    "with_noise_list",
    "with_symmetric_noise",
    "without_diagonal",
    "write_noise_list",
]
