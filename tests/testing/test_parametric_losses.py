import pytest
import torch.nn.functional as F
from torch import nn

from robustfer._checks import check_target
from robustfer.functional._precision import full_precision
from robustfer.losses import CompositeLoss, Term
from robustfer.testing import LossConformance, ParametricLossConformance, failing_checks
from tests.testing.defective_parametric_losses import (
    DEFECTS,
    Sound,
    SoundConformance,
    conformance_of,
)

CHECKS = {name for name in vars(ParametricLossConformance) if name.startswith("test_")}


class TestSound(SoundConformance):
    """Without a defect every check passes, or the table would show nothing."""


@pytest.mark.parametrize(("loss", "expected"), DEFECTS, ids=[loss.__name__ for loss, _ in DEFECTS])
def test_a_planted_defect_is_caught(loss, expected):
    failures = failing_checks(conformance_of(loss))
    assert set(failures) == expected
    for error in failures.values():
        assert isinstance(error, AssertionError), "a check must say what is wrong"


def test_every_check_alone_catches_something():
    """Taken out, any check would let a defect of the table pass."""
    caught = {next(iter(checks)) for _, checks in DEFECTS if len(checks) == 1}
    assert caught >= CHECKS


def test_no_check_is_made_twice():
    assert not CHECKS & {name for name in dir(LossConformance) if name.startswith("test_")}


class LearnsFromTheFirstBatch(Sound):
    def __init__(self, *, num_classes):
        super().__init__(num_classes=num_classes)
        self.linear = nn.LazyLinear(num_classes)

    def stretched(self, logits):
        return super().stretched(self.linear(logits))


def test_a_parameter_without_a_shape_is_named():
    with pytest.raises(
        AssertionError, match=r"\['linear.weight', 'linear.bias'\] take their shape"
    ):
        conformance_of(LearnsFromTheFirstBatch)().test_has_parameters()


def test_a_rate_for_what_is_steep():
    class Conformance(conformance_of(dict(names())["LearnsFast"])):
        learning_rate = 1e-6

    assert failing_checks(Conformance) == {}


def names():
    return [(loss.__name__, loss) for loss, _ in DEFECTS]


class PerSample(Sound):
    """A value a sample.

    Shape:
        logits ``(B, C)``, target ``(B)`` -> ``(B)``.

    Reference:
        None: made for these tests.
    """

    def forward(self, logits, target):
        check_target(logits, target)
        shifted = self.stretched(full_precision(logits))
        return F.cross_entropy(shifted, target, reduction="none")


def test_a_value_a_sample():
    class Conformance(conformance_of(PerSample)):
        per_sample = True

    assert failing_checks(Conformance) == {}


class Composed(SoundConformance):
    test_documents_shape_and_reference = None  # its terms have them

    def make_loss(self):
        return CompositeLoss(
            Term("label", Sound(num_classes=self.classes)),
            Term("other", Sound(num_classes=self.classes), weight=2.0),
        )


def test_a_composition_of_losses_with_parameters():
    assert failing_checks(Composed) == {}
