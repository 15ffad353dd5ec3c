"""Early-learning regularization as a loss that remembers its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robustfer.authoring import (
    check_range,
    check_shapes,
    check_target,
    check_whole_number,
    cross_entropy,
    load_whole,
    read_rows,
    sum_of_terms,
    write_rows,
)
from robustfer_elr.functional import early_learning_regularization, moved_early_target


class EarlyLearningLoss(nn.Module):
    r"""Cross entropy that is held to what the network predicted before it memorized labels.

    .. math:: L = \operatorname{CE}(z, y) + \lambda\, \frac{1}{B}
        \sum_n \log\bigl(1 - \langle t_n, \tilde p_n \rangle\bigr)

    Each sample's :math:`t_n` is a running average of its predictions, this step's among them: ask
    :meth:`propose` for it, give it to the loss, and have it kept with :meth:`update` after the
    optimizer's step. The two terms are :func:`~robustfer_elr.functional.moved_early_target`
    and :func:`~robustfer_elr.functional.early_learning_regularization`.

    A sample takes 4 bytes per class, on the CPU until the loss is moved. All of it is in the
    ``state_dict``. An average with NaN or infinity in it is not kept. With several processes each
    holds the whole of it, outside ``DistributedDataParallel``; :meth:`update` keeps them equal.

    Args:
        num_samples: number of samples in the data set.
        num_classes: number of classes.
        momentum: :math:`\beta` in [0, 1), share of the average so far.
        weight: :math:`\lambda`, the weight of the regularization.

    Attributes:
        early_targets: the averages :math:`t`, ``(N, C)``, at first 0.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, early_target
        ``(B, C)`` -> scalar; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Liu et al., Early-Learning Regularization Prevents Memorization of Noisy Labels,
        NeurIPS 2020.

    >>> criterion = EarlyLearningLoss(num_samples=100, num_classes=2, momentum=0.7, weight=3.0)
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
    early_targets: Tensor

    def __init__(
        self, *, num_samples: int, num_classes: int, momentum: float = 0.7, weight: float = 3.0
    ) -> None:
        super().__init__()
        self.num_samples = check_whole_number("num_samples", num_samples, 1)
        self.num_classes = check_whole_number("num_classes", num_classes, 2)
        self.momentum = check_range("momentum", momentum, 0.0, 1.0, open_high=True)
        self.weight = check_range("weight", weight, 0.0)
        averages = torch.zeros(
            self.num_samples, self.num_classes, dtype=torch.float32, device="cpu"
        )
        self.register_buffer("early_targets", averages)
        load_whole(self, _check_saved)

    def propose(self, logits: Tensor, index: Tensor) -> Tensor:
        """Return the averages of these samples with their prediction in it, and write nothing.

        Args:
            logits: scores of the classes, ``(B, C)``.
            index: rows of the samples in the data set, ``(B)`` int64.

        Raises:
            IndexError: a row outside the data set (on CUDA an assertion of the device).
            ValueError: an argument does not fit.
        """
        check_shapes(logits=(logits, f"B* {self.num_classes}"), index=(index, "B*"))
        old = read_rows(self.early_targets, index)
        return moved_early_target(old, logits, momentum=self.momentum)

    def terms(self, logits: Tensor, target: Tensor, early_target: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        check_target(target, logits, early_target=(early_target, "B C"))
        return {
            "cross_entropy": cross_entropy(logits, target),
            "early_learning": self.weight * early_learning_regularization(logits, early_target),
        }

    forward = sum_of_terms(terms)

    def update(self, index: Tensor, early_target: Tensor, *, gather: bool = True) -> None:
        """Keep what :meth:`propose` returned; after the optimizer's step. No host waits.

        Args:
            index: rows of the samples in the data set, ``(B)`` int64; where one comes twice, its
                last row stays.
            early_target: what ``propose`` returned for them, ``(B, C)``.
            gather: join the rows of all processes, each of which must then call this at the same
                point; nothing to do without ``torch.distributed``.

        Raises:
            IndexError: a row outside the data set (on CUDA an assertion of the device).
            TypeError: ``gather`` is not a bool.
            ValueError: an argument does not fit.
        """
        write_rows(self.early_targets, index, early_target, name="early_target", gather=gather)

    def extra_repr(self) -> str:
        return (
            f"{self.num_samples} samples, num_classes={self.num_classes}, "
            f"momentum={self.momentum}, weight={self.weight}"
        )


def _check_saved(loss: EarlyLearningLoss, saved: Mapping[str, Tensor]) -> None:
    if not bool(saved["early_targets"].isfinite().all()):
        raise ValueError("early_targets must be finite, got NaN or infinity")
