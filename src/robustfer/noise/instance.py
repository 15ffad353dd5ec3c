"""Make label noise that depends on each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer._checks import check_range, check_shapes, check_whole_number
from robustfer._hashes import Words, two_words
from robustfer._inputs import to_probabilities
from robustfer.data.classes import class_name, renumber
from robustfer.data.dataset import LabeledFaces, check_one_class
from robustfer.noise.matrices import without_diagonal
from robustfer.noise.models import PURPOSE
from robustfer.noise.profile import TENTHS, NoiseProfile, log_likeness, margin_log_odds, margins

_FacesT = TypeVar("_FacesT", bound=LabeledFaces)
_TINY = 1e-12


def with_noise_like(
    dataset: _FacesT,
    profile: NoiseProfile,
    *,
    seed: int,
    probabilities: Tensor | ArrayLike | None = None,
) -> _FacesT:
    r"""Put noise on clean labels that resembles the noise of a profile.

    Of the :math:`n_k` samples of class k, :math:`n_k T_{kl}` get the wrong class l. The numbers are
    exact, rounded by largest remainders. Without ``probabilities`` all samples of a class are
    equally likely to change. With them, unclear samples are more likely to change, and to a class
    that they resemble, as :class:`NoiseProfile` describes.

    A sample's noise depends on the seed, its id and the set of other samples, but not on their
    order. Put noise on the full split, and take a subset afterwards.

    Args:
        dataset: a data set with clean labels. Classes that are not in the profile keep their
            labels.
        profile: how labels go wrong, such as ``NoiseProfile.load("fer2013")``.
        seed: seed of the noise, a whole number.
        probabilities: the classes that each sample resembles: predictions of a network that did not
            train on it, or shares of votes. Columns are in the order of ``dataset.classes``.

    Shape:
        ``probabilities`` (N, C).

    Returns:
        A new data set, whose ``true_targets`` are the labels before.

    Raises:
        TypeError: ``dataset`` is not one of robustfer's data sets, or ``profile`` is not a profile.
        ValueError: the labels are probabilities, the data set lacks a label that the profile gives,
            or ``probabilities`` are given for a profile that was measured without them.

    >>> from robustfer.data import DemoFaces
    >>> from robustfer.noise import noise_report
    >>> faces = with_noise_like(DemoFaces(num_samples=700), NoiseProfile.load("fer2013"), seed=0)
    >>> noise_report(faces).changed
    162
    """
    check_one_class(dataset)
    if not isinstance(profile, NoiseProfile):
        raise TypeError(
            f"profile must be a NoiseProfile, got {type(profile).__name__}; read one with "
            "NoiseProfile.load"
        )
    if probabilities is not None and profile.by_margin is None:
        raise ValueError(
            "probabilities cannot be used: the profile was measured without probabilities; remove "
            "the argument, or measure a profile with them"
        )
    # Use the profile's order of classes, so that the order in the data set does not matter.
    known, own = (tuple(map(class_name, names)) for names in (profile.classes, dataset.classes))
    order = known + tuple(name for name in own if name not in known)
    wrongly = profile.counts.sum(dim=0) - profile.counts.diagonal()
    pairs = zip(known, wrongly.tolist(), strict=True)
    lacking = [name for name, times in pairs if times and name not in own]
    if lacking:
        raise ValueError(
            f"the profile gives the labels {', '.join(lacking)}, which the data set lacks; use a "
            f"profile for its classes, {', '.join(dataset.classes)}"
        )
    rows = None
    if probabilities is not None:
        rows = renumber(_rows(probabilities, dataset), source=own, target=order)
    targets = renumber(dataset.targets, source=own, target=order)
    noisy = _like(targets, dataset.ids, profile, rows, check_whole_number("seed", seed, None))
    return dataset.with_targets(renumber(noisy, source=order, target=own))


def with_instance_noise(
    dataset: _FacesT, probabilities: Tensor | ArrayLike, *, rate: float, seed: int
) -> _FacesT:
    r"""Change the labels of unclear samples to a class that they resemble.

    .. math::
        P(\text{wrong} \mid i) = \frac{c \, (1 - p_{iy})}{p_{iy} + c \, (1 - p_{iy})}, \qquad
        P(l \mid \text{wrong}, i) = \frac{p_{il}}{1 - p_{iy}}

    y is the label before. c is chosen to change exactly :math:`\operatorname{round}(\text{rate}
    \cdot N)` labels. A higher rate changes the same samples, and more.

    A sample's noise depends on the seed, its id and the set of other samples, but not on their
    order. Put noise on the full split, and take a subset afterwards.

    Args:
        dataset: a data set with clean labels.
        probabilities: :math:`p`, the classes that each sample resembles: predictions of a network
            that did not train on it, or shares of votes. Columns are in the order of
            ``dataset.classes``.
        rate: share of the labels that change, in [0, 1].
        seed: seed of the noise, a whole number.

    Shape:
        ``probabilities`` (N, C).

    Returns:
        A new data set, whose ``true_targets`` are the labels before.

    Raises:
        TypeError: ``dataset`` is not one of robustfer's data sets.
        ValueError: the labels are probabilities, or an argument does not fit.

    >>> from robustfer.data import DemoFaces
    >>> faces = DemoFaces(num_samples=70)
    >>> looks = torch.eye(7)[faces.targets] * 0.9 + 0.1 / 7
    >>> noisy = with_instance_noise(faces, looks, rate=0.3, seed=0)
    >>> int((noisy.targets != noisy.true_targets).sum())
    21
    """
    check_one_class(dataset)
    check_range("rate", rate, 0.0, 1.0)
    rows, true = _rows(probabilities, dataset).clamp(min=_TINY), dataset.targets
    words = two_words(PURPOSE, check_whole_number("seed", seed, None), dataset.ids)
    own = rows.gather(1, true[:, None])
    other = rows.scatter(1, true[:, None], 0.0)
    log_odds = other.sum(dim=1).log() - own[:, 0].log()
    drawn = _draw(log_odds, _uniform(words[:, 0]), round(rate * len(true)))
    steps = other[drawn].cumsum(dim=1)
    # After rounding, the last class with a share must still reach 1.
    steps = (steps / steps[:, -1:]).where(steps < steps[:, -1:], 2.0)
    noisy = true.clone()
    point = _uniform(words[:, 1])[drawn, None]
    noisy[drawn] = torch.searchsorted(steps, point, right=True)[:, 0]
    return dataset.with_targets(noisy)


def _rows(probabilities: Tensor | ArrayLike, dataset: LabeledFaces) -> Tensor:
    rows = to_probabilities("probabilities", probabilities).double()
    check_shapes(probabilities=(rows, f"{len(dataset)} {len(dataset.classes)}"))
    return rows


def _like(
    targets: Tensor, ids: Sequence[str], profile: NoiseProfile, rows: Tensor | None, seed: int
) -> Tensor:
    """Return labels with the profile's noise, in an order that starts with its classes."""
    words = two_words(PURPOSE, seed, ids)
    who, noisy = _uniform(words[:, 0]), targets.clone()
    log_base = without_diagonal(profile.counts).log()
    beta = margin_log_odds(profile)
    margin = like = None
    if rows is not None:
        margin, like = margins(rows, targets), log_likeness(rows, targets)
    for k, shares in enumerate(profile.matrix):
        own = (targets == k).nonzero()[:, 0]
        cells = _apportion(len(own) * shares)
        cells[k] = 0
        if not int(cells.sum()):
            continue
        log_odds = torch.zeros(len(own), dtype=torch.float64, device="cpu")
        if margin is not None:
            # The seed orders samples with equal margins.
            tie = _mixed(words[own.numpy(), 1], len(profile.classes))
            order = torch.from_numpy(np.lexsort((tie, margin[own].numpy())))
            tenth = torch.empty_like(own)
            tenth[order] = torch.arange(len(own), device="cpu") * TENTHS // len(own)
            log_odds = beta[tenth]
        rest = own[_draw(log_odds, who[own], int(cells.sum()))]
        to = log_base[k].expand(len(rest), -1)
        if like is not None and profile.attraction is not None:
            to = to + profile.attraction * like[rest, : len(cells)]
        # Each class in turn takes its number of the remaining samples.
        for label, count in enumerate(cells.tolist()):
            if not count:
                continue
            taking = to[:, label] - to[:, label + 1 :].logsumexp(dim=1)
            chance = _uniform(_mixed(words[rest.numpy(), 1], label))
            taken = _draw(taking, chance, count)
            noisy[rest[taken]] = label
            left = torch.ones(len(rest), dtype=torch.bool, device="cpu")
            left[taken] = False
            rest, to = rest[left], to[left]
    return noisy


def _draw(log_odds: Tensor, uniform: Tensor, count: int) -> Tensor:
    """Draw ``count`` samples by their log odds, and return their rows.

    A sample is drawn with probability sigmoid(log odds + c). c is chosen to give this number.
    """
    return (uniform.logit() - log_odds).argsort(stable=True)[:count]


def _apportion(quotas: Tensor) -> Tensor:
    """Round quotas to whole numbers with the same sum, by largest remainders."""
    quotas = quotas.round(decimals=9)
    counts = quotas.floor()
    missing = round(float(quotas.sum() - counts.sum()))
    up = (counts - quotas).argsort(stable=True)[:missing]
    counts[up] += 1
    return counts.to(torch.int64)


def _mixed(words: Words, number: int) -> Words:
    """Return new numbers for another purpose, by the function splitmix64."""
    mixed = words + np.uint64((number + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Words = mixed ^ (mixed >> np.uint64(31))
    return found


def _uniform(words: Words) -> Tensor:
    """Return numbers inside (0, 1) of 52 bits. With 53 bits the largest would round to 1."""
    return torch.from_numpy(((words >> np.uint64(12)) + 0.5) / 2**52)
