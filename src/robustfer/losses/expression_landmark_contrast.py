"""The expression-landmark contrast, to compose with any classification loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer._checks import Variant, check_bool, check_range, check_shapes, check_variant
from robustfer.functional import expression_landmark_contrast
from robustfer.functional._gather import gather_rows, several_processes


class ExpressionLandmarkContrastiveLoss(nn.Module):
    """Module form of :func:`robustfer.functional.expression_landmark_contrast`.

    The queues are those of a :class:`robustfer.state.FeatureQueue`, which the loop updates after
    the step: ``criterion(..., **queue.negatives())``.

    Args:
        temperature: by which similarities are divided.
        gather: join the batches of all processes, so that value and gradient (averaged over them,
            as ``DistributedDataParallel`` does) are those of one process on the joined batch. Each
            process must then call this at the same point; nothing to do without
            ``torch.distributed``. Not for ``"official"``, whose positives are those of the process.
        variant: ``"paper"`` or ``"official"``, which takes unfilled slots of a queue as negatives.

    Shape:
        expression_query, landmark_query, expression_key, landmark_key ``(B, D)``, pseudo_label
        ``(B)`` int64, expression_queue, landmark_queue ``(M, D)``, queue_label ``(M)`` int64 ->
        scalar; float32 for half inputs.

    Raises:
        ValueError: an option or an argument does not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> import torch
    >>> criterion = ExpressionLandmarkContrastiveLoss(temperature=1.0)
    >>> faces, label = torch.eye(2), torch.tensor([0, 1])
    >>> criterion(faces, faces, faces, faces, label, torch.eye(2), torch.eye(2), label)
    tensor(0.6265)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self, *, temperature: float = 0.1, gather: bool = True, variant: Variant = "paper"
    ) -> None:
        super().__init__()
        self.temperature = check_range("temperature", temperature, 0.0, open_low=True)
        self.variant = check_variant(variant)
        self.gather = check_bool("gather", gather)

    def forward(
        self,
        expression_query: Tensor,
        landmark_query: Tensor,
        expression_key: Tensor,
        landmark_key: Tensor,
        pseudo_label: Tensor,
        expression_queue: Tensor,
        landmark_queue: Tensor,
        queue_label: Tensor,
    ) -> Tensor:
        batch: tuple[Tensor, ...] = (
            expression_query,
            landmark_query,
            expression_key,
            landmark_key,
            pseudo_label,
        )
        if self.gather and self.variant == "paper" and several_processes():
            # Before any process waits for another.
            check_shapes(
                expression_query=(expression_query, "B D"),
                landmark_query=(landmark_query, "B D"),
                expression_key=(expression_key, "B D"),
                landmark_key=(landmark_key, "B D"),
                pseudo_label=(pseudo_label, "B"),
            )
            batch, _ = gather_rows(*batch)
        return expression_landmark_contrast(
            *(*batch, expression_queue, landmark_queue, queue_label),
            temperature=self.temperature,
            variant=self.variant,
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gather={self.gather}, variant={self.variant!r}"
