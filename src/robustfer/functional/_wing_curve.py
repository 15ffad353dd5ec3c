"""The curve of the adaptive wing loss: value and slope together, without a branch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robustfer._checks import check_range


class WingCurve(NamedTuple):
    """The adaptive wing's options, and its value and slope in one pass."""

    alpha: float
    omega: float
    epsilon: float
    theta: float

    def value_and_slope(
        self,
        difference: Tensor,
        exponent: Tensor | float,
        weight: Tensor | None,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Weighted value, and slope into ``out``, of the curve at ``p - y``, over :math:`\omega`.

        With :math:`t = \min(d, \theta)` and :math:`u = (t / \epsilon)^a` the slope is
        :math:`s = a u / (t + t u)` in both branches, and the value :math:`\ln(1 + u) + s (d - t)`.
        """
        # From zero the logarithm is infinite; from here u is still no subnormal number.
        least = torch.finfo(difference.dtype).tiny ** (1 / (self.alpha + 1))
        distance = difference.abs().clamp_(min=least)
        bent = distance.clamp(max=self.theta)
        power = bent.log()
        if self.epsilon != 1:
            power.sub_(math.log(self.epsilon))
        power.mul_(exponent).exp_()
        slope = torch.addcmul(bent, bent, power)
        torch.div(power, slope, out=slope)
        slope.mul_(exponent)
        value = power.log1p_().addcmul_(slope, distance.sub_(bent))
        if weight is not None:
            value.mul_(weight)
            slope.mul_(weight)
        # No slope where the prediction is right: the curve has its least value there.
        sign = torch.sign(difference, out=distance)
        return value, torch.mul(slope, sign, out=slope if out is None else out)


def check_wing_options(alpha: float, omega: float, epsilon: float, theta: float) -> None:
    """Refuse options out of range, at construction and at call alike."""
    check_range("alpha", alpha, 2.0)
    check_range("omega", omega, 0.0, open_low=True)
    check_range("epsilon", epsilon, 0.0, open_low=True)
    check_range("theta", theta, 0.0, open_low=True)
