"""Sparse over-parameterization as losses with parameters for each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustfer.authoring import (
    NeverHalf,
    check_range,
    check_shapes,
    check_whole_number,
    load_whole,
    read_rows,
    sum_of_terms,
)
from robustfer.functional import self_distillation
from robustfer_sop.functional import class_balance, corrected_cross_entropy, noise_error

# The batch size of the paper's learning rates.
_PUBLISHED_BATCH_SIZE = 128


class SparseOverParameterizationLoss(NeverHalf):
    r"""Cross entropy that learns for each sample how wrong its label is.

    .. math::
        L = \frac{1}{B} \sum_n -\sum_k y_{n,k} \log \bar p_{n,k}
            + \bigl\lVert \mathrm{onehot}(\arg\max_k p_{n,k}) + U_n - V_n - y_n \bigr\rVert^2

    .. math::
        \bar p_n \propto \max\bigl(p_n + U_n - \mathrm{sg}(V_n),\, 10^{-4}\bigr), \quad
        U_n = \min(u_n^2\, y_n,\, 1), \quad V_n = \min\bigl(v_n^2 (1 - y_n),\, 1\bigr)

    The terms are :func:`~robustfer_sop.functional.corrected_cross_entropy` and
    :func:`~robustfer_sop.functional.noise_error`. Each sample has its own :math:`u` and :math:`v`.
    They need plain gradient descent with separate learning rates, from :meth:`param_groups`::

        torch.optim.SGD(criterion.param_groups())

    From ``init_std=1e-8``, the paper's start, :math:`v` takes about 68 visits of a sample to reach
    1. From 1e-2, the default here, it takes about 20.

    Args:
        num_samples: number of samples in the data set.
        num_classes: number of classes.
        batch_size: samples of a step, those of all processes together. The rates are scaled by
            it, because the loss is a mean over the batch. Drop a last batch that is shorter.
        lr_u: learning rate of :math:`u` for the paper's batch of 128. The paper has 10 for
            symmetric noise of 10 classes, 1 for 100 classes, 0.1 for asymmetric noise. With 10, a
            network that learns slowly loses more than it gains.
        lr_v: learning rate of :math:`v` for the paper's batch of 128. The paper has 10, and 100
            for asymmetric noise.
        init_std: standard deviation of the first values. The paper has 1e-8.

    Attributes:
        u: root of what is added at the label, ``(N,)``.
        v: roots of what is taken away at each other class, ``(N, C)``.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, index ``(B)`` int64
        rows of the samples in the data set -> scalar; float32 for half logits.

    Raises:
        IndexError: an index is outside the data set (on CUDA a device-side assertion).
        ValueError: an option or an argument does not fit.

    Reference:
        Liu et al., Robust Training under Label Noise by Over-parameterization, ICML 2022.

    >>> criterion = SparseOverParameterizationLoss(num_samples=100, num_classes=2, batch_size=64)
    >>> [(group["lr"], group["momentum"]) for group in criterion.param_groups()]
    [(0.5, 0.0), (5.0, 0.0)]
    >>> logits, target, index = torch.zeros(1, 2), torch.tensor([0]), torch.tensor([42])
    >>> criterion(logits, target, index).detach().round(decimals=2)
    tensor(0.6900)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        *,
        num_samples: int,
        num_classes: int,
        batch_size: int,
        lr_u: float = 1.0,
        lr_v: float = 10.0,
        init_std: float = 1e-2,
    ) -> None:
        super().__init__()
        self.num_samples = check_whole_number("num_samples", num_samples, 1)
        self.num_classes = check_whole_number("num_classes", num_classes, 2)
        self.batch_size = check_whole_number("batch_size", batch_size, 1)
        self.lr_u = check_range("lr_u", lr_u, 0.0)
        self.lr_v = check_range("lr_v", lr_v, 0.0)
        self.init_std = check_range("init_std", init_std, 0.0, open_low=True)
        self.u = nn.Parameter(init_std * torch.randn(self.num_samples))
        self.v = nn.Parameter(init_std * torch.randn(self.num_samples, self.num_classes))
        load_whole(self)

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of its parameters: plain gradient descent, a rate for each.

        ``robustfer.losses.param_groups(model, criterion)`` has these groups too, for one
        ``torch.optim.SGD``. With any other optimizer or a schedule, use a separate optimizer:
        ``torch.optim.SGD(criterion.param_groups())``.
        """
        scale = self.batch_size / _PUBLISHED_BATCH_SIZE
        plain = {"momentum": 0.0, "weight_decay": 0.0}
        return [
            {"params": [self.u], "lr": scale * self.lr_u, **plain},
            {"params": [self.v], "lr": scale * self.lr_v, **plain},
        ]

    @torch.no_grad()
    def doubt(self, index: Tensor | None = None) -> Tensor:
        r"""Return how much noise each label was found to have, :math:`\min(u^2, 1)`, in [0, 1].

        Args:
            index: rows of the samples in the data set, ``(B)`` int64; by default all.

        Raises:
            IndexError: an index is outside the data set (on CUDA a device-side assertion).
            ValueError: ``index`` does not fit.
        """
        u = self.u if index is None else read_rows(self.u, index)
        return u.square().clamp(max=1.0)

    def terms(self, logits: Tensor, target: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_shapes(logits=(logits, f"B {self.num_classes}"), index=(index, "B"))
        u, v = read_rows(self.u, index), read_rows(self.v, index)
        return {
            "corrected_cross_entropy": corrected_cross_entropy(logits, target, u, v),
            "noise_error": noise_error(logits, target, u, v),
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"{self.num_samples} samples, num_classes={self.num_classes}, "
            f"batch_size={self.batch_size}, lr_u={self.lr_u}, lr_v={self.lr_v}, "
            f"init_std={self.init_std}"
        )


class SparseOverParameterizationPlusLoss(SparseOverParameterizationLoss):
    r"""Sparse over-parameterization with consistency of two views and balanced classes (SOP+).

    .. math:: L = L_{\mathrm{SOP}} + \lambda_c\, \frac{1}{B} \sum_n
        \mathrm{KL}\bigl(\mathrm{sg}(p_n) \,\|\, p'_n\bigr) + \lambda_b\, L_{\mathrm{balance}}

    :math:`p'` is the prediction for another view of the same image, such as its mirror image. The
    terms are those of :class:`SparseOverParameterizationLoss`,
    :func:`robustfer.functional.self_distillation` and
    :func:`~robustfer_sop.functional.class_balance`.

    Args:
        num_samples: number of samples in the data set.
        num_classes: number of classes.
        batch_size: samples of a step, those of all processes together. Drop a last batch that
            is shorter.
        lr_u: learning rate of :math:`u` for the paper's batch of 128.
        lr_v: learning rate of :math:`v` for the paper's batch of 128.
        init_std: standard deviation of the first values. The paper has 1e-8.
        consistency_weight: :math:`\lambda_c`.
        balance_weight: :math:`\lambda_b`; 0 if the classes have very different sizes.

    Shape:
        logits ``(B, C)``, logits_flipped ``(B, C)`` of the other view, target ``(B)`` int64 or
        ``(B, C)`` probabilities, index ``(B)`` int64 rows of the samples in the data set ->
        scalar; float32 for half logits.

    Raises:
        IndexError: an index is outside the data set (on CUDA a device-side assertion).
        ValueError: an option or an argument does not fit.

    Reference:
        Liu et al., Robust Training under Label Noise by Over-parameterization, ICML 2022.

    >>> criterion = SparseOverParameterizationPlusLoss(
    ...     num_samples=100, num_classes=2, batch_size=128
    ... )
    >>> logits, target, index = torch.zeros(1, 2), torch.tensor([0]), torch.tensor([42])
    >>> list(criterion.terms(logits, logits, target, index))
    ['corrected_cross_entropy', 'noise_error', 'consistency', 'class_balance']
    """

    def __init__(
        self,
        *,
        num_samples: int,
        num_classes: int,
        batch_size: int,
        lr_u: float = 1.0,
        lr_v: float = 10.0,
        init_std: float = 1e-2,
        consistency_weight: float = 0.9,
        balance_weight: float = 0.1,
    ) -> None:
        super().__init__(
            num_samples=num_samples,
            num_classes=num_classes,
            batch_size=batch_size,
            lr_u=lr_u,
            lr_v=lr_v,
            init_std=init_std,
        )
        self.consistency_weight = check_range("consistency_weight", consistency_weight, 0.0)
        self.balance_weight = check_range("balance_weight", balance_weight, 0.0)

    def terms(  # type: ignore[override]
        self, logits: Tensor, logits_flipped: Tensor, target: Tensor, index: Tensor
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_shapes(logits=(logits, "B C"), logits_flipped=(logits_flipped, "B C"))
        apart = self_distillation(logits_flipped, logits)
        return {
            **super().terms(logits, target, index),
            "consistency": self.consistency_weight * apart,
            "class_balance": self.balance_weight * class_balance(logits),
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, consistency_weight={self.consistency_weight}, "
            f"balance_weight={self.balance_weight}"
        )
