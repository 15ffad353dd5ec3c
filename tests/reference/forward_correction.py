"""Forward correction as loops, slow and plain, in extended precision."""

from decimal import Decimal, localcontext


def forward_correction(logits, distributions, transition, verified, q):
    """A value per sample, and its gradient by the logits; of each label drawn, in the mean."""
    values, gradients = [], []
    with localcontext() as context:
        context.prec = 60
        context.Emin = -(10**9)
        matrix = [[Decimal(entry) for entry in row] for row in transition]
        for row, labels, known in zip(logits, distributions, verified, strict=True):
            p = softmax(row)
            value, gradient = Decimal(0), [Decimal(0)] * len(p)
            for label, share in enumerate(labels):
                if share:
                    column = [entries[label] for entries in matrix]
                    if known:
                        column = [Decimal(int(k == label)) for k in range(len(p))]
                    one, slope = of_label(p, column, Decimal(q))
                    value += Decimal(share) * one
                    gradient = [
                        total + Decimal(share) * part
                        for total, part in zip(gradient, slope, strict=True)
                    ]
            values.append(float(value))
            gradients.append([float(part) for part in gradient])
    return values, gradients


def of_label(p, column, q):
    s = sum(one * given for one, given in zip(p, column, strict=True))
    r = [given / s for given in column]
    mean = sum(one * ratio for one, ratio in zip(p, r, strict=True))
    power = (q * s.ln()).exp()
    value = (1 - power) / q if q else -s.ln()
    return value, [-power * one * (ratio - mean) for one, ratio in zip(p, r, strict=True)]


def softmax(row):
    powers = [(Decimal(score) - Decimal(max(row))).exp() for score in row]
    return [power / sum(powers) for power in powers]
