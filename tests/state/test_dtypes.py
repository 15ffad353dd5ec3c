"""State keeps its precision in a model that is cast to half precision."""

import pytest
import torch
from torch import nn

from robustfer.state import (
    FeatureQueue,
    LabelDistributionBank,
    LabelStore,
    ModelEMA,
    TrainingDynamics,
)

GIVEN = torch.tensor([0, 1, 2, 1])
MADE = {
    "teacher": lambda: ModelEMA(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))),
    "dynamics": lambda: TrainingDynamics(4, num_classes=3, given=GIVEN),
    "queue": lambda: FeatureQueue(dim=3, capacity=4),
    "bank": lambda: LabelDistributionBank(GIVEN, num_classes=3),
    "labels": lambda: LabelStore(GIVEN, num_classes=3, soft_targets=True),
}


def dtypes(module):
    return {name: tensor.dtype for name, tensor in module.state_dict().items()}


@pytest.fixture(params=MADE)
def state(request):
    return MADE[request.param]()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_of_a_parent_to_half_precision_leaves_it(state, dtype):
    before = {name: tensor.clone() for name, tensor in state.state_dict().items()}
    parent = nn.ModuleDict({"network": nn.Linear(2, 2), "state": state})
    for cast in (
        lambda: parent.to(dtype),
        parent.half,
        parent.bfloat16,
        lambda: parent.to("cpu", dtype, memory_format=torch.channels_last),
    ):
        cast()
        assert parent["network"].weight.dtype in (torch.float16, torch.bfloat16)
        for name, tensor in state.state_dict().items():
            assert torch.equal(tensor, before[name]), name
            assert tensor.dtype == before[name].dtype, name


def test_it_follows_a_parent_to_a_device_and_to_other_dtypes(state):
    before = dtypes(state)
    parent = nn.Sequential(state).double()
    floating = {name for name, dtype in before.items() if dtype.is_floating_point}
    assert all(dtypes(state)[name] == torch.float64 for name in floating)
    parent.float()
    assert all(dtypes(state)[name] == torch.float32 for name in floating)
    parent.to("meta", torch.bfloat16)
    for name, tensor in state.state_dict().items():
        assert tensor.device.type == "meta", name
        assert tensor.dtype != torch.bfloat16, name


def test_a_teacher_in_a_cast_parent_still_follows():
    network = nn.Linear(4, 4)
    parent = nn.ModuleDict({"network": network, "teacher": ModelEMA(network, warmup=False)})
    parent.bfloat16()
    teacher, before = parent["teacher"], parent["teacher"].module.weight.clone()
    with torch.no_grad():
        network.weight.add_(0.2)
    for _ in range(3000):
        teacher.update(network)
    moved = (teacher.module.weight - before).mean()
    assert 0.18 < moved < 0.2


def test_dynamics_in_a_cast_parent_still_count():
    dynamics = nn.Sequential(
        TrainingDynamics(2, num_classes=3, given=torch.tensor([0, 1]))
    ).bfloat16()[0]
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.3, 0.0]])
    for _ in range(1000):
        dynamics.update(torch.arange(2), logits)
    torch.testing.assert_close(dynamics.area_under_margin(), torch.tensor([1.0, 0.3]))
    torch.testing.assert_close(dynamics.probabilities(), logits.softmax(1))
