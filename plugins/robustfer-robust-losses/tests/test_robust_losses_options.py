"""What is refused, and with which words; how a loss shows itself."""

import re

import pytest
import torch
import torch.nn.functional as F

from robustfer.losses import check_values
from robustfer_robust_losses import losses

MODULES = {
    losses.ActivePassiveLoss: {},
    losses.HardBootstrappingLoss: {},
    losses.MeanAbsoluteErrorLoss: {},
    losses.NormalizedCrossEntropyLoss: {},
    losses.NormalizedGeneralizedCrossEntropyLoss: {},
    losses.ReverseCrossEntropyLoss: {},
    losses.SoftBootstrappingLoss: {},
    losses.SymmetricCrossEntropyLoss: {},
    losses.TruncatedGeneralizedCrossEntropyLoss: {},
}
FUNCTIONS = {
    losses.hard_bootstrapping: {},
    losses.mean_absolute_error: {},
    losses.normalized_cross_entropy: {},
    losses.normalized_generalized_cross_entropy: {},
    losses.reverse_cross_entropy: {},
    losses.soft_bootstrapping: {},
    losses.symmetric_cross_entropy: {},
    losses.truncated_generalized_cross_entropy: {},
}
OUT_OF_RANGE = {
    "q": ("(0, 1]", [0.0, -1.0, 1.5, float("nan")]),
    "threshold": ("[0, 1)", [-0.1, 1.0, float("nan")]),
    "floor": ("(0, 1)", [0.0, 1.0, float("nan")]),
    "label_weight": ("[0, 1]", [-0.1, 1.1, float("nan")]),
    "cross_entropy_weight": ("[0, inf)", [-1.0, float("inf")]),
    "reverse_weight": ("[0, inf)", [-1.0, float("inf")]),
    "active_weight": ("[0, inf)", [-1.0, float("inf")]),
    "passive_weight": ("[0, inf)", [-1.0, float("inf")]),
}
HAVE = {
    "q": [
        losses.ActivePassiveLoss,
        losses.NormalizedGeneralizedCrossEntropyLoss,
        losses.TruncatedGeneralizedCrossEntropyLoss,
        losses.normalized_generalized_cross_entropy,
        losses.truncated_generalized_cross_entropy,
    ],
    "threshold": [
        losses.TruncatedGeneralizedCrossEntropyLoss,
        losses.truncated_generalized_cross_entropy,
    ],
    "floor": [
        losses.ActivePassiveLoss,
        losses.ReverseCrossEntropyLoss,
        losses.SymmetricCrossEntropyLoss,
        losses.reverse_cross_entropy,
        losses.symmetric_cross_entropy,
    ],
    "label_weight": [
        losses.HardBootstrappingLoss,
        losses.SoftBootstrappingLoss,
        losses.hard_bootstrapping,
        losses.soft_bootstrapping,
    ],
    "cross_entropy_weight": [losses.SymmetricCrossEntropyLoss, losses.symmetric_cross_entropy],
    "reverse_weight": [losses.SymmetricCrossEntropyLoss, losses.symmetric_cross_entropy],
    "active_weight": [losses.ActivePassiveLoss],
    "passive_weight": [losses.ActivePassiveLoss],
}


def sample():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 7, generator=generator), torch.arange(4)


@pytest.mark.parametrize(
    ("option", "has_it"), [(option, one) for option in HAVE for one in HAVE[option]]
)
def test_an_option_out_of_range(option, has_it):
    interval, values = OUT_OF_RANGE[option]
    tensors = sample() if has_it in FUNCTIONS else ()
    for value in values:
        with pytest.raises(ValueError, match=re.escape(f"{option} must lie in {interval}, got")):
            has_it(*tensors, **{option: value})


@pytest.mark.parametrize("module", MODULES)
def test_an_unknown_reduction(module):
    with pytest.raises(ValueError, match="^reduction must be 'mean', 'sum' or 'none', got 'avg'"):
        module(**MODULES[module], reduction="avg")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_arguments_that_do_not_fit(function):
    logits, target = sample()
    for wrong, message in (
        ((logits[:3], target), r"target has B=4 but logits has B=3"),
        ((logits, target.int()), r"target must be int64 class indices .* got torch.int32"),
        ((logits, F.one_hot(target, 7)), "for one-hot rows use target.float"),
        ((logits[0], target), r"logits must have shape \(B, C\), got \(7\)"),
        ((logits.long(), target), r"logits must have a floating-point dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            function(*wrong, **FUNCTIONS[function])
    with pytest.raises(ValueError, match="^reduction must be 'mean', 'sum' or 'none', got 'avg'"):
        function(logits, target, **FUNCTIONS[function], reduction="avg")
    with check_values(), pytest.raises(ValueError, match="class indices from 0 to 6, got 7"):
        function(logits, target.clone().fill_(7), **FUNCTIONS[function])


@pytest.mark.parametrize("label", [-100, -1, 7])
@pytest.mark.parametrize("module", MODULES)
def test_no_label_is_left_out(module, label):
    logits, target = sample()
    target[1] = label
    with pytest.raises(IndexError, match=f"0 to 6, got {label} at position 1. If your labels"):
        module(**MODULES[module])(logits, target)
    with check_values(), pytest.raises(ValueError, match=f"0 to 6, got {label} at position 1"):
        module(**MODULES[module])(logits, target)


def test_one_class_cannot_be_normalized():
    one = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    for function in (
        losses.normalized_cross_entropy,
        losses.normalized_generalized_cross_entropy,
    ):
        with pytest.raises(ValueError, match="logits must have two classes or more, got 1"):
            function(*one)


def test_parts_of_active_passive_that_are_none():
    with pytest.raises(ValueError, match="^active must be 'normalized_cross_.* got 'mae'"):
        losses.ActivePassiveLoss(active="mae")
    with pytest.raises(ValueError, match="^passive must be 'mean_absolute_.* got 'nce'"):
        losses.ActivePassiveLoss(passive="nce")


def test_modules_say_how_they_were_made():
    assert [repr(module(**options)) for module, options in MODULES.items()] == [
        "ActivePassiveLoss(active='normalized_cross_entropy', passive='mean_absolute_error', "
        "active_weight=1.0, passive_weight=1.0, q=0.7, floor=0.0001, reduction='mean')",
        "HardBootstrappingLoss(label_weight=0.8, reduction='mean')",
        "MeanAbsoluteErrorLoss(reduction='mean')",
        "NormalizedCrossEntropyLoss(reduction='mean')",
        "NormalizedGeneralizedCrossEntropyLoss(q=0.7, reduction='mean')",
        "ReverseCrossEntropyLoss(floor=0.0001, reduction='mean')",
        "SoftBootstrappingLoss(label_weight=0.95, reduction='mean')",
        "SymmetricCrossEntropyLoss(cross_entropy_weight=0.1, reverse_weight=1.0, floor=0.0001, "
        "reduction='mean')",
        "TruncatedGeneralizedCrossEntropyLoss(q=0.7, threshold=0.5, reduction='mean')",
    ]
