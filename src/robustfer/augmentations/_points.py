"""Landmarks in augmentations: moved, mirrored and hidden like their images."""

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
        landmarks: points (x, y) in pixels of the view ``(B, K, 2)``, also outside of it.
        visible: which points the view shows ``(B, K)``.
    """

    view: Tensor
    landmarks: Tensor
    visible: Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """Landmarks of a batch, on its device. Each method returns new points.

    Attributes:
        landmarks: (B, K, 2) x and y in pixels, whose centres are whole numbers.
        visible: (B, K) which points the images show.
        swap: for each point, the point that takes its place in a mirror image, if it is known.
    """

    landmarks: Tensor
    visible: Tensor
    swap: tuple[int, ...] | None

    def moved(self, matrices: Tensor, *, height: int, width: int) -> Points:
        """Return the points after projective maps (B, 3, 3), in images of the given size."""
        matrices = to_device(matrices.to(self.landmarks.dtype), self.landmarks.device)
        x, y = self.landmarks[..., None, :].unbind(-1)
        # Not a matrix product, which in TF32 could be off by a tenth of a pixel.
        x, y, z = (
            (matrices[:, None, :, 0] * x + matrices[:, None, :, 1] * y) + matrices[:, None, :, 2]
        ).unbind(-1)
        landmarks = torch.stack((x / z, y / z), -1)
        return replace(
            self, landmarks=landmarks, visible=self.visible & _in_frame(landmarks, height, width)
        )

    def resized(self, *, old: torch.Size, new: torch.Size) -> Points:
        """Return the points of images resized by ``interpolate(align_corners=False)``."""
        if old[-2:] == new[-2:]:
            return self
        landmarks = resize_points(self.landmarks, (old[-2], old[-1]), (new[-2], new[-1]))
        return replace(self, landmarks=landmarks)

    def mirrored(self, *, width: int) -> Points:
        """Return the points of the images mirrored left to right."""
        turned = replace(self, landmarks=mirror_points(self.landmarks, width))
        return turned.renamed(torch.ones(len(self.landmarks), dtype=torch.bool, device="cpu"))

    def renamed(self, rows: Tensor) -> Points:
        """Return the points with left and right swapped in the ``rows`` (B,), bool on the CPU."""
        swap = torch.tensor(self.swap, device="cpu")
        order = torch.where(rows[:, None], swap, torch.arange(len(swap), device="cpu"))
        order = to_device(order, self.landmarks.device)
        landmarks = self.landmarks.gather(1, order[..., None].expand(-1, -1, 2))
        return replace(self, landmarks=landmarks, visible=self.visible.gather(1, order))

    def hidden_under(self, boxes: Tensor) -> Points:
        """Return the points with those under the erased boxes (B, 4) not visible."""
        edges = to_device(boxes, self.landmarks.device)[:, None] - 0.5
        low, high = edges[..., :2], edges[..., 2:]
        under = ((self.landmarks > low) & (self.landmarks < high)).all(-1)
        return replace(self, visible=self.visible & ~under)

    def on(self, view: Tensor) -> LandmarkView:
        """Return the points together with their images."""
        return LandmarkView(view, self.landmarks, self.visible)


def check_points(
    images: Tensor, landmarks: Tensor, visible: Tensor | None, swap: Sequence[int] | None
) -> Points:
    """Check landmarks and return them as points. Those outside their image are not visible."""
    shaped = {"images": (images, "B C H W"), "landmarks": (landmarks, "B K 2")}
    if visible is not None:
        shaped["visible"] = (visible, "B K")
    sizes = check_shapes(**shaped)
    if landmarks.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"landmarks must be float32 or float64, got {landmarks.dtype}, which rounds "
            "coordinates; pass landmarks.float()"
        )
    if visible is not None:
        check_mask(visible=visible)
    if swap is not None:
        swap = check_swap(swap, sizes["K"])
    warn_if_normalized(landmarks, side=min(sizes["H"], sizes["W"]))
    landmarks = landmarks.detach().clone()
    shown = _in_frame(landmarks, sizes["H"], sizes["W"])
    return Points(landmarks, shown if visible is None else visible & shown, swap)


def _in_frame(landmarks: Tensor, height: int, width: int) -> Tensor:
    """Return which points lie in the frame."""
    x, y = landmarks.unbind(-1)
    return inside(x, width) & inside(y, height)
