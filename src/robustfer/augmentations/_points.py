"""Landmarks on their way through augmentations: moved, mirrored and hidden as their images are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from robustfer._checks import check_mask, check_shapes, warn_if_normalized
from robustfer.augmentations._pixels import to_device
from robustfer.landmarks.geometry import inside, mirror_points, resize_points
from robustfer.landmarks.layouts import check_swap


class LandmarkView(NamedTuple):
    """A view of a batch with its landmarks.

    Attributes:
        view: the images ``(B, C, H, W)``.
        landmarks: points (x, y) in pixels of the view ``(B, K, 2)``, also those that left it.
        visible: which of them the view shows ``(B, K)``.
    """

    view: Tensor
    landmarks: Tensor
    visible: Tensor


@dataclass(frozen=True)
class Points:
    """Landmarks of a batch, on its device; each step returns new ones."""

    landmarks: Tensor  # (B, K, 2) x and y in pixels, their middle a whole number
    visible: Tensor  # (B, K) which of them the images show
    swap: tuple[int, ...] | None  # which point takes a point's place in a mirror, if one is met

    def moved(self, matrices: Tensor, *, height: int, width: int) -> Points:
        """Where projective maps (B, 3, 3) put the points, in images of the size given."""
        matrices = to_device(matrices.to(self.landmarks.dtype), self.landmarks.device)
        x, y = self.landmarks[..., None, :].unbind(-1)
        # Summed by hand: a product of matrices in TF32 could be a tenth of a pixel off.
        x, y, z = (
            (matrices[:, None, :, 0] * x + matrices[:, None, :, 1] * y) + matrices[:, None, :, 2]
        ).unbind(-1)
        landmarks = torch.stack((x / z, y / z), -1)
        return replace(
            self, landmarks=landmarks, visible=self.visible & _inside(landmarks, height, width)
        )

    def resized(self, *, old: torch.Size, new: torch.Size) -> Points:
        """The points of images resized as ``interpolate(align_corners=False)`` does."""
        if old[-2:] == new[-2:]:
            return self
        landmarks = resize_points(self.landmarks, (old[-2], old[-1]), (new[-2], new[-1]))
        return replace(self, landmarks=landmarks)

    def mirrored(self, *, width: int) -> Points:
        """The points of the images mirrored left to right."""
        turned = replace(self, landmarks=mirror_points(self.landmarks, width))
        return turned.renamed(torch.ones(len(self.landmarks), dtype=torch.bool, device="cpu"))

    def renamed(self, rows: Tensor) -> Points:
        """Left and right points trading places in the rows (B,), on the CPU, that were mirrored."""
        swap = torch.tensor(self.swap, device="cpu")
        order = torch.where(rows[:, None], swap, torch.arange(len(swap), device="cpu"))
        order = to_device(order, self.landmarks.device)
        landmarks = self.landmarks.gather(1, order[..., None].expand(-1, -1, 2))
        return replace(self, landmarks=landmarks, visible=self.visible.gather(1, order))

    def hidden_under(self, boxes: Tensor) -> Points:
        """The points under the erased boxes (B, 4) being no longer visible."""
        edges = to_device(boxes, self.landmarks.device)[:, None] - 0.5
        low, high = edges[..., :2], edges[..., 2:]
        under = ((self.landmarks > low) & (self.landmarks < high)).all(-1)
        return replace(self, visible=self.visible & ~under)

    def on(self, view: Tensor) -> LandmarkView:
        """The points together with the images that they are of."""
        return LandmarkView(view, self.landmarks, self.visible)


def check_points(
    images: Tensor, landmarks: Tensor, visible: Tensor | None, swap: Sequence[int] | None
) -> Points:
    """Check the landmarks of images; those outside their image are not visible."""
    shaped = {"images": (images, "B C H W"), "landmarks": (landmarks, "B K 2")}
    if visible is not None:
        shaped["visible"] = (visible, "B K")
    sizes = check_shapes(**shaped)
    if landmarks.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"landmarks must be float32 or float64, got {landmarks.dtype}; half precision holds "
            "coordinates beyond 256 no finer than a quarter of a pixel"
        )
    if visible is not None:
        check_mask(visible=visible)
    if swap is not None:
        swap = check_swap(swap, sizes["K"])
    warn_if_normalized(landmarks, side=min(sizes["H"], sizes["W"]))
    landmarks = landmarks.detach().clone()
    inside = _inside(landmarks, sizes["H"], sizes["W"])
    return Points(landmarks, inside if visible is None else visible & inside, swap)


def _inside(landmarks: Tensor, height: int, width: int) -> Tensor:
    """Which points lie in the frame."""
    x, y = landmarks.unbind(-1)
    return inside(x, width) & inside(y, height)
