"""Adjust logits by the share of each class in the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer._checks import (
    check_distribution,
    check_floating,
    check_range,
    check_shapes,
    values_are_checked,
)
from robustfer.functional._precision import full_precision


def adjust_logits(logits: Tensor, shares: Tensor, *, strength: float = 1.0) -> Tensor:
    r"""Add the log of each class's share to its logit, for a loss that is fair to rare classes.

    .. math:: z'_k = z_k + \tau \log \pi_k

    Pass the result to any loss in training, but predict with the unadjusted logits. The network
    then learns :math:`p_k / \pi_k^\tau`: with :math:`\tau = 1` every class counts equally. To
    correct a network after training, use :func:`robustfer.metrics.adjust_to_shares`.

    Args:
        logits: :math:`z`, scores of the classes, before softmax.
        shares: :math:`\pi`, share of each class in the labels. A share of 0 counts as the least
            number above 0.
        strength: :math:`\tau`; 0 does not adjust the logits.

    Shape:
        logits ``(B, C)``, shares ``(C)`` -> ``(B, C)``, float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, ``strength`` is below 0, or the shares do
            not sum to 1 under :func:`robustfer.losses.check_values`.

    Reference:
        Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021.

    >>> from robustfer.losses import CompositeLoss, Term
    >>> criterion = CompositeLoss(
    ...     Term("ce", torch.nn.CrossEntropyLoss(), inputs={"input": "adjusted"})
    ... )
    >>> logits, target = torch.zeros(2, 2), torch.tensor([0, 1])
    >>> adjusted = adjust_logits(logits, torch.tensor([0.8, 0.2]))
    >>> adjusted.softmax(dim=1)[0]
    tensor([0.8000, 0.2000])
    >>> criterion(adjusted=adjusted, target=target)
    tensor(0.9163)
    """
    check_shapes(logits=(logits, "B C"), shares=(shares, "C"))
    check_floating(logits=logits, shares=shares)
    check_range("strength", strength, 0.0)
    if values_are_checked():
        check_distribution(shares=shares[None])
    logits, shares = full_precision(logits), full_precision(shares)
    least = torch.finfo(torch.float32).tiny
    return logits + strength * shares.clamp(min=least).log().to(logits.dtype)
