"""State stays where and what it is, whatever torch's default device and dtype are."""

import pytest
import torch
from torch import nn

from robustfer.functional import UNFILLED
from robustfer.state import (
    FeatureQueue,
    LabelDistributionBank,
    LabelStore,
    ModelEMA,
    Relabeler,
    TrainingDynamics,
)

GIVEN = torch.tensor([0, 2, 1, 1])
INDEX = torch.tensor([1, 3])
SCORES = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 0.5]])
IMPORTANCE = torch.tensor([0.9, 0.5])
MODEL = nn.Linear(2, 2)


def queue():
    made = FeatureQueue(3, capacity=4, generator=torch.Generator().manual_seed(0))
    made.update(SCORES, SCORES, GIVEN[:2])
    return made


def bank():
    made = LabelDistributionBank(GIVEN, num_classes=3)
    made.update(INDEX, made(INDEX, SCORES.softmax(1)))
    return made


def store():
    made = LabelStore(GIVEN, num_classes=3, soft_targets=True, journal_capacity=3)
    made.update(INDEX, SCORES.softmax(1), step=1, epoch=1)
    made.revert(INDEX[:1])
    return made


def relabelled():
    made = LabelStore(GIVEN, num_classes=3, journal_capacity=3)
    Relabeler(made, start_epoch=0).update(INDEX, SCORES, IMPORTANCE, step=0, epoch=1)
    return made


def average():
    made = ModelEMA(MODEL)
    made.update(MODEL)
    return made


def dynamics():
    made = TrainingDynamics(4, num_classes=3, given=GIVEN, early=(0, 1))
    made.update(INDEX, SCORES)
    return made


@pytest.fixture
def other_defaults():
    torch.set_default_dtype(torch.float64)
    with torch.device("meta"):
        yield
    torch.set_default_dtype(torch.float32)


MAKERS = (queue, bank, store, relabelled, average, dynamics)
EXPECTED = {make.__name__: make().state_dict() for make in MAKERS}


@pytest.mark.parametrize("make", MAKERS)
def test_made_and_used_under_other_defaults(make, other_defaults):
    state = make().state_dict()
    assert state.keys() == EXPECTED[make.__name__].keys()
    for name, value in EXPECTED[make.__name__].items():
        assert (state[name].device.type, state[name].dtype) == ("cpu", value.dtype)
        torch.testing.assert_close(state[name], value, rtol=0, atol=0, equal_nan=True)


def test_a_queue_is_drawn_where_its_generator_is(other_defaults):
    drawn = FeatureQueue(3, capacity=2)
    assert drawn.expression.device.type == "cpu"
    assert drawn.label.tolist() == [UNFILLED, UNFILLED]
