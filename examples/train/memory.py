"""What a teacher said of each face so far, and what that tells of its label."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustfer.noise import transition_from_confident_joint
from robustfer.state import LabelDistributionBank


class Memory(nn.Module):
    """A slow mean of a teacher's predictions for each face, and how labels go wrong.

    Args:
        label: what is trained on, (N).
        transition: how often each class (row) is given each label; ``None``: :meth:`estimate` it.
        num_classes: number of classes.
        momentum: of the mean.
    """

    transition: Tensor

    def __init__(
        self, label: Tensor, transition: Tensor | None, *, num_classes: int, momentum: float
    ) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        self.bank = LabelDistributionBank(
            label, num_classes=num_classes, momentum=momentum, dtype=dtype
        )
        self.known = transition is not None
        matrix = torch.eye(num_classes) if transition is None else transition
        self.register_buffer("transition", matrix.to(dtype, copy=True))

    def forward(self, index: Tensor, predicted: Tensor) -> Tensor:
        """Return what is remembered of faces (B, C), with what is predicted now."""
        believed: Tensor = self.bank(index, predicted)
        return believed

    def right(self, believed: Tensor, label: Tensor) -> Tensor:
        """Return the probability that each label is right (B)."""
        joint = believed * self.transition[:, label].T
        total = joint.sum(1).clamp(min=torch.finfo(joint.dtype).tiny)
        return joint.gather(1, label[:, None])[:, 0] / total

    def estimate(self) -> None:
        """Take how labels go wrong from what is remembered, unless it is known."""
        if self.known:
            return
        self.known = True
        own = self.transition
        if torch.equal(own, torch.eye(len(own)).to(own)):  # a resumed run has its estimate
            remembered, label = self.bank.distribution.cpu(), self.bank.label_given.cpu()
            own.copy_(transition_from_confident_joint(remembered, label.long()))
