import random
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from robustfer.testing._state import changes, plain_tensors, random_state, same, state_of


@dataclass
class Record:
    count: int = 0
    history: list = field(default_factory=list)


class Keeper(nn.Module):
    """A module that remembers in every way there is."""

    def __init__(self):
        super().__init__()
        self.inner = nn.BatchNorm1d(2)
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.weights = {"a": 1.0, "b": [1, 2]}
        self.names = {"x", "y"}
        self.record = Record()
        self.plain = torch.tensor([1.0, float("nan")])
        self.outside = (nn.Linear(1, 1),)
        self.array = np.zeros(3)
        self.generator = torch.Generator().manual_seed(0)
        self.numpy_generator = np.random.default_rng(0)
        self.python_generator = random.Random(0)
        self.function = lambda: None
        self.opaque = object()
        self.record.history.append(self.record)  # a circle


def put(container, key, value):
    container[key] = value


EVENTS = {
    "inner.weight": lambda keeper: keeper.inner.weight.data.add_(1),
    "inner.running_mean": lambda keeper: keeper.inner.running_mean.add_(1),
    "hidden": lambda keeper: keeper.hidden.add_(1),
    "weights['a'] (1.0 -> 2.0)": lambda keeper: put(keeper.weights, "a", 2.0),
    "weights['b'][1] (2 -> 3)": lambda keeper: put(keeper.weights["b"], 1, 3),
    "names (['x', 'y'] -> ['x', 'y', 'z'])": lambda keeper: keeper.names.add("z"),
    "record.count (0 -> 1)": lambda keeper: setattr(keeper.record, "count", 1),
    "plain": lambda keeper: keeper.plain.add_(1),
    "outside[0].weight": lambda keeper: keeper.outside[0].weight.data.add_(1),
    "array": lambda keeper: put(keeper.array, 0, 1.0),
    "generator": lambda keeper: torch.rand(1, generator=keeper.generator),
    "numpy_generator": lambda keeper: keeper.numpy_generator.random(),
    "python_generator": lambda keeper: keeper.python_generator.random(),
    "new (nothing -> 1)": lambda keeper: setattr(keeper, "new", 1),
}


@pytest.mark.parametrize("path", EVENTS)
def test_every_change_is_named(path):
    keeper = Keeper()
    before = state_of(keeper)
    assert changes(before, state_of(keeper)) == []
    EVENTS[path](keeper)
    (change,) = changes(before, state_of(keeper))
    assert change == path or change.startswith(f"{path} (")


def test_a_change_of_kind_is_a_change():
    keeper = Keeper()
    before = state_of(keeper)
    keeper.plain = None
    assert changes(before, state_of(keeper)) == ["plain"]


def test_plain_tensors_are_those_torch_does_not_see():
    assert plain_tensors(Keeper()) == ["plain", "outside[0].weight", "outside[0].bias"]
    assert plain_tensors(nn.BatchNorm1d(2)) == []


def test_same_is_to_the_bit():
    nan = torch.tensor([1.0, float("nan")])
    assert same(nan, nan.clone())
    assert not same(nan, nan.double())
    assert not same(nan, nan[:1])
    assert not same(nan, torch.tensor([2.0, float("nan")]))


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(1),
        lambda: np.random.rand(),  # noqa: NPY002 (the global generator is meant)
        lambda: random.random(),
    ],
)
def test_random_state_sees_every_global_generator(draw):
    before = random_state()
    assert random_state() == before
    draw()
    assert random_state() != before
