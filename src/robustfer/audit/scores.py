"""Score how suspicious each label is. A higher score is more suspicious."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer._checks import check_finite, check_shapes, check_whole_number
from robustfer._inputs import to_labels, to_probabilities, to_tensor

# Memory for temporaries. It is far less than the predictions of a million samples need.
_BYTES = 32 * 2**20


class Posterior(NamedTuple):
    """The posterior of each label, given predictions and a transition matrix.

    Attributes:
        wrong_probability: probability that the given label is wrong, ``(N)``.
        log_odds: its log odds, which still differ when it rounds to 0 or 1, ``(N)``.
        suggestion: the most probable other class, ``(N)`` int64.
        class_counts: expected number of samples that truly have each class, float64 ``(C)``.
    """

    wrong_probability: Tensor
    log_odds: Tensor
    suggestion: Tensor
    class_counts: Tensor


def log_margin(labels: Tensor, rows: Tensor) -> Tensor:
    r"""Return the log probability of the best other class minus that of the given label.

    .. math:: s_i = \max_{k \neq y_i} \log p_{ik} - \log p_{i y_i}

    Args:
        labels: :math:`y`, from :func:`checked`.
        rows: the predictions :math:`p`, from :func:`checked`.

    Shape:
        labels ``(N)``, rows ``(N, C)`` -> ``(N)``, float32 or float64.

    >>> log_margin(torch.tensor([0, 1]), torch.tensor([[0.5, 0.5], [0.8, 0.2]]))
    tensor([0.0000, 1.3863])
    """
    parts = []
    for own, chunk in _chunks(labels, rows):
        log_p = _log(chunk)
        others = log_p.scatter(1, own[:, None], -torch.inf).amax(dim=1)
        parts.append(others - log_p.gather(1, own[:, None])[:, 0])
    return torch.cat(parts)


def label_posterior(labels: Tensor, rows: Tensor, matrix: Tensor) -> Posterior:
    r"""Return the probability that each label is wrong, and the most probable other class.

    .. math::
        w_i = 1 - \frac{p_{i y_i} T_{y_i y_i}}{\sum_k p_{ik} T_{k y_i}}, \qquad
        c_i = \operatorname{argmax}_{k \neq y_i} \, p_{ik} T_{k y_i}

    Args:
        labels: :math:`y`, from :func:`checked`.
        rows: the predictions :math:`p`, from :func:`checked`.
        matrix: :math:`T`, a row per true class, a column per given label. Rows need not sum to 1.

    Shape:
        labels ``(N)``, rows ``(N, C)``, matrix ``(C, C)``.

    >>> labels, rows = torch.tensor([0, 1]), torch.tensor([[0.5, 0.5], [0.8, 0.2]])
    >>> label_posterior(labels, rows, torch.tensor([[0.9, 0.1], [0.2, 0.8]])).wrong_probability
    tensor([0.1818, 0.3333])
    """
    log_columns = _log(matrix.to(rows.dtype)).T.contiguous()
    odds, best = [], []
    counts = torch.zeros(rows.shape[1], dtype=torch.float64, device="cpu")
    for own, chunk in _chunks(labels, rows):
        joint = _log(chunk).add_(log_columns[own])
        right = joint.gather(1, own[:, None])[:, 0]
        most, other = joint.scatter_(1, own[:, None], -torch.inf).max(dim=1)
        powers = joint.sub_(most[:, None]).exp_()
        total = powers.sum(dim=1)
        odds.append(most + total.log() - right)
        best.append(other)
        wrong = odds[-1].sigmoid()
        counts += powers.mul_((wrong / total)[:, None]).sum(dim=0, dtype=torch.float64)
        counts.index_add_(0, own, 1 - wrong.double())
    log_odds = torch.cat(odds)
    return Posterior(log_odds.sigmoid(), log_odds, torch.cat(best), counts)


def neighbor_disagreement(
    given: Tensor | ArrayLike, embeddings: Tensor | ArrayLike, *, num_neighbors: int = 20
) -> Tensor:
    r"""Return the share of nearest samples with another label, weighted by similarity.

    .. math:: s_i = \frac{\sum_{j \in K_i} a_{ij} [y_j \neq y_i]}{\sum_{j \in K_i} a_{ij}}, \qquad
        a_{ij} = \max\Bigl(0, \frac{e_i \cdot e_j}{\|e_i\| \|e_j\|}\Bigr)

    over the K most similar other samples. If all weights are 0, they count equally. The matrix of
    all pairs is never in memory.

    Args:
        given: the labels in the data set.
        embeddings: pooled features of the data set.
        num_neighbors: K. With fewer other samples, all are used.

    Shape:
        given integers ``(N)``, embeddings ``(N, D)`` -> float32 ``(N)`` in [0, 1].

    Raises:
        ValueError: shapes do not fit, a value is not finite, or there are fewer than two samples.

    >>> embeddings = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]
    >>> neighbor_disagreement([0, 0, 1], embeddings, num_neighbors=1)
    tensor([0., 0., 1.])
    """
    num_neighbors = check_whole_number("num_neighbors", num_neighbors, 1)
    vectors = to_tensor("embeddings", embeddings).float()
    check_shapes(embeddings=(vectors, "N D"))
    labels = to_tensor("given", given)
    check_shapes(embeddings=(vectors, "N D"), given=(labels, "N"))
    check_finite(embeddings=vectors)
    if len(vectors) < 2:
        raise ValueError("embeddings must have at least two samples, got 1")
    # Divide by the largest value first, because the square of a large number is infinite.
    largest = vectors.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    vectors = F.normalize(vectors / largest, dim=1)
    count = min(num_neighbors, len(vectors) - 1)
    size = max(1, _BYTES // (4 * len(vectors)))
    parts = []
    for start in range(0, len(vectors), size):
        similarity = vectors[start : start + size] @ vectors.T
        place = torch.arange(len(similarity), device="cpu")
        similarity[place, start + place] = -torch.inf  # exclude the sample itself
        weight, nearest = similarity.topk(count, dim=1)
        weight = weight.clamp(min=0)
        weight = weight.where(weight.sum(dim=1, keepdim=True) > 0, 1.0)
        differs = labels[nearest] != labels[start : start + size, None]
        parts.append((weight * differs).sum(dim=1) / weight.sum(dim=1))
    return torch.cat(parts)


def checked(given: Tensor | ArrayLike, probabilities: Tensor | ArrayLike) -> tuple[Tensor, Tensor]:
    """Return labels and predictions as tensors, and check that they fit."""
    rows = to_probabilities("probabilities", probabilities)
    labels = to_labels("given", given, num_classes=rows.shape[1])
    check_shapes(probabilities=(rows, "N C"), given=(labels, "N"))
    return labels, rows


def _chunks(labels: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = max(1, _BYTES // (rows.element_size() * rows.shape[1]))
    for start in range(0, len(rows), size):
        yield labels[start : start + size], rows[start : start + size]


def _log(rows: Tensor) -> Tensor:
    # 0 is replaced by the smallest number, because two zeros in a row would give NaN.
    return rows.clamp(min=torch.finfo(rows.dtype).tiny).log_()
