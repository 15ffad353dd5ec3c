"""Losses that remember earlier predictions: early-learning regularization, memory targets."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from robustfer.authoring import check_range, check_target, cross_entropy, sum_of_terms
from robustfer_elr._early_targets import EarlyTargets
from robustfer_elr.functional import early_learning_regularization, memory_cross_entropy


class EarlyLearningLoss(EarlyTargets):
    r"""Cross entropy plus agreement with predictions from before labels were memorized.

    .. math:: L = \operatorname{CE}(z, y) + \lambda\, \frac{1}{B}
        \sum_n \log\bigl(1 - \langle t_n, \tilde p_n \rangle\bigr)

    Each sample's :math:`t_n` is a running average of its predictions, including this step's. Call
    :meth:`propose` to get it, pass it to the loss, and call :meth:`update` after the optimizer's
    step. See :func:`~robustfer_elr.functional.moved_early_target` and
    :func:`~robustfer_elr.functional.early_learning_regularization`.

    A sample takes 4 bytes per class, on the CPU until the loss is moved. All of it is in the
    ``state_dict``. An average with NaN or infinity is skipped. With several processes each holds
    all averages, outside ``DistributedDataParallel``, and :meth:`update` keeps them equal.

    Args:
        num_samples: number of samples in the data set.
        num_classes: number of classes.
        decay: :math:`\beta` in [0, 1), the weight of the average so far.
        weight: :math:`\lambda`, the weight of the regularization.

    Attributes:
        early_targets: the averages :math:`t`, ``(N, C)``, 0 at first.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, early_target
        ``(B, C)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels,
        NeurIPS 2020.

    >>> import torch
    >>> criterion = EarlyLearningLoss(num_samples=100, num_classes=2, decay=0.7, weight=3.0)
    >>> logits, target, index = torch.zeros(1, 2), torch.tensor([1]), torch.tensor([42])
    >>> early_target = criterion.propose(logits=logits, index=index)
    >>> early_target
    tensor([[0.1500, 0.1500]])
    >>> criterion(logits, target, early_target)
    tensor(0.2056)
    >>> criterion.update(index, early_target)
    >>> criterion.early_targets[41:43]
    tensor([[0.0000, 0.0000],
            [0.1500, 0.1500]])
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self, *, num_samples: int, num_classes: int, decay: float = 0.7, weight: float = 3.0
    ) -> None:
        super().__init__(num_samples=num_samples, num_classes=num_classes, decay=decay)
        self.weight = check_range("weight", weight, 0.0)

    def terms(self, logits: Tensor, target: Tensor, early_target: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_target(logits, target, early_target=(early_target, "B C"))
        return {
            "cross_entropy": cross_entropy(logits, target),
            "early_learning": self.weight * early_learning_regularization(logits, early_target),
        }

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight={self.weight}"


class MemoryTargetLoss(EarlyTargets):
    r"""Cross entropy with a mixture of the label and the earlier predictions for the sample.

    .. math:: L = \operatorname{CE}\bigl(z,\; (1 - w\, s_n)\, y_n + w\, t_n\bigr), \qquad
        s_n = \sum_k t_{n,k}

    Each sample's :math:`t_n` is the same running average as in :class:`EarlyLearningLoss`, used in
    the same way. It starts at 0, and after k visits its sum is :math:`s_n = 1 - \beta^k`. So the
    target is the label at first, and later :math:`(1 - w)\, y_n + w\, t_n`. A
    :class:`robustfer.state.LabelDistributionBank` starts at the label instead.

    Pass a teacher's logits to :meth:`propose` to remember its predictions. The loop may change
    :attr:`weight`: early predictions are poor, and with a decay of 0.7 they soon fill :math:`t`.

    Args:
        num_samples: number of samples in the data set.
        num_classes: number of classes.
        decay: :math:`\beta` in [0, 1), the weight of the average so far.
        weight: :math:`w` in [0, 1], share of earlier predictions in the target.

    Attributes:
        early_targets: the averages :math:`t`, ``(N, C)``, 0 at first.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, early_target
        ``(B, C)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Laine and Aila, Temporal Ensembling for Semi-Supervised Learning, ICLR 2017; Huang et al.,
        Self-Adaptive Training: beyond Empirical Risk Minimization, NeurIPS 2020.

    >>> import torch
    >>> criterion = MemoryTargetLoss(num_samples=100, num_classes=2, decay=0.7, weight=0.5)
    >>> logits, target, index = torch.tensor([[2.0, 0.0]]), torch.tensor([1]), torch.tensor([42])
    >>> early_target = criterion.propose(logits=logits, index=index)
    >>> criterion(logits, target, early_target)
    tensor(1.8627)
    >>> criterion.update(index, early_target)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self, *, num_samples: int, num_classes: int, decay: float = 0.9, weight: float = 0.6
    ) -> None:
        super().__init__(num_samples=num_samples, num_classes=num_classes, decay=decay)
        self.weight = check_range("weight", weight, 0.0, 1.0)

    def forward(self, logits: Tensor, target: Tensor, early_target: Tensor) -> Tensor:
        return memory_cross_entropy(logits, target, early_target, weight=self.weight)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, weight={self.weight}"
