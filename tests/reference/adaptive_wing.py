"""The adaptive wing loss cell by cell, from the equations of its paper."""

import math

import torch


def curve(truth, prediction, alpha, omega, epsilon, theta):
    """Value and slope (by the prediction) of one cell."""
    distance, exponent = abs(truth - prediction), alpha - truth
    sign = (prediction > truth) - (prediction < truth)
    if distance < theta:
        power = (distance / epsilon) ** exponent
        lower = (distance / epsilon) ** (exponent - 1)
        slope = omega / (1 + power) * exponent * lower / epsilon
        return omega * math.log(1 + power), sign * slope
    bend = (theta / epsilon) ** exponent
    a = omega / (1 + bend) * exponent * (theta / epsilon) ** (exponent - 1) / epsilon
    c = theta * a - omega * math.log(1 + bend)
    return a * distance - c, sign * a


def adaptive_wing(
    heatmaps, target, weights, *, alpha=2.1, omega=14.0, epsilon=1.0, theta=0.5
):  # fmt: skip
    """Loss of each sample (B), and its gradient by the heat maps."""
    losses = torch.zeros(len(heatmaps), dtype=torch.float64)
    gradient = torch.zeros(heatmaps.shape, dtype=torch.float64)
    cells = heatmaps[0].numel()
    for place in torch.cartesian_prod(*map(torch.arange, heatmaps.shape)).tolist():
        truth, prediction, weight = (
            each[tuple(place)].item() for each in (target, heatmaps, weights)
        )
        value, slope = curve(truth, prediction, alpha, omega, epsilon, theta)
        losses[place[0]] += weight * value / cells
        gradient[tuple(place)] = weight * slope / cells
    return losses, gradient
