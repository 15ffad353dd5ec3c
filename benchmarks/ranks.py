"""Compute rank correlations, to compare how two kinds of noise rank methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import combinations


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's correlation, with mean ranks for ties. It is NaN if all are equal."""
    ranks = [_ranks(first), _ranks(second)]
    if any(len(set(own)) == 1 for own in ranks):
        return math.nan
    return statistics.correlation(*ranks)


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's tau-b: concordant minus discordant pairs, relative to pairs without ties."""
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
