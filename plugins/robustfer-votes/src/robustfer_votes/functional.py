"""Losses against the votes of several people, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer.authoring import (
    Reduction,
    check_bool,
    check_floating,
    check_range,
    check_reduction,
    check_shapes,
    cross_entropy,
    full_precision,
    reduce,
    values_are_checked,
)


def vote_shares(votes: Tensor, *, smoothing: float = 0.0, drop_single: bool = False) -> Tensor:
    r"""Return the share of each class in the votes, as a target for training.

    .. math:: s_{n,k} = \frac{v_{n,k} + a}{\sum_c v_{n,c} + C a}

    A face without votes has shares of 0.

    Args:
        votes: :math:`v`, how many people saw each class.
        smoothing: :math:`a`, pseudo votes for each class (the mean of a Dirichlet posterior). Few
            votes then count less than many.
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.

    Shape:
        votes ``(B, C)`` int64 -> ``(B, C)`` float32, rows sum to 1, or to 0 without votes.

    Raises:
        TypeError: ``drop_single`` is not a bool.
        ValueError: an option, a shape or a dtype does not fit.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> votes = torch.tensor([[7, 2, 1]])
    >>> vote_shares(votes)
    tensor([[0.7000, 0.2000, 0.1000]])
    >>> vote_shares(votes, drop_single=True)
    tensor([[0.7778, 0.2222, 0.0000]])
    >>> vote_shares(votes, smoothing=0.3)
    tensor([[0.6697, 0.2110, 0.1193]])
    """
    check_range("smoothing", smoothing, 0.0)
    check_votes(votes)
    return _shares(_kept(votes, drop_single), smoothing, torch.float32)


def vote_cross_entropy(
    logits: Tensor,
    votes: Tensor,
    *,
    smoothing: float = 0.3,
    drop_single: bool = False,
    weighted: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the cross entropy with the shares of the votes.

    .. math::
        \ell_n = -\sum_k \frac{v_{n,k} + a}{\sum_c v_{n,c} + C a}
            \log \operatorname{softmax}(z_n)_k, \qquad
        L = \frac{\sum_n w_n \ell_n}{\sum_n w_n}

    The weight :math:`w_n` is 1, or the number of votes where ``weighted``. A face without votes has
    weight 0. A batch without a vote gives a zero that is attached to the graph.

    Args:
        logits: scores of the classes, before softmax.
        votes: :math:`v`, how many people saw each class.
        smoothing: :math:`a`, pseudo votes for each class.
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.
        weighted: weigh each face by the number of its votes.
        reduction: ``"mean"`` by the weights, ``"sum"`` of the weighted values over the batch, or
            ``"none"`` for a weighted value per sample.

    Shape:
        logits ``(B, C)``, votes ``(B, C)`` int64 -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        TypeError: ``drop_single`` or ``weighted`` is not a bool.
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> logits, votes = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[3, 1], [0, 0]])
    >>> vote_cross_entropy(logits, votes, smoothing=0.0)  # the mean of 3 x 0.1269 and 2.1269
    tensor(0.6269)
    """
    check_range("smoothing", smoothing, 0.0)
    _check(logits, votes, reduction)
    logits, votes = full_precision(logits), _kept(votes, drop_single)
    losses = cross_entropy(logits, _shares(votes, smoothing, logits.dtype), reduction="none")
    return _reduced(losses, _weights(votes, weighted, losses), reduction)


def drawn_vote(votes: Tensor, vote_draw: Tensor, *, drop_single: bool = False) -> Tensor:
    r"""Return the class of one vote of each face, picked by a random number.

    .. math:: y_n = \min \Bigl\{ k : \sum_{c \le k} v_{n,c} > u_n \sum_c v_{n,c} \Bigr\}

    With :math:`u_n` uniform in [0, 1) each vote is as likely as any other. The loop draws the
    numbers: ``torch.rand(len(votes), generator=generator)``. They are checked under
    :func:`robustfer.losses.check_values`.

    Args:
        votes: :math:`v`, how many people saw each class.
        vote_draw: :math:`u`, a random number in [0, 1) for each face.
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.

    Shape:
        votes ``(B, C)`` int64, vote_draw ``(B)`` -> ``(B)`` int64, a class with a vote; 0 for a
        face without votes.

    Raises:
        TypeError: ``drop_single`` is not a bool.
        ValueError: a shape, a dtype or a device does not fit.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> votes = torch.tensor([[3, 1]]).expand(4, 2)
    >>> drawn_vote(votes, torch.tensor([0.0, 0.25, 0.5, 0.75]))
    tensor([0, 0, 0, 1])
    """
    check_votes(votes, vote_draw=(vote_draw, "B"))
    _check_draw(vote_draw)
    return _drawn(_kept(votes, drop_single), vote_draw)


def drawn_vote_cross_entropy(
    logits: Tensor,
    votes: Tensor,
    vote_draw: Tensor,
    *,
    drop_single: bool = False,
    weighted: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the cross entropy with one vote of each face, see :func:`drawn_vote`.

    .. math::
        \ell_n = -\log \operatorname{softmax}(z_n)_{y_n}, \qquad
        L = \frac{\sum_n w_n \ell_n}{\sum_n w_n}

    On average over the draws it is :func:`vote_cross_entropy` without smoothing, with more noise.

    Args:
        logits: scores of the classes, before softmax.
        votes: how many people saw each class.
        vote_draw: a random number in [0, 1) for each face, new in each step.
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.
        weighted: weigh each face by the number of its votes.
        reduction: as in :func:`vote_cross_entropy`.

    Shape:
        logits ``(B, C)``, votes ``(B, C)`` int64, vote_draw ``(B)`` -> scalar, or ``(B)``; float32
        for half inputs.

    Raises:
        TypeError: ``drop_single`` or ``weighted`` is not a bool.
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Barsoum et al., Training Deep Networks for Facial Expression Recognition with
        Crowd-Sourced Label Distribution, ICMI 2016.

    >>> logits, votes = torch.tensor([[2.0, 0.0]]), torch.tensor([[3, 1]])
    >>> drawn_vote_cross_entropy(logits, votes, torch.tensor([0.9]))
    tensor(2.1269)
    """
    _check(logits, votes, reduction, vote_draw=(vote_draw, "B"))
    _check_draw(vote_draw)
    votes = _kept(votes, drop_single)
    losses = cross_entropy(logits, _drawn(votes, vote_draw), reduction="none")
    # A NaN stays NaN, although it draws a vote.
    losses = losses + 0 * vote_draw.detach().to(losses.dtype)
    return _reduced(losses, _weights(votes, weighted, losses), reduction)


def partial_label(
    logits: Tensor,
    votes: Tensor,
    *,
    min_share: float = 0.0,
    drop_single: bool = False,
    weighted: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Return the loss that accepts each of the classes that people voted for.

    .. math::
        \ell_n = -\log \sum_{k \in S_n} \operatorname{softmax}(z_n)_k, \qquad
        S_n = \Bigl\{ k : v_{n,k} > 0,\; v_{n,k} \ge m \sum_c v_{n,c} \Bigr\}, \qquad
        L = \frac{\sum_n w_n \ell_n}{\sum_n w_n}

    How the probability is shared within the set is left open. A face with an empty set has weight
    0.

    Args:
        logits: scores of the classes, before softmax.
        votes: :math:`v`, how many people saw each class.
        min_share: :math:`m`, the least share of the votes for a class in the set; FERPlus's authors
            take 0.3.
        drop_single: drop the votes for a class that only one person saw, as FERPlus does.
        weighted: weigh each face by the number of its votes.
        reduction: as in :func:`vote_cross_entropy`.

    Shape:
        logits ``(B, C)``, votes ``(B, C)`` int64 -> scalar, or ``(B)``; float32 for half inputs.

    Raises:
        TypeError: ``drop_single`` or ``weighted`` is not a bool.
        ValueError: an option, a shape, a dtype or a device does not fit.

    Reference:
        Jin and Ghahramani, Learning with Multiple Labels, NIPS 2002; Barsoum et al., Training
        Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution,
        ICMI 2016.

    >>> logits, votes = torch.zeros(1, 4), torch.tensor([[5, 4, 1, 0]])
    >>> partial_label(logits, votes)  # -log 3/4
    tensor(0.2877)
    >>> partial_label(logits, votes, min_share=0.3)  # -log 2/4
    tensor(0.6931)
    """
    check_range("min_share", min_share, 0.0, 1.0)
    _check(logits, votes, reduction)
    log_p, votes = full_precision(logits).log_softmax(dim=1), _kept(votes, drop_single)
    # A bit less than the share, because its product may be rounded to just above a whole number.
    least = (1 - 1e-6) * min_share * votes.sum(dim=1, keepdim=True).to(log_p.dtype)
    chosen = (votes > 0) & (votes >= least)
    some = chosen.any(dim=1)
    # Of an empty set all classes are taken: the logarithm of nothing has no gradient.
    losses = -log_p.masked_fill(~(chosen | ~some[:, None]), -float("inf")).logsumexp(dim=1)
    return _reduced(losses, _weights(votes, weighted, losses) * some, reduction)


def check_votes(votes: Tensor, **others: tuple[Tensor, str]) -> None:
    """Require int64 votes ``(B, C)``; under ``check_values`` they must be from 0 on."""
    check_shapes(votes=(votes, "B C"), **others)
    if votes.dtype != torch.int64:
        raise ValueError(f"votes must be int64 counts, got {votes.dtype}")
    if values_are_checked() and bool((votes < 0).any()):
        raise ValueError(f"votes must be counts from 0 on, got {int(votes.min())}")


def _check(
    logits: Tensor, votes: Tensor, reduction: Reduction, **others: tuple[Tensor, str]
) -> None:
    check_votes(votes, logits=(logits, "B C"), **others)
    check_floating(logits=logits)
    check_reduction(reduction)


def _check_draw(vote_draw: Tensor) -> None:
    check_floating(vote_draw=vote_draw)
    # In half precision a number just below 1 may have been rounded to it.
    if values_are_checked() and bool(((vote_draw < 0) | (vote_draw > 1)).any()):
        raise ValueError(
            f"vote_draw must lie in [0, 1), got {float(vote_draw.min()):g} to "
            f"{float(vote_draw.max()):g}; draw it with torch.rand"
        )


def _kept(votes: Tensor, drop_single: bool) -> Tensor:
    check_bool("drop_single", drop_single)
    return votes.where(votes > 1, 0) if drop_single else votes


def _shares(votes: Tensor, smoothing: float, dtype: torch.dtype) -> Tensor:
    total = votes.sum(dim=1, keepdim=True)
    pseudo = votes.shape[1] * smoothing
    shares = (votes.to(dtype) + smoothing) / (total.clamp(min=1).to(dtype) + pseudo)
    return shares * (total > 0)


def _drawn(votes: Tensor, vote_draw: Tensor) -> Tensor:
    total = votes.sum(dim=1)
    # The number of a vote, in whole numbers: a float just below 1 could be rounded up to it. NaN
    # becomes any whole number.
    number = (full_precision(vote_draw) * total).long().clamp(min=0).minimum(total - 1)
    return (votes.cumsum(dim=1) <= number[:, None]).sum(dim=1)


def _weights(votes: Tensor, weighted: bool, losses: Tensor) -> Tensor:
    check_bool("weighted", weighted)
    total = votes.sum(dim=1)
    return (total if weighted else total > 0).to(losses.dtype)


def _reduced(losses: Tensor, weights: Tensor, reduction: Reduction) -> Tensor:
    weighed = weights * losses
    if reduction == "mean":
        # Weights are 0, or 1 and more.
        return weighed.sum() / weights.sum().clamp(min=1)
    return reduce(weighed, reduction)
