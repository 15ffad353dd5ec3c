"""The linear layer of the uncertainty, shared by the loss and the head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robustfer.authoring import (
    check_floating,
    check_shapes,
    check_whole_number,
    full_precision,
    without_autocast,
)


def make_uncertainty_branch(num_features: int, dim: int) -> nn.Linear:
    """Return a linear layer from embeddings to log variances, which are near 0 at first.

    All uncertainties are then nearly equal, and the first mixtures are nearly halves. The weights
    are not exactly 0, because equal rows would get equal gradients and stay equal.
    """
    num_features = check_whole_number("num_features", num_features, 1)
    branch = nn.Linear(num_features, check_whole_number("dim", dim, 1))
    nn.init.normal_(branch.weight, std=0.01)
    nn.init.zeros_(branch.bias)
    return branch


def apply_branch(branch: nn.Linear, embeddings: Tensor) -> Tensor:
    """Apply a linear layer, in float32 for half embeddings and under autocast."""
    check_shapes(embeddings=(embeddings, f"B {branch.in_features}"))
    check_floating(embeddings=embeddings)
    embeddings = full_precision(embeddings)
    weight, bias = branch.weight.to(embeddings.dtype), branch.bias.to(embeddings.dtype)
    with without_autocast(embeddings):
        return F.linear(embeddings, weight, bias)
