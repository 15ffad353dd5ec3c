"""Make, measure and report label noise."""

from robustfer.noise.draw import rows_to_verify
from robustfer.noise.estimation import TransitionEstimate as TransitionEstimate
from robustfer.noise.estimation import (
    transition_from_confident_joint,
    transition_from_verified,
)
from robustfer.noise.instance import with_instance_noise, with_noise_like
from robustfer.noise.lists import with_noise_list, write_noise_list
from robustfer.noise.models import with_class_noise, with_symmetric_noise
from robustfer.noise.profile import NoiseProfile
from robustfer.noise.report import NoiseReport as NoiseReport
from robustfer.noise.report import fingerprint, noise_report

__all__ = [
    "NoiseProfile",
    "fingerprint",
    "noise_report",
    "rows_to_verify",
    "transition_from_confident_joint",
    "transition_from_verified",
    "with_class_noise",
    "with_instance_noise",
    "with_noise_like",
    "with_noise_list",
    "with_symmetric_noise",
    "write_noise_list",
]
