import numpy as np
import pytest
import torch
from torch import nn

from robustfer.authoring import load_whole
from robustfer.losses import AttentionConsistencyLoss
from robustfer.testing import LossConformance, failing_checks
from tests.testing.defective_losses import DEFECTS, Sound, SoundConformance, conformance_of

CHECKS = {name for name in dir(LossConformance) if name.startswith("test_")}


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
    alone = {next(iter(checks)) for _, checks in DEFECTS if len(checks) == 1}
    assert alone == CHECKS


def test_a_check_that_is_taken_out_is_not_run():
    class ComparesNeighbours(conformance_of(dict(names())["ComparesNeighbours"])):
        test_order_of_the_batch_does_not_matter = None

    assert failing_checks(ComparesNeighbours) == {}


def names():
    return [(loss.__name__, loss) for loss, _ in DEFECTS]


class PerSample(LossConformance):
    per_sample = True

    def make_loss(self):
        return AttentionConsistencyLoss(reduction="none")

    def make_inputs(self, *, batch, classes, dtype, generator):
        maps = torch.randn(2, batch, classes, 2, 3, dtype=dtype, generator=generator)
        return {"attention": maps[0], "attention_flipped": maps[1]}


def test_a_value_a_sample_is_followed_through_the_batch():
    assert failing_checks(PerSample) == {}
    PerSample.per_sample = False
    try:
        message = r"must have shape \(\), got \(5,\); reduce it, or set per_sample"
        with pytest.raises(AssertionError, match=message):
            PerSample().test_result_has_its_shape_and_dtype()
    finally:
        PerSample.per_sample = True


class MarginLoss(Sound):
    """A loss that knows its number of classes and has a parameter and a state.

    Shape:
        as its parent.

    Reference:
        None: made for these tests.
    """

    def __init__(self, *, num_classes):
        super().__init__()
        self.margin = nn.Parameter(torch.randn(num_classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        load_whole(self)

    def each(self, logits, target):
        return super().each(logits + self.margin, target)

    @torch.no_grad()
    def update(self):
        self.steps += 1


class TestParametersAndState(SoundConformance):
    def make_loss(self):
        return MarginLoss(num_classes=self.classes)

    def update(self, loss, inputs):
        loss.update()


class Proposing(Sound):
    def propose(self, logits, index):
        return logits


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (MarginLoss, r"has update\(...\), which the test class"),
        (Proposing, "inherit from Stateful"),
    ],
)
def test_a_state_that_is_never_updated_is_an_error(loss, message):
    class Conformance(TestParametersAndState):
        update = LossConformance.update

        def make_loss(self):
            return loss() if loss is Proposing else loss(num_classes=self.classes)

    with pytest.raises(AssertionError, match=message):
        Conformance().test_state_dict_restores()


class DrawsFromItsOwnGenerator(Sound):
    def each(self, logits, target):
        noise = np.random.default_rng().random(len(logits))
        return super().each(logits, target) + torch.from_numpy(noise)


def test_a_new_generator_in_each_call_is_noticed():
    with pytest.raises(AssertionError, match="called again, forward gives another result"):
        conformance_of(DrawsFromItsOwnGenerator)().test_draws_no_random_numbers()


def test_inputs_without_a_gradient_are_an_error():
    class Conformance(SoundConformance):
        constants = ("logits", "importance")

    with pytest.raises(AssertionError, match="must give an input that gets a gradient"):
        Conformance().test_gradient_is_right()


def test_what_an_author_must_define_is_named():
    with pytest.raises(NotImplementedError, match=r"define make_loss\(self\)"):
        LossConformance().test_can_be_pickled()

    class Conformance(LossConformance):
        make_loss = SoundConformance.make_loss
        loss = Sound

    with pytest.raises(NotImplementedError, match="define make_inputs"):
        Conformance().test_batch_of_one()


def test_torchs_own_loss_fails_where_it_is_known_to():
    class CrossEntropy(LossConformance):
        def make_loss(self):
            return nn.CrossEntropyLoss()

        def make_inputs(self, *, batch, classes, dtype, generator):
            logits = torch.randn(batch, classes, dtype=dtype, generator=generator)
            return {"input": logits, "target": torch.arange(batch) % classes}

    assert set(failing_checks(CrossEntropy)) == {
        "test_documents_shape_and_reference",
        "test_half_precision_is_summed_in_single",
        "test_options_are_keyword_only",
    }
