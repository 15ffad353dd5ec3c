"""Which samples an epoch sees: from as they come to every class alike."""

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
    r"""Draw the classes as often as they come at first, and equally often in the end.

    Of the N samples of epoch e class c has the share

    .. math:: s_c(e) = \left(1 - \frac{e}{E}\right) \frac{n_c}{N} + \frac{e}{E} \cdot \frac{1}{C}

    that is :math:`\lceil s_c N \rceil` samples; the last class has the rest. A class gives whole
    copies of all its samples, and then some of them once more, drawn without replacement. Classes
    without a sample have no share, and C counts the others.

    The classes are those of the labels when the epoch begins: pass a ``LabelStore`` to balance by
    what training has made of them. The order depends only on seed, epoch and labels, so a resumed
    run goes on as it would have.

    Of several processes each gets every ``num_replicas``-th index of one order; some indices come
    twice if the number does not divide. Their labels must be equal, as those of a ``LabelStore``
    are. Lightning takes the sampler as it is. accelerate splits every sampler once more: for
    ``accelerator.prepare`` pass ``num_replicas=1, rank=0``, and call ``set_epoch`` of the loader
    that it returns.

    Args:
        labels: the class of each sample ``(N,)``, or a function that returns them.
        num_classes: number of classes.
        max_epoch: the epoch E from which on every class is drawn equally often; 0 for all epochs.
        seed: which of the possible orders.
        num_replicas: number of processes; default: those of ``torch.distributed``.
        rank: which of them this is; default: as above.
        variant: ``"paper"``, the equation; ``"official"``, the public program's floating-point
            sums, which sometimes round a whole share up by one.

    Raises:
        ValueError: an argument out of its range, or a label outside the classes.

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
        """Say which epoch comes next, counted from 0, before each."""
        self.epoch = check_whole_number("epoch", epoch, 0)

    def class_counts(self) -> list[int]:
        """Return how many samples of each class the epoch will have, over all processes."""
        return self._counts(self._labels())

    def __len__(self) -> int:
        # The processes may have found each other since this was made.
        self.num_replicas, self.rank = self._processes()
        self.num_samples = math.ceil(self._size / self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas
        return self.num_samples

    def __iter__(self) -> Iterator[int]:
        labels = self._labels()
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> 1))
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
        """How many processes there are, and which this is."""
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
        epochs, classes = max(self.max_epoch, 1), len(present)  # without a start: epoch 1 of 1
        epoch = min(self.epoch, epochs) if self.max_epoch else epochs
        counts, left = [0] * len(sizes), total
        for number in present[:-1]:
            if self.variant == "official":
                done = epoch / epochs
                share = (1 - done) * (sizes[number] / total) + done * (1 / classes)
                wanted = math.ceil(share * total)
            else:  # a fraction of whole numbers
                numerator = (epochs - epoch) * sizes[number] * classes + epoch * total
                wanted = -(-numerator // (epochs * classes))
            counts[number] = min(wanted, left)
            left -= counts[number]
        counts[present[-1]] = left
        return counts

    def _labels(self) -> Tensor:
        labels = self._source() if callable(self._source) else self._source
        return to_labels("labels", labels, num_classes=self.num_classes)
