"""Expression-landmark contrast as a module, to combine with any classification loss."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from robustfer._checks import Variant, check_bool, check_range, check_shapes, check_variant
from robustfer.functional import expression_landmark_contrast
from robustfer.functional._gather import gather_rows, several_processes


class ExpressionLandmarkContrastiveLoss(nn.Module):
    """Module form of :func:`robustfer.functional.expression_landmark_contrast`.

    The queues come from a :class:`robustfer.state.FeatureQueue`:
    ``criterion(..., **queue.negatives())``. The loop updates it after the step.

    Args:
        temperature: divides the similarities.
        gather: join the batches of all processes. Value and gradient under
            ``DistributedDataParallel`` are then those of one process on the joined batch. Each
            process must call this at the same point. With one process it has no effect.
            ``"official"`` ignores it: its positives come from the own process only.
        variant: ``"paper"`` or ``"official"``, which takes unfilled slots of a queue as negatives.

    Shape:
        expression_query, landmark_query, expression_key, landmark_key ``(B, d)``, pseudo_label
        ``(B)`` int64, expression_queue, landmark_queue ``(M, d)``, queue_label ``(M)`` int64 ->
        scalar; float32 for half inputs.

    Raises:
        TypeError: ``gather`` is not a bool.
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
            # A wrong shape must raise before any process waits for another.
            check_shapes(
                expression_query=(expression_query, "B d"),
                landmark_query=(landmark_query, "B d"),
                expression_key=(expression_key, "B d"),
                landmark_key=(landmark_key, "B d"),
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
