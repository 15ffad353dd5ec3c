"""Two gloo processes against one process on the joined batch."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from robustfer import losses, models, state
from robustfer.functional._gather import gather_rows
from robustfer.losses import RankRegularizationLoss, SCNLoss
from tests.state.processes import run_in_processes

CLASSES, WIDTH = 7, 5
WEIGHTS = torch.arange(1.0, CLASSES + 1).double()


class Network(nn.Module):
    """Logits and importances of one linear layer each."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.classifier = nn.Linear(WIDTH, CLASSES).double()
        self.head = nn.Linear(WIDTH, 1).double()
        for parameter in self.parameters():
            parameter.data = torch.randn(
                parameter.shape, generator=generator, dtype=torch.float64
            ).mul_(0.1)

    def forward(self, inputs):
        return self.classifier(inputs), torch.sigmoid(self.head(inputs))[:, 0]


def data(batch):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(batch, WIDTH, generator=generator, dtype=torch.float64)
    inputs[: batch // 2] += 1.0  # the important ones are not spread evenly over the processes
    return inputs, torch.randint(CLASSES, (batch,), generator=generator)


def gradients(network, criterion, inputs, target):
    logits, importance = network(inputs)
    loss = criterion(logits, target, importance)
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in network.named_parameters()}}


# Rows of the joined batch that the first of the two processes has; the second has the rest.
FIRST = {"even": 6, "uneven": 3, "all but one": 11}


def in_each_process(rank):
    inputs, target = data(12)
    found = {"gather": {}, "alone": {}, "learnt margin": {}, "class weights": {}}
    for name, first in FIRST.items():
        own = slice(first) if rank == 0 else slice(first, None)
        for kind, options in (
            ("gather", {}),  # by default
            ("alone", {"gather": False}),
            ("learnt margin", {"learnable_margin": True}),
            ("class weights", {"class_weights": WEIGHTS}),
        ):
            # Its own margin is a parameter outside DistributedDataParallel.
            network, criterion = DistributedDataParallel(Network()), SCNLoss(margin=0.5, **options)
            found[kind][name] = gradients(network, criterion, inputs[own], target[own])
            found[kind][name]["margin"] = getattr(criterion.margin, "grad", None)
    rows = torch.arange(6, dtype=torch.float32).reshape(3, 2) + 10 * rank
    rows = rows[: 3 - 2 * rank].t().contiguous().t().requires_grad_()
    (joined, number), start = gather_rows(rows, torch.arange(len(rows)))
    found["rows"] = joined.detach(), number, start
    # Compiled around the gathering, which itself stays as it is.
    compiled = torch.compile(SCNLoss(margin=0.5), backend="eager")
    own = slice(6 * rank, 6 * rank + 6)
    found["compiled"] = gradients(Network(), compiled, inputs[own], target[own])
    with pytest.raises(ValueError, match=r"importance must have shape \(B\)"):
        RankRegularizationLoss()(torch.zeros(3 + rank, 1))  # refused before any process waits
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_processes(in_each_process, tmp_path_factory.mktemp("gloo"))


def alone(**options):
    return gradients(Network(), SCNLoss(margin=0.5, **options), *data(12))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("kind", ["gather", "learnt margin", "class weights"])
def test_two_processes_equal_one_on_the_joined_batch(results, kind, name):
    expected = alone(class_weights=WEIGHTS if kind == "class weights" else None)
    first, second = (result[kind][name] for result in results)
    assert_close((first["loss"] + second["loss"]) / 2, expected.pop("loss"))
    for found in (first, second):
        for parameter, gradient in expected.items():
            assert_close(found[f"module.{parameter}"], gradient)


def test_a_learnt_margin_stays_the_same_in_all_processes(results):
    for name in FIRST:
        for result in results:  # of rank_weight times the margin, where the ranking is at work
            assert result["learnt margin"][name]["margin"] == 0.5


@pytest.mark.parametrize("name", FIRST)
def test_without_gathering_processes_differ_from_one(results, name):
    expected = alone()["head.weight"]
    difference = (results[0]["alone"][name]["module.head.weight"] - expected).abs().max()
    assert difference > 1e-3


def test_rows_come_in_the_order_of_the_processes(results):
    expected = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [10.0, 11.0]])
    for rank, result in enumerate(results):
        rows, number, start = result["rows"]
        assert torch.equal(rows, expected)
        assert torch.equal(number, torch.tensor([0, 1, 2, 0]))
        assert start == 3 * rank


def test_a_compiled_loss_gathers_too(results):
    expected = alone()
    compiled = results[0]["compiled"], results[1]["compiled"]
    total = (compiled[0]["head.weight"] + compiled[1]["head.weight"]) / 2
    assert_close(total, expected["head.weight"])


def test_without_processes_the_rows_come_back_as_they_are():
    rows, number = torch.rand(3), torch.arange(3)
    (same, also), start = gather_rows(rows, number)
    assert same is rows
    assert also is number
    assert start == 0


def with_gather():
    """Every public class of losses, models and state, and what its methods take."""
    for module in (losses, models, state):
        for name in module.__all__:
            made = getattr(module, name)
            if inspect.isclass(made) and not hasattr(made, "_fields"):
                yield f"{name}.update", getattr(made, "update", None)
                yield name, made


def test_gathering_is_the_default_everywhere():
    found = {}
    for name, call in with_gather():
        parameters = {} if call is None else inspect.signature(call).parameters
        if "gather" in parameters:
            found[name] = parameters["gather"].default
    assert len(found) > 8
    assert set(found.values()) == {True}, found
