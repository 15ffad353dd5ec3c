"""Compute quantiles of beta distributions, which torch and numpy do not have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]

_TINY = 1e-300
_NARROW = 2.0**-60
_MOST_STEPS = 10_000


def beta_quantile(alpha: Floats, beta: Floats, level: Floats | float) -> Floats:
    r"""Return the quantiles of beta distributions.

    The quantile x solves :math:`I_x(\alpha, \beta) = \text{level}` with

    .. math::
        I_x(\alpha, \beta) = \frac{1}{B(\alpha, \beta)}
            \int_0^x t^{\alpha-1} (1-t)^{\beta-1} dt

    It is found by Newton's method within a bracket, which is halved where a step would leave it or
    is not shorter than half of the one before.

    Args:
        alpha: first parameters, above 0.
        beta: second parameters, above 0.
        level: probabilities, in (0, 1). The three arguments are broadcast to one shape.

    >>> beta_quantile(np.array([1.0, 2.0]), np.array([1.0, 1.0]), 0.25)
    array([0.25, 0.5 ])
    """
    asked = np.stack(np.broadcast_arrays(alpha, beta, level))
    # Solve equal ones only once, because matrix entries without a count are equal.
    (a, b, wanted), place = np.unique(asked.reshape(3, -1), axis=1, return_inverse=True)
    quantile = _guess(a, b, wanted)
    low, high, last = np.zeros_like(a), np.ones_like(a), np.ones_like(a)
    left = np.arange(len(a))  # those to be solved
    while len(left):
        x = quantile[left]
        above = _cumulative(x, a[left], b[left]) - wanted[left]
        low[left[above < 0]], high[left[above >= 0]] = x[above < 0], x[above >= 0]
        with np.errstate(all="ignore"):  # where the density is 0 or infinite, the bracket is halved
            newton = x - above / _density(x, a[left], b[left])
        inside = (newton >= low[left]) & (newton <= high[left])
        shorter = np.abs(newton - x) < 0.5 * last[left]
        better = np.where(inside & shorter, newton, (low[left] + high[left]) / 2)
        quantile[left], last[left] = better, np.abs(better - x)
        left = left[(last[left] > 1e-14 * x) & (high[left] - low[left] > _NARROW)]
    found: Floats = quantile[place.ravel()].reshape(asked.shape[1:])
    return found


def _guess(a: Floats, b: Floats, wanted: Floats) -> Floats:
    """Return the mean, or the quantile of the tail beyond it, where a power is integrated."""
    scale = _log_gamma(a) + _log_gamma(b) - _log_gamma(a + b)
    mean = a / (a + b)
    left = np.exp(np.minimum((np.log(wanted * a) + scale) / a, 0))
    right = 1 - np.exp(np.minimum((np.log((1 - wanted) * b) + scale) / b, 0))
    found: Floats = np.where(left < mean, left, np.where(right > mean, right, mean))
    return found


def _cumulative(x: Floats, alpha: Floats, beta: Floats) -> Floats:
    """Return the regularised incomplete beta function, by its continued fraction."""
    swapped = x > (alpha + 1) / (alpha + beta + 2)
    a, b = np.where(swapped, beta, alpha), np.where(swapped, alpha, beta)
    y = _inside(np.where(swapped, 1 - x, x))
    part = y * (1 - y) * _density(y, a, b) / a * _fraction(y, a, b)
    found: Floats = np.where(swapped, 1 - part, part)
    return found


def _density(x: Floats, a: Floats, b: Floats) -> Floats:
    y = _inside(x)
    scale = _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b)
    found: Floats = np.exp(scale + (a - 1) * np.log(y) + (b - 1) * np.log1p(-y))
    return found


def _inside(x: Floats) -> Floats:
    found: Floats = np.clip(x, _TINY, 1 - 2**-53)
    return found


def _fraction(x: Floats, a: Floats, b: Floats) -> Floats:
    """Return the continued fraction, by the modified method of Lentz."""
    c = np.ones_like(x)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value: Floats = d.copy()
    for m in range(1, _MOST_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = np.ones_like(x)
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            step = c * d
            value *= step
        if np.all(np.abs(step - 1) < 1e-11):
            break
    return value


def _away_from_zero(values: Floats) -> Floats:
    found: Floats = np.where(np.abs(values) < _TINY, _TINY, values)
    return found


def _log_gamma(values: Floats) -> Floats:
    found: Floats = torch.lgamma(torch.from_numpy(values)).numpy()
    return found
