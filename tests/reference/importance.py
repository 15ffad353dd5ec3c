"""The equations of importance weighting and ranking as loops, slow and plain."""

import math
from fractions import Fraction

import torch


def weighted_logits(logits, importance, bias=None):
    rows = []
    for row, factor in zip(logits, importance, strict=True):
        parts = []
        for column in range(len(row)):
            free = 0.0 if bias is None else bias[column]
            parts.append(factor * (row[column] - free) + free)
        rows.append(torch.stack(parts))
    return torch.stack(rows)


def group_size(batch, high_ratio):
    """The largest whole number that is not above the share, as one does it on paper."""
    return math.floor(batch * Fraction(str(high_ratio)))


def groups(importance, high):
    """Rows of the high and the low group: insertion sort, earlier rows before equal ones."""
    order = []
    for row, value in enumerate(importance.tolist()):
        place = len(order)
        while place > 0 and importance[order[place - 1]].item() < value:
            place -= 1
        order.insert(place, row)
    return order[:high], order[high:]


def rank_regularization(importance, margin, high_ratio, high=None):
    if high is None:
        high = group_size(len(importance), high_ratio)
    upper, lower = groups(importance, high)
    if not upper or not lower:
        return importance.new_zeros(())
    gap = sum(importance[row] for row in upper) / len(upper)
    gap = gap - sum(importance[row] for row in lower) / len(lower)
    difference = margin - gap
    return difference if difference > 0 else 0.0 * difference
