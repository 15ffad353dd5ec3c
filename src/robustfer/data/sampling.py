"""Sample the classes first by their frequency, and later equally often."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, distributed
from torch.utils.data import DistributedSampler

from robustfer._checks import Variant, check_seed, check_variant, check_whole_number
from robustfer._inputs import to_labels
from robustfer.functional._gather import several_processes


class ProgressiveBalancedSampler(DistributedSampler[int]):
    r"""Sample classes by their frequency in the first epoch, and equally often from epoch E on.

    Of the N samples of epoch e class c has the share

    .. math:: s_c(e) = \left(1 - \frac{e}{E}\right) \frac{n_c}{N} + \frac{e}{E} \cdot \frac{1}{C}

    that is :math:`\lceil s_c N \rceil` samples. The last class has the rest. All samples of a class
    are repeated equally often, and some once more, drawn without replacement. C counts only classes
    that have samples.

    The labels are read when the epoch begins: pass a ``LabelStore`` to balance by current labels.
    The order depends only on seed, epoch and labels, so a resumed run continues with the same one.

    With several processes, each gets every ``num_replicas``-th index of one order. Some indices
    occur twice if the number does not divide. All processes must have equal labels, as a
    ``LabelStore`` has. Lightning takes the sampler unchanged. accelerate splits every sampler
    again: for ``accelerator.prepare`` pass ``num_replicas=1, rank=0``, and call ``set_epoch`` of
    the loader that it returns.

    Args:
        labels: the class of each sample ``(N)``, or a function that returns them.
        num_classes: number of classes.
        max_epoch: the epoch E from which all classes are sampled equally often. 0: all epochs.
        seed: seed of the order.
        num_replicas: number of processes. Default: that of ``torch.distributed``.
        rank: rank of this process. Default: that of ``torch.distributed``.
        variant: ``"paper"`` follows the equation. ``"official"`` follows the public program's
            floating-point sums, which sometimes round a whole number up.

    Raises:
        ValueError: an argument is out of its range, or a label is outside the classes.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition under
        Label Noise, ICCV 2023.

    >>> sampler = ProgressiveBalancedSampler(torch.tensor([0] * 6 + [1] * 2), num_classes=2, max_epoch=4)
    >>> for epoch in (0, 2, 4):
    ...     sampler.set_epoch(epoch)
    ...     print(sampler.class_counts(), len(list(sampler)))
    [6, 2] 8
    [5, 3] 8
    [4, 4] 8
    """  # noqa: E501 - the example is one line

    def __init__(
        self,
        labels: Tensor | ArrayLike | Callable[[], Tensor | ArrayLike],
        *,
        num_classes: int,
        max_epoch: int,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        variant: Variant = "paper",
    ) -> None:
        self._source = labels
        self.num_classes = check_whole_number("num_classes", num_classes, 1)
        self.max_epoch = check_whole_number("max_epoch", max_epoch, 0)
        self.variant = check_variant(variant)
        self._given = num_replicas, rank
        self._size = len(self._labels())
        places: Any = range(self._size)
        super().__init__(places, *self._processes(), seed=check_seed(seed))

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next epoch, from 0. Call it before each epoch.

        Raises:
            ValueError: ``epoch`` is not a whole number from 0 on.
        """
        self.epoch = check_whole_number("epoch", epoch, 0)

    def class_counts(self) -> list[int]:
        """Return the number of samples of each class in the epoch, over all processes."""
        return self._counts(self._labels())

    def __len__(self) -> int:
        # The process group can be created after the sampler.
        self.num_replicas, self.rank = self._processes()
        self.num_samples = math.ceil(self._size / self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        labels = self._labels()
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        parts = []
        for number, count in enumerate(self._counts(labels)):
            if not count:
                continue
            rows = (labels == number).nonzero()[:, 0]
            copies, rest = divmod(count, len(rows))
            extra = torch.randperm(len(rows), generator=generator, device="cpu")[:rest]
            parts += [rows.repeat(copies), rows[extra]]
        drawn = torch.cat(parts)
        drawn = drawn[torch.randperm(len(drawn), generator=generator, device="cpu")]
        wanted = len(self) * self.num_replicas
        padded = drawn.repeat(math.ceil(wanted / len(drawn)))[:wanted]
        yield from padded[self.rank :: self.num_replicas].tolist()

    def _processes(self) -> tuple[int, int]:
        """Return the number of processes and the rank of this one."""
        replicas, rank = self._given
        several = several_processes()
        if replicas is None:
            replicas = distributed.get_world_size() if several else 1
        if rank is None:
            rank = distributed.get_rank() if several else 0
        replicas = check_whole_number("num_replicas", replicas, 1)
        return replicas, check_whole_number("rank", rank, 0, replicas - 1)

    def _counts(self, labels: Tensor) -> list[int]:
        sizes = labels.bincount(minlength=self.num_classes).tolist()
        total = len(labels)
        present = [number for number, size in enumerate(sizes) if size]
        epochs, classes = max(self.max_epoch, 1), len(present)  # max_epoch 0 acts as epoch 1 of 1
        epoch = min(self.epoch, epochs) if self.max_epoch else epochs
        counts, left = [0] * len(sizes), total
        for number in present[:-1]:
            if self.variant == "official":
                done = epoch / epochs
                share = (1 - done) * (sizes[number] / total) + done * (1 / classes)
                wanted = math.ceil(share * total)
            else:  # exact, in whole numbers
                numerator = (epochs - epoch) * sizes[number] * classes + epoch * total
                wanted = -(-numerator // (epochs * classes))
            counts[number] = min(wanted, left)
            left -= counts[number]
        counts[present[-1]] = left
        return counts

    def _labels(self) -> Tensor:
        labels = self._source() if callable(self._source) else self._source
        return to_labels("labels", labels, num_classes=self.num_classes)
