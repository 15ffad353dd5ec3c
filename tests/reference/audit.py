"""Scores of labels as loops, in Python's own numbers."""

import math


def log_margin(row, label):
    return max(math.log(p) for k, p in enumerate(row) if k != label) - math.log(row[label])


def posterior(row, label, transition):
    joint = [p * transition[k][label] for k, p in enumerate(row)]
    wrong = 1 - joint[label] / sum(joint)
    other = max((part, -k) for k, part in enumerate(joint) if k != label)
    return wrong, -other[1], [part / sum(joint) for part in joint]


def disagreement(vectors, labels, row, count):
    def cosine(one, other):
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / (math.hypot(*one) * math.hypot(*other))

    others = [
        (cosine(vectors[row], vector), labels[other])
        for other, vector in enumerate(vectors)
        if other != row
    ]
    nearest = sorted(others, reverse=True)[:count]
    weights = [max(0.0, similarity) for similarity, _ in nearest]
    if not sum(weights):
        weights = [1.0] * len(nearest)
    differs = [
        weight for weight, (_, label) in zip(weights, nearest, strict=True) if label != labels[row]
    ]
    return sum(differs) / sum(weights)


def average_precision(ranking, wrong):
    found, total = 0, 0.0
    for place, row in enumerate(ranking, start=1):
        if wrong[row]:
            found += 1
            total += found / place
    return total / sum(wrong)
