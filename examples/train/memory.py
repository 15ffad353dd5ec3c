"""Remember a teacher's predictions for each face, and judge its label by them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustfer.noise import transition_from_confident_joint
from robustfer.state import LabelDistributionBank


class Memory(nn.Module):
    """Keep a moving average of a teacher's predictions for each face, and a transition matrix.

    Args:
        label: labels to train on, (N).
        transition: how often each class (row) gets each label. ``None``: :meth:`estimate` it.
        num_classes: number of classes.
        decay: decay of the average.
    """

    transition: Tensor

    def __init__(
        self, label: Tensor, transition: Tensor | None, *, num_classes: int, decay: float
    ) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        self.bank = LabelDistributionBank(label, num_classes=num_classes, decay=decay, dtype=dtype)
        self.known = transition is not None
        matrix = torch.eye(num_classes) if transition is None else transition
        self.register_buffer("transition", matrix.to(dtype, copy=True))

    def forward(self, index: Tensor, predicted: Tensor) -> Tensor:
        """Return the averages of faces (B, C), updated with their new predictions."""
        believed: Tensor = self.bank(index, predicted)
        return believed

    def right(self, believed: Tensor, label: Tensor) -> Tensor:
        """Return the probability that each label is right (B)."""
        joint = believed * self.transition[:, label].T
        total = joint.sum(1).clamp(min=torch.finfo(joint.dtype).tiny)
        return joint.gather(1, label[:, None])[:, 0] / total

    def estimate(self) -> None:
        """Estimate the transition matrix from the averages, unless it is known."""
        if self.known:
            return
        self.known = True
        own = self.transition
        # A resumed run already has its estimate.
        if torch.equal(own, torch.eye(len(own)).to(own)):
            remembered, label = self.bank.distribution.cpu(), self.bank.label_given.cpu()
            own.copy_(transition_from_confident_joint(label.long(), remembered))
