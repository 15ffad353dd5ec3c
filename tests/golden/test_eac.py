import pytest
import torch

from robustfer.functional import attention_consistency
from robustfer.functional.attention import class_attention
from robustfer.losses import EACLoss
from tests.golden.conftest import assert_agrees, assert_array_agrees, tensor

GOLDEN = "eac"


def forward(case, dtype):
    f1, f2, weight, bias = (
        tensor(case[k], dtype, grad=True) for k in ("f1", "f2", "weight", "bias")
    )
    cam1, cam2 = class_attention(f1, weight), class_attention(f2, weight)
    cam1.retain_grad()
    cam2.retain_grad()
    logits1 = f1.mean((2, 3)) @ weight.T + bias
    criterion = EACLoss(consistency_weight=float(case["lam"]))
    terms = criterion.terms(logits1, tensor(case["y"]), cam1, cam2)
    return (f1, f2, weight, bias), (cam1, cam2), logits1, terms


def square_scale(case):
    """Scale of the consistency: that of the squared maps it is a mean difference of."""
    cams = [case[k] for k in case if k in ("cam1", "cam2", "cam1__head", "cam2__head")]
    return max(abs(cam).max() for cam in cams) ** 2


def test_class_maps(case):
    (f1, _, weight, _), (cam1, cam2), logits1, _ = forward(case, torch.float64)
    scale = (f1.abs().max() * weight.abs().max()).item()
    assert_array_agrees(cam1, case, "cam1", scale=scale)
    assert_array_agrees(cam2, case, "cam2", scale=scale)
    assert_agrees(logits1, case["logits1"], scale=scale)


def test_values(case):
    _, _, _, terms = forward(case, torch.float64)
    lam, scale = float(case["lam"]), square_scale(case)
    assert_agrees(terms["cross_entropy"], case["ce"])
    assert_agrees(terms["attention_consistency"] / lam, case["ac"], scale=scale)
    assert_agrees(sum(terms.values()), case["total"], scale=lam * scale)


def test_values_in_single_precision(case):
    _, _, _, terms = forward(case, torch.float32)
    lam, scale = float(case["lam"]), square_scale(case)
    assert_agrees(terms["cross_entropy"], case["ce_f32"])
    assert_agrees(terms["attention_consistency"] / lam, case["ac_f32"], scale=scale)
    assert_agrees(sum(terms.values()), case["total_f32"], scale=lam * scale)


def test_gradients_of_the_total(case):
    (f1, f2, weight, bias), (cam1, _), _, terms = forward(case, torch.float64)
    sum(terms.values()).backward()
    # What a gradient of the consistency is made of: 2 lam / (BCHW) times maps times weights.
    scale = 2 * float(case["lam"]) * square_scale(case) ** 0.5 / cam1.numel()
    scale *= weight.shape[0] * weight.abs().max().item()
    assert_array_agrees(f1.grad, case, "dtotal_df1", scale=scale)
    assert_array_agrees(f2.grad, case, "dtotal_df2", scale=scale)
    assert_agrees(weight.grad, case["dtotal_dweight"])
    assert_agrees(bias.grad, case["dtotal_dbias"])


@pytest.mark.parametrize("key", ["dac_dcam1", "dac_dcam2"])
def test_gradients_of_the_consistency(case, key):
    _, (cam1, cam2), _, _ = forward(case, torch.float64)
    attention_consistency(cam1, cam2).backward()
    ours = cam1.grad if key.endswith("1") else cam2.grad
    scale = 2 * square_scale(case) ** 0.5 / cam1.numel()
    assert_array_agrees(ours, case, key, scale=scale)
