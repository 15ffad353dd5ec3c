"""Estimate label distributions from the neighbours in two spaces (LA-Net)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import (
    Variant,
    check_bool,
    check_floating,
    check_int64,
    check_shapes,
    check_variant,
    check_whole_number,
)
from robustfer.functional._gather import gather_rows, several_processes
from robustfer.functional._precision import full_precision, without_autocast
from robustfer.functional.neighbors import cosine_neighbors, neighbor_distribution


class PairScorer(nn.Module):
    r"""Score how useful a neighbour's prediction is for a sample. The order of the pair counts.

    .. math:: c_{ij} = \operatorname{softmax}(\mathrm{MLP}([g^1_i;\, g^2_j]))_0,
        \qquad [g^1;\, g^2] = W f + b

    The first layer of the MLP is split into a part for :math:`g^1` and a part for :math:`g^2`, so
    each sample passes it once. It computes in float32 for half inputs, also under autocast.

    Args:
        dim: D, the width of the features, even and at least 4.

    Shape:
        features ``(B, D)``, neighbors ``(R, K)`` int64 rows of features, rows ``(R)`` int64 ->
        ``(R, K)`` in [0, 1].
    """

    __call__: Callable[..., Tensor]

    def __init__(self, dim: int) -> None:
        super().__init__()
        dim = check_whole_number("dim", dim, 4)
        if dim % 2:
            raise ValueError(f"dim must be even, got {dim}")
        self.project = nn.Linear(dim, dim)
        self.pair = nn.Linear(dim, dim // 2)
        self.hidden = nn.Linear(dim // 2, dim // 4)
        self.score = nn.Linear(dim // 4, 2)

    def forward(self, features: Tensor, neighbors: Tensor, rows: Tensor | None = None) -> Tensor:
        of_width = features, f"B {self.project.in_features}"
        if rows is None:
            check_shapes(features=of_width, neighbors=(neighbors, "B K*"))
        else:
            check_shapes(features=of_width, neighbors=(neighbors, "R K*"), rows=(rows, "R"))
            check_int64(rows=rows)
        check_floating(features=features)
        check_int64(neighbors=neighbors)
        features = full_precision(features)
        with without_autocast(features):
            first, second = _linear(self.project, features).chunk(2, dim=1)
            left, right = self.pair.weight.to(features.dtype).chunk(2, dim=1)
            if rows is not None:
                first = first.index_select(0, rows)
            one = F.linear(first, left, self.pair.bias.to(features.dtype))
            other = F.linear(second, right).index_select(0, neighbors.flatten())
            pairs = F.relu(one[:, None] + other.reshape(*neighbors.shape, len(left)))
            pairs = F.relu(_linear(self.hidden, pairs))
            # A softmax of two is the sigmoid of their difference.
            weight, bias = (p.to(features.dtype) for p in (self.score.weight, self.score.bias))
            return torch.sigmoid(pairs @ (weight[0] - weight[1]) + (bias[0] - bias[1]))


class LabelDistributionEstimator(nn.Module):
    r"""Estimate the label distribution of each sample from its neighbours in two spaces.

    .. math::
        t_i = \tfrac{1}{2} (d^u_i + d^v_i), \qquad
        d^s_i = \sum_j w^s_{ij} \operatorname{softmax}(z_j)

    with :math:`u` the expression space, :math:`v` the landmark space, and :math:`w` the normalised
    scores of the ``num_neighbors`` nearest samples by cosine similarity. Each space has a
    :class:`PairScorer`; see :func:`neighbor_distribution`. Gradients reach the scorers, the
    features through them, and the neighbours' logits. The choice of neighbours is a constant.
    :class:`robustfer.state.LabelDistributionBank` makes the training target from the estimate.

    It has parameters and belongs to the model, inside ``DistributedDataParallel``, as in
    :class:`LANetModel`. Inference does not need it.

    Args:
        expression_dim: D, the width of the expression space, even.
        landmark_dim: E, the width of the landmark space, even.
        num_neighbors: number of neighbours in each space, at most.
        detach_neighbor_probabilities: detach the neighbours' logits.
        gather: join the batches of all processes. Each must then call this at the same point, and
            estimates for its own samples. With one process it has no effect.
        variant: ``"paper"``, or ``"official"``, where a sample may be its own neighbour; see
            :func:`cosine_neighbors`.

    Shape:
        embeddings ``(B, D)``, landmark_embeddings ``(B, E)``, logits ``(B, C)``, index ``(B)``
        int64 -> ``(B, C)``, rows sum to 1; float32 for half inputs.
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        expression_dim: int,
        landmark_dim: int,
        *,
        num_neighbors: int = 8,
        detach_neighbor_probabilities: bool = False,
        gather: bool = True,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        self.num_neighbors = check_whole_number("num_neighbors", num_neighbors, 1)
        check_variant(variant)
        self.expression_scorer = PairScorer(expression_dim)
        self.landmark_scorer = PairScorer(landmark_dim)
        self.detach_neighbor_probabilities = check_bool(
            "detach_neighbor_probabilities", detach_neighbor_probabilities
        )
        self.gather = check_bool("gather", gather)
        self.variant: Variant = variant

    def forward(
        self, embeddings: Tensor, landmark_embeddings: Tensor, logits: Tensor, index: Tensor
    ) -> Tensor:
        check_shapes(
            embeddings=(embeddings, "B D"),
            landmark_embeddings=(landmark_embeddings, "B E"),
            logits=(logits, "B C"),
            index=(index, "B"),
        )
        check_floating(
            embeddings=embeddings, landmark_embeddings=landmark_embeddings, logits=logits
        )
        check_int64(index=index)
        rows = None
        if self.gather and several_processes():
            own = len(index)
            (embeddings, landmark_embeddings, logits, index), start = gather_rows(
                embeddings, landmark_embeddings, logits, index
            )
            rows = torch.arange(start, start + own, device=index.device)
        probabilities = full_precision(logits).softmax(dim=1)
        if self.detach_neighbor_probabilities:
            probabilities = probabilities.detach()
        estimates = []
        for features, scorer in (
            (embeddings, self.expression_scorer),
            (landmark_embeddings, self.landmark_scorer),
        ):
            neighbors, valid = cosine_neighbors(
                features, index, num_neighbors=self.num_neighbors, rows=rows, variant=self.variant
            )
            scores = scorer(features, neighbors, rows)
            estimates.append(neighbor_distribution(probabilities, scores, neighbors, valid))
        return (estimates[0] + estimates[1]) / 2

    def extra_repr(self) -> str:
        names = ("num_neighbors", "detach_neighbor_probabilities", "gather", "variant")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    return F.linear(inputs, layer.weight.to(inputs.dtype), layer.bias.to(inputs.dtype))
