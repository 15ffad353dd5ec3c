"""An image and its mirror image, the two views of EAC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustfer._checks import check_choice
from robustfer.augmentations._points import check_points
from robustfer.augmentations._preparation import Preparation
from robustfer.augmentations.pipeline import KorniaPipeline


class Views(NamedTuple):
    """The two views of a batch, each ``(B, C, H, W)``.

    Attributes:
        view: the images, not mirrored; a loss classifies these.
        view_flipped: the images mirrored left to right.
    """

    view: Tensor
    view_flipped: Tensor


class LandmarkViews(NamedTuple):
    """The two views of a batch with the landmarks of each.

    Attributes:
        view: the images ``(B, C, H, W)``, not mirrored.
        view_flipped: the images mirrored left to right.
        landmarks: points (x, y) in pixels of ``view`` ``(B, K, 2)``.
        landmarks_flipped: points in pixels of ``view_flipped``, with left and right swapped.
        visible: which landmarks ``view`` shows ``(B, K)``.
        visible_flipped: which landmarks ``view_flipped`` shows ``(B, K)``.
    """

    view: Tensor
    view_flipped: Tensor
    landmarks: Tensor
    landmarks_flipped: Tensor
    visible: Tensor
    visible_flipped: Tensor


class MirroredPair(Preparation):
    """Turn a batch into EAC's two views: the images and their mirror images, randomly erased.

    The pipeline runs once for both. Then each view is prepared like a :class:`SingleView`. In
    ``eval()`` the second view is the exact mirror image of the first.

    Args:
        erase: ``"independent"``: each view has its own box, and only the unmirrored view gets
            noise, as in the authors' runs with noisy labels. ``"shared"``: the second view is the
            exact mirror image of the first with box and noise, as in their runs with clean labels.
        erase_probability: probability that a view is erased.
        erase_scale: least and largest area of the erased box, as a share of the image.
        erase_ratio: least and largest ratio of height to width of the erased box.
        noise_std: standard deviation of the noise, for pixels in [0, 1].
        noise_probability: probability that a sample gets noise.
        mean: mean of each channel.
        std: standard deviation of each channel.
        size: height and width to resize to.
        pipeline: random operations on the image before it is mirrored.

    Shape:
        images ``(B, C, H, W)`` uint8 0..255, or float32 or float64 0..1 -> two views
        ``(B, C, h, w)`` float32 or float64, in the images' memory format unless a pipeline
        changes it.

    Raises:
        TypeError: ``pipeline`` is not a :class:`KorniaPipeline`.
        ValueError: an option or the images do not fit, see :class:`SingleView`.

    Reference:
        Zhang et al., Learn From All: Erasing Attention Consistency for Noisy Label Facial
        Expression Recognition, ECCV 2022.

    >>> pair = MirroredPair(erase="shared")
    >>> images = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    >>> view, view_flipped = pair(images, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(view_flipped, view.flip(-1))
    True
    """

    __call__: Callable[..., Views]

    def __init__(
        self,
        *,
        erase: Literal["independent", "shared"] = "independent",
        erase_probability: float = 0.5,
        erase_scale: tuple[float, float] = (0.02, 0.25),
        erase_ratio: tuple[float, float] = (0.3, 3.3),
        noise_std: float = 0.0,
        noise_probability: float = 0.5,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        size: int | tuple[int, int] | None = None,
        pipeline: KorniaPipeline | None = None,
    ) -> None:
        super().__init__(
            erase_probability=erase_probability,
            erase_scale=erase_scale,
            erase_ratio=erase_ratio,
            noise_std=noise_std,
            noise_probability=noise_probability,
            mean=mean,
            std=std,
            size=size,
            pipeline=pipeline,
        )
        self.erase = check_choice("erase", erase, ("independent", "shared"))

    @torch.no_grad()
    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Views:
        return self._views(self._pixels(images, generator), generator)[0]

    @torch.no_grad()
    def with_landmarks(
        self,
        images: Tensor,
        landmarks: Tensor,
        *,
        swap: Sequence[int],
        visible: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> LandmarkViews:
        """Prepare both views with their landmarks.

        The arguments are those of :meth:`SingleView.with_landmarks`. In the second view left and
        right points are swapped. Each view's erased box hides the points under it.

        >>> images, eyes = torch.rand(1, 3, 48, 48), torch.tensor([[[15.0, 20.0], [33.0, 19.0]]])
        >>> both = MirroredPair().eval().with_landmarks(images, eyes, swap=(1, 0))
        >>> both.landmarks_flipped
        tensor([[[14., 19.],
                 [32., 20.]]])
        """
        points = check_points(images, landmarks, visible, swap)
        pixels, points = self._pixels_and_points(images, points, generator)
        views, boxes = self._views(pixels, generator)
        width = views.view.shape[-1]
        points = points.resized(old=pixels.shape, new=views.view.shape)
        shown = points.hidden_under(boxes[: len(images)])
        # With one box for both views, the box is mirrored too.
        if len(boxes) == len(images):
            flipped = shown.mirrored(width=width)
        else:
            flipped = points.mirrored(width=width).hidden_under(boxes[len(images) :])
        return LandmarkViews(
            *views, shown.landmarks, flipped.landmarks, shown.visible, flipped.visible
        )

    def _views(self, pixels: Tensor, generator: torch.Generator | None) -> tuple[Views, Tensor]:
        """Return both views, and the erased boxes, those of the first view first."""
        if self.erase == "shared" or not self.training:
            view, boxes = self._finished(pixels, generator)
            return Views(view, view.flip(-1)), boxes
        view = self._normalized(pixels)
        view_flipped = view.flip(-1)
        self._add_noise_(view, pixels, generator)
        boxes = self._erase_((view, view_flipped), generator)
        return Views(view, view_flipped), boxes

    def extra_repr(self) -> str:
        return f"erase={self.erase!r}, {super().extra_repr()}"
