"""A queue of the latest keys in two spaces, with their pseudo labels (LA-Net)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import (
    check_bool,
    check_dtype,
    check_finite,
    check_floating_dtype,
    check_int64,
    check_shapes,
    check_whole_number,
    check_within,
    values_are_checked,
)
from robustfer._dtypes import NeverHalf
from robustfer._saved_state import load_whole
from robustfer.functional import UNFILLED
from robustfer.functional._gather import several_processes
from robustfer.state._distributed import gather_in_rank_order
from robustfer.state._rows import finite_rows


class FeatureQueue(NeverHalf):
    """Keep the latest keys of expressions and landmarks, the negatives of a contrast.

    Pass them to the loss by name: ``criterion(..., **queue.negatives())``. Call :meth:`update`
    after the optimizer's step, so a batch is not its own negative. A row with NaN or infinity is
    skipped.

    The queue starts on the CPU. An entry takes ``8 * dim + 8`` bytes, or ``4 * dim + 8`` with
    ``dtype=torch.float16``. Unfilled slots hold random unit vectors with the label
    :data:`robustfer.functional.UNFILLED`. The loss leaves them out; ``variant="official"`` takes
    them as negatives.

    With several processes each holds the whole queue, outside ``DistributedDataParallel``. Each
    queue equals that of one process on the joined batch. If unfilled slots matter, use a generator
    of the same seed in each process.

    Args:
        dim: d, the width of the keys.
        capacity: number of entries.
        dtype: dtype of the keys; casting the module to half precision does not change it.
        generator: draws the first content of the slots; default: torch's global generator.

    Attributes:
        expression: the buffer of ``expression_queue``, ``(M, d)``.
        landmark: the buffer of ``landmark_queue``, ``(M, d)``.
        label: the buffer of ``queue_label``, ``(M)`` int64.
        cursor: next slot to write.
        count: number of filled slots.

    Raises:
        ValueError: an option does not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> queue = FeatureQueue(2, capacity=3)
    >>> queue.update(torch.eye(2), torch.eye(2), torch.tensor([4, -1]))
    >>> queue.update(torch.eye(2), torch.eye(2), torch.tensor([5, 6]))
    >>> queue.label, int(queue.cursor), int(queue.count)
    (tensor([ 6, -1,  5]), 1, 3)
    >>> list(queue.negatives())
    ['expression_queue', 'landmark_queue', 'queue_label']
    """

    expression: Tensor
    landmark: Tensor
    label: Tensor
    cursor: Tensor
    count: Tensor

    def __init__(
        self,
        dim: int,
        *,
        capacity: int = 8192,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        dim = check_whole_number("dim", dim, 1, 2**20)
        self.capacity = check_whole_number("capacity", capacity, 1, 2**40)
        check_dtype(dtype)
        source = "cpu" if generator is None else generator.device
        for name in ("expression", "landmark"):
            drawn = torch.randn(
                self.capacity, dim, generator=generator, dtype=torch.float32, device=source
            )
            self.register_buffer(name, F.normalize(drawn, dim=1).to("cpu", dtype))
        self.register_buffer("label", torch.full((self.capacity,), UNFILLED, device="cpu"))
        for name in ("cursor", "count"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64, device="cpu"))
        load_whole(self, _check_saved)

    def negatives(self) -> dict[str, Tensor]:
        """Return the tensors that :class:`robustfer.losses.LANetLoss` takes from the queue.

        They are the buffers, which :meth:`update` changes: call ``backward`` before it.

        Shape:
            expression_queue, landmark_queue ``(M, d)``, queue_label ``(M)`` int64.
        """
        return {
            "expression_queue": self.expression,
            "landmark_queue": self.landmark,
            "queue_label": self.label,
        }

    @torch.no_grad()
    def update(
        self,
        expression_key: Tensor,
        landmark_key: Tensor,
        pseudo_label: Tensor,
        *,
        gather: bool = True,
    ) -> None:
        """Replace the oldest keys by those of a batch. Call it after the optimizer's step.

        A batch larger than the queue leaves its last rows. It does not synchronise with the GPU.

        Args:
            expression_key: the keys in the expression space that the loss used.
            landmark_key: keys of the same images in the landmark space.
            pseudo_label: labels of the batch, see :func:`robustfer.functional.pseudo_labels`.
            gather: join the rows of all processes. Each must then call this at the same point,
                even without rows. With one process it has no effect.

        Shape:
            expression_key, landmark_key ``(B, d)``, pseudo_label ``(B)`` int64.

        Raises:
            TypeError: ``gather`` is not a bool.
            ValueError: shapes, dtypes or devices do not fit, or a key is not finite under
                :func:`robustfer.losses.check_values`.
        """
        check_bool("gather", gather)
        dim = self.expression.shape[1]
        check_shapes(
            expression_key=(expression_key, f"B* {dim}"),
            landmark_key=(landmark_key, f"B* {dim}"),
            pseudo_label=(pseudo_label, "B*"),
        )
        check_floating_dtype(expression_key=expression_key, landmark_key=landmark_key)
        check_int64(pseudo_label=pseudo_label)
        if pseudo_label.device != self.label.device:
            raise ValueError(
                f"the batch is on {pseudo_label.device} but the queue is on {self.label.device}; "
                "move them to one device"
            )
        dtype = self.expression.dtype
        batch: tuple[Tensor, ...] = (expression_key.to(dtype), landmark_key.to(dtype), pseudo_label)
        if gather and several_processes():
            batch = gather_in_rank_order(*batch)
        if values_are_checked():
            check_finite(expression_key=batch[0], landmark_key=batch[1])
        most = max(1, self.capacity - 1)
        for start in range(0, len(batch[0]), most):
            self._write(*(rows[start : start + most] for rows in batch))

    def _write(self, expression: Tensor, landmark: Tensor, label: Tensor) -> None:
        # A skipped row rewrites the slot before the cursor with its own content. The batch is
        # smaller than the capacity, so no other row writes that slot.
        finite = finite_rows(expression) & finite_rows(landmark)
        arrived = finite.cumsum(0)
        slots = (self.cursor - 1 + arrived * finite).remainder_(self.capacity)
        column = finite[:, None]
        for buffer, rows, keep in (
            (self.expression, expression, column),
            (self.landmark, landmark, column),
            (self.label, label, finite),
        ):
            buffer.index_copy_(0, slots, torch.where(keep, rows, buffer.index_select(0, slots)))
        number = arrived[-1]
        self.cursor.add_(number).remainder_(self.capacity)
        self.count.add_(number).clamp_(max=self.capacity)

    def extra_repr(self) -> str:
        return f"dim={self.expression.shape[1]}, capacity={self.capacity}"


def _check_saved(queue: FeatureQueue, saved: Mapping[str, Tensor]) -> None:
    check_within(0, queue.capacity - 1, cursor=saved["cursor"])
    check_within(0, queue.capacity, count=saved["count"])
    check_finite(expression=saved["expression"], landmark=saved["landmark"])
