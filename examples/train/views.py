"""Make random views of a whole batch: crop, mirror, normalise, erase.

Random numbers are drawn for the whole batch, and each process takes those of its rows. The number
of processes therefore does not change the views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.train.options import ViewOptions
from robustfer.augmentations import SingleView
from robustfer.augmentations.erasing import erase_boxes, sample_boxes
from robustfer.landmarks import LandmarkLayout, mirror_landmarks


@dataclass
class Batch:
    """This process's rows of a training batch.

    Attributes:
        images: uint8 (B, 3, H, W).
        index: rows in the data set (B).
        target: labels (B), or (B, C). A method that changes labels sets it to the current ones.
        step: number of the step in the whole run, from 0.
        epoch: from 1.
        rows: the position of these rows in the whole batch.
        total: number of rows of the whole batch.
        generator: generator of the step, on the CPU, in the same state in all processes.
        logits: logits of these rows (B, C). The method's loss sets it.
    """

    images: Tensor
    index: Tensor
    target: Tensor
    step: int
    epoch: int
    rows: slice
    total: int
    generator: torch.Generator
    logits: Tensor | None = None


class Views:
    """Make views of batches whose images have one size.

    Args:
        size: height and width of the images.
        options: how to crop and erase.
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    def __init__(
        self,
        size: tuple[int, int],
        options: ViewOptions,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        self.size, self.options = size, options
        self.padding = size[0] // 12 if options.crop is None else options.crop
        self.normalize = SingleView(mean=mean, std=std).eval()

    def plain(self, images: Tensor) -> Tensor:
        """Return normalised images without random changes, for evaluation."""
        return self.normalize(images).to(torch.get_default_dtype())

    def single(self, batch: Batch) -> Tensor:
        """Return one view: cropped, randomly mirrored, erased."""
        view = self.plain(self._placed(batch, mirror=True)[0])
        return erase_boxes(view, self._boxes(batch, 1)[0])

    def pair(
        self, batch: Batch, *, mirror: bool, erase: Literal["independent", "shared", "first"]
    ) -> tuple[Tensor, Tensor]:
        """Return a view and its mirror image.

        ``erase`` chooses a box in each view, the same box in both, or one in the first view only.
        """
        view = self.plain(self._placed(batch, mirror=mirror)[0])
        if erase == "first":
            return erase_boxes(view, self._boxes(batch, 1)[0]), view.flip(-1)
        if erase == "shared":
            view = erase_boxes(view, self._boxes(batch, 1)[0])
            return view, view.flip(-1)
        own, other = self._boxes(batch, 2)
        return erase_boxes(view, own), erase_boxes(view.flip(-1), other)

    def with_landmarks(
        self, batch: Batch, landmarks: Tensor, layout: LandmarkLayout
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`single`, with the points (B, K, 2) and which of them (B, K) can be seen."""
        view, boxes, moved, visible = self._with_landmarks(batch, landmarks, layout)
        return erase_boxes(view, boxes), moved, visible

    def pair_with_landmarks(
        self, batch: Batch, landmarks: Tensor, layout: LandmarkLayout
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As :meth:`pair` erases the first, with the points of the first: which can be seen."""
        view, boxes, moved, visible = self._with_landmarks(batch, landmarks, layout)
        return erase_boxes(view, boxes), view.flip(-1), moved, visible

    def _with_landmarks(
        self, batch: Batch, landmarks: Tensor, layout: LandmarkLayout
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A view not yet erased, its box, the points, and which of them the erased view shows."""
        images, left, top, mirrored = self._placed(batch, mirror=True)
        moved = landmarks + self.padding - torch.stack((left, top), -1)[:, None]
        in_the_mirror = mirror_landmarks(moved, layout, width=self.size[1])
        moved = torch.where(mirrored[:, None, None], in_the_mirror, moved)
        # In eval mode it only normalises, and finds which points are inside the image.
        view, moved, visible = self.normalize.with_landmarks(images, moved)
        boxes = self._boxes(batch, 1)[0]
        edges = boxes.to(moved.device, non_blocking=True)[:, None] - 0.5
        under = ((moved > edges[..., :2]) & (moved < edges[..., 2:])).all(-1)
        return view.to(torch.get_default_dtype()), boxes, moved, visible & ~under

    def _boxes(self, batch: Batch, views: int) -> list[Tensor]:
        """Return boxes to erase in each view of this process's rows (B, 4), on the CPU."""
        height, width = self.size
        boxes = sample_boxes(
            views * batch.total,
            height,
            width,
            probability=self.options.erase_probability,
            scale=self.options.erase_scale,
            ratio=self.options.erase_ratio,
            generator=batch.generator,
        )
        return [own[batch.rows] for own in boxes.chunk(views)]

    def _placed(self, batch: Batch, *, mirror: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return cropped and mirrored images, with left, top and mirrored (B)."""
        images, (height, width) = batch.images, self.size
        places = 2 * self.padding + 1
        corner = torch.randint(places, (batch.total, 2), generator=batch.generator)
        chance = torch.rand(batch.total, generator=batch.generator)
        where = torch.cat((corner, (chance < 0.5 * mirror)[:, None]), 1)[batch.rows]
        left, top, mirrored = where.to(images.device, non_blocking=True).unbind(1)
        mirrored = mirrored.bool()
        columns = left[:, None] + torch.arange(width, device=left.device)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        lines = top[:, None] + torch.arange(height, device=left.device)
        padded = F.pad(images, (self.padding,) * 4).permute(0, 2, 3, 1)
        first = torch.arange(len(images), device=left.device)[:, None] * padded.shape[1]
        places_of_lines = (first + lines)[:, :, None] * padded.shape[2]
        chosen = (places_of_lines + columns[:, None]).flatten()
        pixels = padded.reshape(-1, images.shape[1]).index_select(0, chosen)
        made = pixels.view(len(images), height, width, -1).permute(0, 3, 1, 2)
        # Normalising and erasing are fastest in contiguous memory.
        return made.contiguous(), left, top, mirrored
