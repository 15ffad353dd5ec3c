import pytest
import torch
from torch import nn

from robustfer.authoring import check_shapes, full_precision, load_whole, read_rows, write_rows
from robustfer.testing import LossConformance, StatefulLossConformance, failing_checks
from tests.testing.defective_losses import Sound as Stateless
from tests.testing.defective_stateful_losses import (
    DEFECTS,
    Sound,
    SoundConformance,
    conformance_of,
)

CHECKS = {name for name in vars(StatefulLossConformance) if name.startswith("test_")}


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


def test_the_checks_of_every_loss_are_run_as_they_are():
    assert CHECKS.isdisjoint(vars(LossConformance))


class CountedMistakes(nn.Module):
    """A state of one whole number a sample, which depends on a parameter and on a bias (C).

    Shape:
        logits ``(B, C)``, target ``(B)``, bias ``(C)``, index ``(B)``, mistakes ``(B)`` int64 ->
        ``(B)``.

    Reference:
        None: made for these tests.
    """

    def __init__(self, *, num_samples, num_classes):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(num_classes))
        self.register_buffer("mistakes", torch.zeros(num_samples, dtype=torch.int64))
        self.register_buffer("share", torch.linspace(0.5, 1.0, num_samples))
        load_whole(self)

    def scores(self, logits, bias):
        check_shapes(logits=(logits, "B C"), bias=(bias, "C"))
        return full_precision(logits) * self.scale + full_precision(bias)

    def propose(self, logits, target, bias, index):
        check_shapes(logits=(logits, "B C"), target=(target, "B"), index=(index, "B"))
        wrong = self.scores(logits, bias).argmax(dim=1) != target
        return read_rows(self.mistakes, index) + wrong

    def forward(self, logits, target, bias, index, mistakes):
        check_shapes(logits=(logits, "B C"), target=(target, "B"), index=(index, "B"))
        check_shapes(target=(target, "B"), mistakes=(mistakes, "B"))
        share = read_rows(self.share, index) / (1 + mistakes)
        log_p = self.scores(logits, bias).log_softmax(dim=1)
        return -share * log_p.gather(1, target[:, None]).squeeze(1)

    def update(self, index, mistakes, *, gather=True):
        write_rows(self.mistakes, index, mistakes, name="mistakes", gather=gather)


class TestCountedMistakes(StatefulLossConformance):
    per_sample = True

    def make_loss(self):
        return CountedMistakes(num_samples=self.samples, num_classes=self.classes)

    def make_inputs(self, *, batch, classes, dtype, generator):
        return {
            "logits": torch.randn(batch, classes, generator=generator, dtype=dtype),
            "target": torch.randint(classes, (batch,), generator=generator),
            "bias": torch.randn(classes, generator=generator, dtype=dtype),
        }


def batch_with(*names):
    def make_inputs(self, **options):
        made = SoundConformance.make_inputs(self, **options)
        return made | dict.fromkeys(names, made["logits"])

    return make_inputs


class OfAnotherName(Sound):
    def forward(self, logits, target, memory):
        return super().forward(logits, target, memory)


class ProposesTwo(Sound):
    def propose(self, logits, index):
        return super().propose(logits, index), index


@pytest.mark.parametrize(
    ("loss", "make_inputs", "message"),
    [
        (Sound, batch_with("index"), r"make_inputs gives \['index'\], which the checks make"),
        (Sound, batch_with("belief"), r"make_inputs gives \['belief'\], which the checks make"),
        (Sound, batch_with("logit"), r"\['logit'\], but propose and forward take"),
        (ProposesTwo, batch_with(), "propose must return one tensor, got tuple; if there is more"),
        (OfAnotherName, batch_with(), "update writes 'belief', which forward does not take"),
    ],
)
def test_a_test_class_that_does_not_fit_is_told(loss, make_inputs, message):
    conformance = type("Conformance", (conformance_of(loss),), {"make_inputs": make_inputs})
    with pytest.raises(AssertionError, match=message):
        conformance().test_batch_of_one()


def test_a_loss_without_state_is_told():
    class Conformance(SoundConformance):
        def make_loss(self):
            return Stateless()

    with pytest.raises(
        AssertionError, match=r"Sound has no propose\(\.\.\.\); a loss with a state"
    ):
        Conformance().test_batch_of_one()
