"""Compute quantiles of beta distributions, which torch and numpy do not have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]

_TINY = 1e-300
_HALVINGS = 60
_MOST_STEPS = 10_000


def beta_quantile(alpha: Floats, beta: Floats, level: Floats | float) -> Floats:
    r"""Return the quantiles of beta distributions.

    The quantile x solves :math:`I_x(\alpha, \beta) = \text{level}` with

    .. math::
        I_x(\alpha, \beta) = \frac{1}{B(\alpha, \beta)}
            \int_0^x t^{\alpha-1} (1-t)^{\beta-1} dt

    It is found by bisection.

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
    low, high = np.zeros_like(a), np.ones_like(a)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _cumulative(middle, a, b) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found: Floats = ((low + high) / 2)[place.ravel()].reshape(asked.shape[1:])
    return found


def _cumulative(x: Floats, alpha: Floats, beta: Floats) -> Floats:
    """Return the regularised incomplete beta function, by its continued fraction."""
    swapped = x > (alpha + 1) / (alpha + beta + 2)
    a, b = np.where(swapped, beta, alpha), np.where(swapped, alpha, beta)
    y = np.clip(np.where(swapped, 1 - x, x), _TINY, 1 - 2**-53)
    scale = _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b)
    front = np.exp(scale + a * np.log(y) + b * np.log1p(-y)) / a
    part = front * _fraction(y, a, b)
    found: Floats = np.where(swapped, 1 - part, part)
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
