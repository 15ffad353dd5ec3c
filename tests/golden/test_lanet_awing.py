import pytest
import torch

from robustfer.functional import adaptive_wing
from tests.golden.conftest import assert_agrees, tensor

GOLDEN = "lanet_awing"


def given(case, dtype):
    prediction = tensor(case["pred"], dtype, grad=True)
    return prediction, tensor(case["target"], dtype), tensor(case["weight"], dtype)


@pytest.mark.parametrize(
    ("dtype", "key"), [(torch.float64, "weighted_mean"), (torch.float32, "weighted_mean_f32")]
)
def test_weighted_mean(case, dtype, key):
    assert_agrees(adaptive_wing(*given(case, dtype)), case[key])


def test_mean(case):
    prediction, target, _ = given(case, torch.float64)
    assert_agrees(adaptive_wing(prediction, target), case["mean"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_cell(case, dtype):
    prediction, target, _ = given(case, dtype)
    cells = (each.reshape(-1, 1, 1, 1) for each in (prediction, target))
    ours = adaptive_wing(*cells, reduction="none").reshape(target.shape)
    assert_agrees(ours, case["elementwise"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradient(case, dtype):
    prediction, target, weights = given(case, dtype)
    (ours,) = torch.autograd.grad(adaptive_wing(prediction, target, weights), prediction)
    assert_agrees(ours, case["dweighted_mean_dpred"])
