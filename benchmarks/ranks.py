"""Rank correlations: whether two noises rank methods alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import combinations


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of the ranks, equals having their mean rank; NaN if all are equal."""
    ranks = [_ranks(first), _ranks(second)]
    if any(len(set(own)) == 1 for own in ranks):
        return math.nan
    return statistics.correlation(*ranks)


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b: pairs in one order less those in the other, of the pairs that differ."""
    agree = 0
    differ = [0, 0]
    for (a, b), (c, d) in combinations(zip(first, second, strict=True), 2):
        signs = (a > c) - (a < c), (b > d) - (b < d)
        agree += signs[0] * signs[1]
        differ = [count + abs(sign) for count, sign in zip(differ, signs, strict=True)]
    return agree / math.sqrt(differ[0] * differ[1]) if all(differ) else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]
