import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from robustfer.authoring import load_whole
from robustfer.losses import CompositeLoss, RankRegularizationLoss, Term


def refuse_negative(module, saved):
    if int(saved["steps"]) < 0:
        raise ValueError(f"steps must not be negative, got {int(saved['steps'])}")


class Remembering(nn.Module):
    """Values, a count and a part, in the order in which torch copies them."""

    def __init__(self, size=3, check=refuse_negative):
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("values", torch.zeros(size))
        self.part = nn.Linear(size, 1)
        load_whole(self, check)


def used(size=3):
    module = Remembering(size)
    module.steps += 5
    module.values += 1.0
    return module


def misfits():
    state = used().state_dict()
    yield used(4).state_dict(), r"values is torch.float32 of shape \(4\) there and .* \(3\) here"
    yield {**state, "stray": torch.zeros(1)}, "stray is torch.float32 .* there and not here"
    yield {**state, "steps": torch.tensor(5.5)}, "steps is torch.float32 .* there and torch.int64"
    yield {**state, "steps": torch.tensor(5, dtype=torch.int32)}, "torch.int32 .* there"
    yield {**state, "values": torch.ones(3, dtype=torch.int64)}, "values is torch.int64"
    yield {**state, "values": [1.0, 1.0, 1.0]}, "values is a list there"
    yield {**state, "part.bias": torch.ones(2)}, "part.bias is torch.float32"
    yield {**state, "steps": torch.tensor(-1)}, "steps must not be negative, got -1"
    for name in state:
        rest = {key: value for key, value in state.items() if key != name}
        yield rest, f"{name} is not there and torch"


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("state", "message"), list(misfits()))
def test_what_does_not_fit_changes_nothing(state, message, inside, strict):
    module = Remembering()
    before = copy.deepcopy(module.state_dict())
    target, prefix = (nn.ModuleDict({"one": module}), "one.") if inside else (module, "")
    with pytest.raises(ValueError, match=f"saved Remembering does not fit.*{message}"):
        target.load_state_dict({prefix + key: state[key] for key in state}, strict=strict)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("inside", [False, True])
def test_what_fits_is_loaded(inside):
    module, saved = Remembering(), used().state_dict()
    target, prefix = (nn.ModuleDict({"one": module}), "one.") if inside else (module, "")
    saved["values"] = saved["values"].double()  # floating-point dtypes may differ
    target.load_state_dict({prefix + key: saved[key] for key in saved})
    assert int(module.steps) == 5
    assert torch.equal(module.values, torch.ones(3))
    assert torch.equal(module.part.weight, saved["part.weight"])


def test_what_was_not_saved_at_all_is_left_to_torch():
    module = Remembering()
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict({})
    assert nn.ModuleDict({"one": module}).load_state_dict({}, strict=False).missing_keys
    assert int(module.steps) == 0


def test_of_many_names_three_are_listed():
    deep = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    load_whole(deep)
    state = {name: torch.zeros(9) for name in deep.state_dict()}
    with pytest.raises(ValueError, match=r"0\.weight .*; 0\.bias .*; 1\.weight .*, and 7 more"):
        deep.load_state_dict(state)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_look_at_themselves(copied):
    module = copied(Remembering())
    module.values.add_(7.0)
    with pytest.raises(ValueError, match="does not fit"):
        module.load_state_dict(used(4).state_dict())
    assert torch.equal(module.values, torch.full((3,), 7.0))


def test_nothing_is_kept_alive():
    gc.collect()
    gc.disable()
    try:
        kept = weakref.ref(Remembering())
        assert kept() is None
    finally:
        gc.enable()


class Centres(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.register_buffer("values", torch.ones(size))

    def forward(self, logits):
        return (logits - self.values).square().mean()


def test_a_composition_is_loaded_whole():
    def make(size):
        return CompositeLoss(
            Term("rank", RankRegularizationLoss(learnable_margin=True)),
            Term("centres", Centres(size)),
        )

    other, criterion = make(4), make(3)
    with torch.no_grad():
        other.losses[0].margin.fill_(0.5)
    with pytest.raises(ValueError, match="saved CompositeLoss does not fit.*losses.1.values"):
        criterion.load_state_dict(other.state_dict())
    assert criterion.losses[0].margin.item() == pytest.approx(0.15)
