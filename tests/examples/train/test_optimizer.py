"""What a loss learns at rates of its own, beside the optimizer of the network."""

import copy

import pytest
import torch
from torch import nn

from examples.train.engine import Training
from examples.train.optimizer import Joined, Schedule
from examples.train.options import OptimizerOptions
from robustfer.checkpoint import load_resume
from tests.examples.train.runs import settings_of, train

RATES = {"lr_u": 100.0, "lr_v": 5.0}
LOSS = "sparse_over_parameterization=1," + ",".join(f"{k}={v}" for k, v in RATES.items())


def saved(tmp_path, *options):
    """Train two epochs and return the state, and the loss's first values."""
    settings = settings_of("compose", f"--output={tmp_path}/run", *options)
    settings.own.loss[:] = [LOSS]
    train(settings)
    return load_resume(tmp_path / "run/resume.pt")


def pair(clip_norm=None):
    torch.manual_seed(0)
    model, own = nn.Linear(3, 2), nn.Parameter(torch.randn(4))
    main = torch.optim.AdamW(model.parameters(), lr=0.01)
    beside = torch.optim.SGD([{"params": [own], "lr": 2.0}])
    return model, own, Joined(main, beside, clip_norm=clip_norm)


def backward(model, own, scale=lambda loss: loss):
    scale(model(torch.ones(1, 3)).square().sum() + own.square().sum()).backward()


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_no_schedule_and_no_optimizer_of_the_network_moves_the_rates(tmp_path, optimizer, schedule):
    state = saved(tmp_path, f"--optimizer={optimizer}", f"--schedule={schedule}")
    groups = state["optimizer"]["beside"]["param_groups"]
    names = ("lr", "momentum", "weight_decay")
    scale = 16 / 128  # of the batch to the paper's
    assert [tuple(group[name] for name in names) for group in groups] == [
        (scale * RATES["lr_u"], 0.0, 0.0),
        (scale * RATES["lr_v"], 0.0, 0.0),
    ]
    learned = state["method"]["criterion.losses.0.u"]
    assert learned.square().max() > 0.01  # a standard deviation of 0.01 at first


@pytest.mark.parametrize("optimizer", ["sgd", "lookahead_sgd"])
def test_only_the_gradient_of_the_network_is_clipped(tmp_path, optimizer):
    settings = settings_of(
        "compose", f"--output={tmp_path}/run", f"--optimizer={optimizer}", "--clip-norm=1e-3",
        "--optimizer-options.nesterov=false", "--weight-decay=0", "--schedule=none",
        "--learning-rate=1",
    )  # fmt: skip
    settings.own.loss[:] = [LOSS]
    training = Training(settings)
    training.begin()
    before = [parameter.detach().clone() for parameter in training.network.parameters()]
    u = training.method.criterion.losses[0].u
    first = u.detach().clone()
    training._step(next(training._batches(1)))
    assert training.stepped
    moved = [p.detach() - old for p, old in zip(training.network.parameters(), before, strict=True)]
    length = torch.stack([step.norm() for step in moved]).norm()
    assert length.item() == pytest.approx(1e-3, rel=1e-3)
    # The rate of u is far higher: clipped with the rest, it would move by no more than this.
    scale = 16 / 128
    assert (u.detach() - first).norm() > 10 * 1e-3 * scale * RATES["lr_u"]
    training.end()


def test_layers_have_rates_of_their_own_without_a_schedule():
    group = {"params": [nn.Parameter(torch.zeros(1))], "lr_scale": 0.5}
    optimizer = torch.optim.SGD([group], lr=0.1)
    Schedule(optimizer, OptimizerOptions(schedule="none"), steps=1)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_both_are_stepped():
    model, own, joined = pair()
    before = copy.deepcopy(model), own.detach().clone()
    backward(model, own)
    joined.step()
    torch.testing.assert_close(own.detach(), before[1] - 2.0 * 2 * before[1])
    assert not torch.equal(model.weight, before[0].weight)
    joined.zero_grad()
    assert own.grad is None
    assert model.weight.grad is None


def test_a_scaler_unscales_and_skips_both():
    (model, own, joined), (other, its_own, plain) = pair(0.1), pair(0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    backward(model, own, scaler.scale)
    scaler.step(joined)
    backward(other, its_own)
    plain.step()
    torch.testing.assert_close(own, its_own)
    torch.testing.assert_close(model.weight, other.weight)
    scaler.update()
    own.grad.fill_(torch.inf)
    before = model.weight.detach().clone(), own.detach().clone()
    scaler.step(joined)
    assert torch.equal(model.weight, before[0])
    assert torch.equal(own, before[1])


def test_a_loaded_state_goes_on_to_the_bit():
    (model, own, joined), (_, _, resumed) = pair(), pair()
    backward(model, own)
    joined.step()
    groups = resumed.param_groups
    resumed.load_state_dict(copy.deepcopy(joined.state_dict()))
    assert resumed.param_groups is groups
    assert [id(group) for group in groups] == [
        id(group) for one in resumed.parts.values() for group in one.param_groups
    ]
    [one, *_] = joined.main.state.values()
    [other, *_] = resumed.main.state.values()
    torch.testing.assert_close(one, other)
