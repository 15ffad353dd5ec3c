"""Two gloo processes against one process on the joined batch."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from robustfer.functional._gather import gather_rows
from robustfer.losses import SCNLoss
from tests.state.processes import run_in_processes

CLASSES, WIDTH = 7, 5


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


def rank_alone(network, inputs):
    """The rank regularization's own gradient, from batches of uneven size."""
    criterion = SCNLoss(margin=0.5, rank_weight=1.0, gather=True)
    logits, importance = network(inputs)
    terms = criterion.terms(logits, torch.zeros(len(inputs), dtype=torch.int64), importance)
    terms["rank_regularization"].backward()
    return {
        "loss": terms["rank_regularization"].detach(),
        "weight": network.head.weight.grad,
        "bias": network.head.bias.grad,
    }


def in_each_process(rank):
    inputs, target = data(12)
    own = slice(6 * rank, 6 * rank + 6)
    found = {}
    for gather in (False, True):
        network = DistributedDataParallel(Network())
        criterion = SCNLoss(margin=0.5, gather=gather)
        found[gather] = gradients(network, criterion, inputs[own], target[own])
    uneven = Network()
    found["uneven"] = rank_alone(uneven, inputs[slice(0, 3) if rank == 0 else slice(3, 12)])
    rows = torch.arange(6, dtype=torch.float32).reshape(3, 2) + 10 * rank
    rows = rows[: 3 - 2 * rank].t().contiguous().t().requires_grad_()
    (joined, number), start = gather_rows(rows, torch.arange(len(rows)))
    found["rows"] = joined.detach(), number, start
    # Compiled around the gathering, which itself stays as it is.
    compiled = torch.compile(SCNLoss(margin=0.5, gather=True), backend="eager")
    found["compiled"] = gradients(Network(), compiled, inputs[own], target[own])
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_processes(in_each_process, tmp_path_factory.mktemp("gloo"))


def alone():
    return gradients(Network(), SCNLoss(margin=0.5), *data(12))


def test_gathered_ranking_has_the_gradient_of_one_process(results):
    expected = alone()
    loss = (results[0][True]["loss"] + results[1][True]["loss"]) / 2
    torch.testing.assert_close(loss, expected.pop("loss"), rtol=1e-10, atol=1e-12)
    for result in results:
        for name, gradient in expected.items():
            found = result[True][f"module.{name}"]
            torch.testing.assert_close(found, gradient, rtol=1e-10, atol=1e-12, msg=name)


def test_ranking_by_process_differs(results):
    expected = alone()["head.weight"]
    difference = (results[0][False]["module.head.weight"] - expected).abs().max()
    assert difference > 1e-3


def test_batches_of_uneven_size(results):
    """Without DistributedDataParallel's division the gradients of the processes add up."""
    network, (inputs, _) = Network(), data(12)
    expected = copy.deepcopy(rank_alone(network, inputs))
    for result in results:
        assert result["uneven"]["loss"] == expected["loss"]
    for name in ("weight", "bias"):
        total = results[0]["uneven"][name] + results[1]["uneven"][name]
        torch.testing.assert_close(total / 2, expected[name], rtol=1e-10, atol=1e-12)


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
    torch.testing.assert_close(total, expected["head.weight"], rtol=1e-10, atol=1e-12)


def test_without_processes_the_rows_come_back_as_they_are():
    rows, number = torch.rand(3), torch.arange(3)
    (same, also), start = gather_rows(rows, number)
    assert same is rows
    assert also is number
    assert start == 0
