"""Embeddings projected onto a sphere, where two spaces can be compared (LA-Net)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import check_floating, check_shapes, check_whole_number
from robustfer.functional._precision import full_precision


class ProjectionHead(nn.Module):
    r"""Project embeddings by two linear layers with a ReLU between, to rows of length one.

    .. math:: e = \frac{W_2 \max(0, W_1 f + b_1) + b_2}{\|W_2 \max(0, W_1 f + b_1) + b_2\|}

    LA-Net has one for the expression's embeddings and one for the landmarks'. Inference does not
    need them.

    Args:
        in_dim: D, the width of the embeddings.
        dim: d, the width of the projection and between the layers.

    Shape:
        embeddings ``(B, D)`` -> ``(B, d)``, rows of length one; float32 for half inputs.

    Raises:
        ValueError: a width is not a positive whole number, or not that of the embeddings.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, in_dim: int, *, dim: int = 64) -> None:
        super().__init__()
        in_dim = check_whole_number("in_dim", in_dim, 1)
        dim = check_whole_number("dim", dim, 1)
        self.hidden = nn.Linear(in_dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        check_shapes(embeddings=(embeddings, f"B {self.hidden.in_features}"))
        check_floating(embeddings=embeddings)
        projected = self.output(F.relu(self.hidden(embeddings)))
        return F.normalize(full_precision(projected), dim=1)
