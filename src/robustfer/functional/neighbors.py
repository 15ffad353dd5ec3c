"""Estimate the label of a face from its neighbours (LA-Net)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import (
    Variant,
    check_floating,
    check_int64,
    check_mask,
    check_probabilities,
    check_shapes,
    check_variant,
    check_whole_number,
    check_within,
    values_are_checked,
)
from robustfer.functional._precision import full_precision, without_autocast


@torch.no_grad()
def cosine_neighbors(
    embeddings: Tensor,
    index: Tensor,
    *,
    num_neighbors: int,
    rows: Tensor | None = None,
    variant: Variant = "paper",
) -> tuple[Tensor, Tensor]:
    r"""Find the nearest other samples of a batch by cosine similarity, without gradient.

    With fewer other samples than ``num_neighbors``, all are neighbours. A second row of the same
    sample (an image drawn twice) is not a neighbour. An embedding of zeros is not one either: it
    has no direction, such as that of a face without landmarks.

    ``variant="official"`` gives a row the similarity -1 with itself. With too few other rows it is
    its own neighbour. A second row of the same sample and an embedding of zeros can be neighbours.

    Args:
        embeddings: embeddings of the batch.
        index: rows of the samples in the data set; equal rows are the same sample.
        num_neighbors: how many neighbours to find, at most.
        rows: rows of the batch to find neighbours of; default: all.
        variant: ``"paper"`` or ``"official"``, see above.

    Returns:
        ``neighbors``, rows in the batch, nearest first, and ``valid``, False for entries that are
        not neighbours.

    Shape:
        embeddings ``(B, D)``, index ``(B)`` int64, rows ``(R)`` int64 -> neighbors ``(R, K)``
        int64, valid ``(R, K)`` bool.

    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> neighbors, valid = cosine_neighbors(embeddings, torch.arange(3), num_neighbors=1)
    >>> neighbors[:, 0]
    tensor([1, 0, 1])
    """
    sizes = check_shapes(embeddings=(embeddings, "B D"), index=(index, "B"))
    check_floating(embeddings=embeddings)
    check_int64(index=index)
    num_neighbors = check_whole_number("num_neighbors", num_neighbors, 1)
    check_variant(variant)
    if rows is not None:
        check_shapes(embeddings=(embeddings, "B D"), rows=(rows, "R"))
        check_int64(rows=rows)
        if values_are_checked():
            check_within(0, sizes["B"] - 1, rows=rows)
    unit = F.normalize(full_precision(embeddings), dim=1)
    place = torch.arange(sizes["B"], device=index.device)
    own = place if rows is None else rows
    with without_autocast(unit):
        similarity = unit.index_select(0, own) @ unit.T
    if variant == "official":
        similarity = similarity.masked_fill(own[:, None] == place, -1.0)
        most = sizes["B"]
    else:
        never = index.index_select(0, own)[:, None] == index
        never = never | (embeddings == 0).all(dim=1)
        similarity = similarity.masked_fill(never, -float("inf"))
        most = sizes["B"] - 1
    nearest, neighbors = similarity.topk(min(num_neighbors, most), dim=1)
    return neighbors, nearest > -float("inf")


def neighbor_distribution(
    probabilities: Tensor, scores: Tensor, neighbors: Tensor, valid: Tensor
) -> Tensor:
    r"""Average the predictions of the neighbours by their scores.

    .. math::
        d_i = \sum_j w_{ij}\, p_j, \qquad
        w_{ij} = \frac{c_{ij} A_{ij} + \epsilon / B}{\sum_k c_{ik} A_{ik} + \epsilon},
        \qquad \epsilon = 10^{-8}

    with :math:`A_{ij} = 1` for the neighbours :math:`j` of :math:`i`. The weights of a row sum to
    1. A sample without neighbours gets the mean of the batch. Gradients reach the probabilities and
    the scores.

    Args:
        probabilities: p of the whole batch; rows sum to 1.
        scores: c, a positive score for each pair of a sample and a neighbour.
        neighbors: rows of the neighbours in the batch.
        valid: False for neighbours to leave out.

    Shape:
        probabilities ``(B, C)``, scores, neighbors int64 and valid bool ``(R, K)`` -> ``(R, C)``
        of the dtype of probabilities; float32 for half inputs.

    >>> neighbors = torch.tensor([[1, 2]])
    >>> scores, valid = torch.tensor([[0.3, 0.1]]), torch.tensor([[True, True]])
    >>> neighbor_distribution(torch.eye(3), scores, neighbors, valid).round(decimals=3)
    tensor([[0.0000, 0.7500, 0.2500]])
    """
    check_shapes(
        probabilities=(probabilities, "B C"),
        scores=(scores, "R K*"),
        neighbors=(neighbors, "R K*"),
        valid=(valid, "R K*"),
    )
    check_probabilities(probabilities=probabilities)
    check_floating(scores=scores)
    check_int64(neighbors=neighbors)
    check_mask(valid=valid)
    if values_are_checked():
        check_within(0, math.inf, scores=scores)
        check_within(0, len(probabilities) - 1, neighbors=neighbors)
    probabilities = full_precision(probabilities)
    scores = scores.to(probabilities.dtype)
    batch, least = len(probabilities), 1e-8
    # A product, because a NaN must stay a NaN.
    chosen = scores * valid
    weights = chosen.new_zeros(len(chosen), batch).scatter(1, neighbors, chosen) + least / batch
    weights = weights / (chosen.sum(dim=1, keepdim=True) + least)
    with without_autocast(weights):
        return weights @ probabilities
