"""A slowly moving label distribution for each sample (LA-Net)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from robustfer._checks import (
    check_dtype,
    check_finite,
    check_mask,
    check_probabilities,
    check_range,
    check_shapes,
    check_whole_number,
    values_are_checked,
)
from robustfer._dtypes import NeverHalf
from robustfer._saved_state import load_whole
from robustfer.functional._precision import full_precision
from robustfer.state import _label_checks as checks
from robustfer.state._rows import one_hot, read_rows, write_rows


class LabelDistributionBank(NeverHalf):
    r"""Keep a label distribution for each sample, and move it slowly towards estimates.

    .. math:: q_i = d\, \mathrm{bank}_{n_i} + (1 - d)\, t_i

    with :math:`n_i` the row of sample :math:`i` in the data set. The bank starts with the given
    labels. ``forward`` returns :math:`q`, with the gradient of the estimate :math:`t`, and does not
    change the bank. Pass its result to :meth:`update` after the optimizer's step. Where ``known``
    is False, the estimate is ignored.

    A sample takes 4 bytes per class, and 1 for its given label (2 with more than 256 classes). With
    ``dtype=torch.float16`` it takes 2 bytes per class, and rows are normalised when they are read.
    A row with NaN or infinity is skipped. If a sample comes twice, its last row wins. A saved state
    must come from the same given labels.

    With several processes each holds the whole bank, outside ``DistributedDataParallel``. Each bank
    equals that of one process on the joined batch.

    Args:
        given: labels of the data set, ``(N)`` integers.
        num_classes: number of classes, 2 to 32,768.
        decay: :math:`d` in [0, 1), the weight of the old row.
        dtype: dtype of the bank; casting the module to half precision does not change it.

    Attributes:
        distribution: the bank, ``(N, C)``.
        label_given: the given labels, ``(N)`` uint8, or int16 with more than 256 classes.

    Shape:
        index ``(B)`` int64, estimate ``(B, C)``, known ``(B)`` bool -> ``(B, C)``; float32 for half
        inputs.

    Raises:
        TypeError: ``given`` is not a tensor.
        ValueError: a label is not a class, or an argument does not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> bank = LabelDistributionBank(torch.tensor([1, 0, 1]), num_classes=2, decay=0.9)
    >>> index, estimate = torch.tensor([2]), torch.tensor([[1.0, 0.0]])
    >>> soft_target = bank(index, estimate)
    >>> soft_target
    tensor([[0.1000, 0.9000]])
    >>> bank.update(index, soft_target)
    >>> bank.distribution
    tensor([[0.0000, 1.0000],
            [1.0000, 0.0000],
            [0.1000, 0.9000]])
    """

    __call__: Callable[..., Tensor]
    distribution: Tensor
    label_given: Tensor

    def __init__(
        self,
        given: Tensor,
        *,
        num_classes: int,
        decay: float = 0.9,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.num_classes = check_whole_number("num_classes", num_classes, 2, 2**15)
        self.decay = check_range("decay", decay, 0.0, 1.0, open_high=True)
        check_dtype(dtype)
        labels, _ = checks.given_labels(given, self.num_classes)
        self.num_samples = len(labels)
        self.register_buffer("distribution", one_hot(labels, self.num_classes, dtype))
        self.register_buffer("label_given", labels)
        load_whole(self, _check_saved)

    def forward(self, index: Tensor, estimate: Tensor, known: Tensor | None = None) -> Tensor:
        self._check(index, "estimate", estimate)
        estimate = full_precision(estimate)
        believed = full_precision(read_rows(self.distribution, index))
        if believed.dtype != self.distribution.dtype:
            # Half precision has rounded the rows.
            believed = believed / believed.sum(dim=1, keepdim=True)
        moved = self.decay * believed + (1 - self.decay) * estimate
        if known is None:
            return moved
        check_shapes(estimate=(estimate, "B* C"), known=(known, "B*"))
        check_mask(known=known)
        return moved.where(known[:, None], believed)

    @torch.no_grad()
    def update(self, index: Tensor, soft_target: Tensor, *, gather: bool = True) -> None:
        """Write what :meth:`forward` returned. Call it after the optimizer's step.

        It does not synchronise with the GPU.

        Args:
            index: rows of the data set.
            soft_target: what ``forward`` returned for them.
            gather: join the rows of all processes. Each must then call this at the same point,
                even without rows. With one process it has no effect.

        Shape:
            index ``(B)`` int64, soft_target ``(B, C)``.

        Raises:
            IndexError: an index is outside the data set (on CUDA a device-side assertion).
            TypeError: ``gather`` is not a bool.
            ValueError: an argument does not fit.
        """
        if values_are_checked():
            self._check(index, "soft_target", soft_target)
        write_rows(self.distribution, index, soft_target, name="soft_target", gather=gather)

    def extra_repr(self) -> str:
        return f"{self.num_samples} samples, num_classes={self.num_classes}, decay={self.decay}"

    def _check(self, index: Tensor, name: str, rows: Tensor) -> None:
        check_shapes(**{name: (rows, f"B* {self.num_classes}"), "index": (index, "B*")})
        check_probabilities(**{name: rows})


def _check_saved(bank: LabelDistributionBank, saved: Mapping[str, Tensor]) -> None:
    checks.check_same_given("label_given", saved, bank.label_given)
    check_finite(distribution=saved["distribution"])
