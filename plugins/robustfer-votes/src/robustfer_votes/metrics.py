"""How well predictions agree with a crowd, and how well its members agree with each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustfer.authoring import check_int64, check_probabilities, check_shapes, check_whole_number
from robustfer.losses import check_values
from robustfer_votes.functional import check_votes


def cross_entropy_to_votes(probabilities: Tensor, votes: Tensor) -> float:
    r"""Return how badly predicted probabilities foretell the votes, in nats.

    .. math:: -\frac{1}{N} \sum_n \sum_k \frac{v_{n,k}}{\sum_c v_{n,c}} \log p_{n,k}

    Its least value is that of :func:`human_ceiling`. It is infinite where a class with a vote has
    probability 0. Faces without votes are left out.

    Args:
        probabilities: :math:`p`, predicted probabilities of all faces, ``logits.softmax(dim=1)``.
        votes: :math:`v`, how many people saw each class.

    Shape:
        probabilities ``(N, C)``, votes ``(N, C)`` int64 -> a number.

    Raises:
        ValueError: an argument does not fit, or no face has a vote.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> probabilities = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    >>> round(cross_entropy_to_votes(probabilities, torch.tensor([[2, 2, 0], [4, 0, 0]])), 4)
    0.5199
    """
    check_shapes(probabilities=(probabilities, "N C"), votes=(votes, "N C"))
    with check_values():
        check_probabilities(probabilities=probabilities)
    shares, voted = _shares(votes)
    logarithms = probabilities.detach().cpu().double()[voted].log()
    return float(-_times_log(shares, logarithms).sum(dim=1).mean())


def within_votes(predicted: Tensor, votes: Tensor, *, least: int = 1) -> float:
    r"""Return the share of faces whose predicted class has votes. Faces without votes are left out.

    .. math:: \frac{1}{N} \sum_n [v_{n,\hat y_n} \ge m]

    Accuracy by the majority calls a prediction wrong that four people of ten share. This does not.

    Args:
        predicted: :math:`\hat y`, the classes predicted, ``logits.argmax(dim=1)``.
        votes: :math:`v`, how many people saw each class.
        least: :math:`m`, so many votes the predicted class must have.

    Shape:
        predicted ``(N)`` int64, votes ``(N, C)`` int64 -> a number in [0, 1].

    Raises:
        ValueError: an argument does not fit, or no face has a vote.

    >>> votes = torch.tensor([[6, 4, 0], [9, 1, 0], [0, 2, 8]])
    >>> predicted = torch.tensor([1, 1, 0])
    >>> round(within_votes(predicted, votes), 4), round(within_votes(predicted, votes, least=2), 4)
    (0.6667, 0.3333)
    """
    check_shapes(predicted=(predicted, "N"), votes=(votes, "N C"))
    check_int64(predicted=predicted)
    least = check_whole_number("least", least, 1)
    _, voted = _shares(votes)
    if not bool(((predicted >= 0) & (predicted < votes.shape[1])).all()):
        raise ValueError(f"predicted must hold class indices from 0 to {votes.shape[1] - 1}")
    found = votes.gather(1, predicted[:, None])[:, 0].cpu()[voted]
    return float((found >= least).double().mean())


class HumanCeiling(NamedTuple):
    """How far people agree with each other on the same faces.

    Attributes:
        accuracy: how often one person agrees with the majority of the others.
        cross_entropy: least :func:`cross_entropy_to_votes` of any prediction, in nats.
    """

    accuracy: float
    cross_entropy: float


def human_ceiling(votes: Tensor) -> HumanCeiling:
    r"""Return how far people agree: what a perfect member of the crowd would score.

    .. math::
        \text{accuracy} = \frac{1}{N} \sum_n \sum_k s_{n,k}\,
            \frac{[k \in A_{n,k}]}{|A_{n,k}|}, \qquad
        \text{cross entropy} = -\frac{1}{N} \sum_n \sum_k s_{n,k} \log s_{n,k}

    :math:`s` are the shares of the votes. :math:`A_{n,k}` are the classes with the most votes after
    one vote for :math:`k` is taken away: a person is compared with the others only, and equals
    share the credit. A face with a single vote is left out of the accuracy, a face without votes
    out of both. A network can be more accurate than one person: it is trained on many.

    Args:
        votes: how many people saw each class.

    Shape:
        votes ``(N, C)`` int64.

    Raises:
        ValueError: the votes do not fit, or no face has two of them.

    >>> ceiling = human_ceiling(torch.tensor([[3, 1], [4, 0]]))
    >>> round(ceiling.accuracy, 4), round(ceiling.cross_entropy, 4)
    (0.875, 0.2812)
    """
    shares, voted = _shares(votes)
    counts = votes.cpu()[voted]
    several = counts.sum(dim=1) > 1
    if not bool(several.any()):
        raise ValueError("votes must hold a face with two votes: one person agrees with nobody")
    others = counts[several, None, :] - torch.eye(votes.shape[1], dtype=torch.int64, device="cpu")
    leads = others == others.amax(dim=2, keepdim=True)  # (N, C taken away, C)
    credit = leads.diagonal(dim1=1, dim2=2).double() / leads.sum(dim=2)
    agreement = (shares[several] * credit).sum(dim=1).mean()
    entropy = -_times_log(shares, shares.log()).sum(dim=1).mean()
    return HumanCeiling(float(agreement), float(entropy))


def _shares(votes: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the faces with votes, float64, and which they are; on the CPU."""
    check_votes(votes)
    if bool((votes < 0).any()):
        raise ValueError(f"votes must be counts from 0 on, got {int(votes.min())}")
    votes = votes.cpu()
    voted = votes.sum(dim=1) > 0
    if not bool(voted.any()):
        raise ValueError("votes must hold a vote, got only zeros")
    counts = votes[voted].double()
    return counts / counts.sum(dim=1, keepdim=True), voted


def _times_log(shares: Tensor, logarithms: Tensor) -> Tensor:
    """Return the products; 0 where the share is 0, for every logarithm."""
    return torch.where(shares > 0, shares * logarithms, 0.0)
