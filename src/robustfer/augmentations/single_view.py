"""Batches of images as a network trains on them: normalised, and erased at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustfer.augmentations._points import LandmarkView, check_points
from robustfer.augmentations._preparation import Preparation


class SingleView(Preparation):
    r"""Turn a batch of images into the normalised, randomly erased view that a network trains on.

    In this order: ``pipeline``; Gaussian noise on some samples, clipped to the range of pixels;
    resizing; :math:`(x - \text{mean}) / \text{std}`; erasing of a box in some samples, filled with
    0, which is the mean colour. In ``eval()`` only resizing, normalisation and what is not
    random in the pipeline remain.

    It holds no tensor and works on the batch's device. Boxes and choices are drawn on the CPU, the
    same for every device; the noise is drawn on the batch's device. No gradient flows back to the
    images.

    Args:
        erase_probability: chance of each sample to be erased.
        erase_scale: least and largest area of the erased box, as a share of the image.
        erase_ratio: least and largest height of the erased box over its width.
        noise_std: standard deviation of the noise, in units of a pixel in [0, 1]; 0 for none. The
            noise of EAC's public program has a variance of 30 in 0..255: ``30**0.5 / 255``.
        noise_probability: chance of each sample to get noise.
        mean: mean of each channel in [0, 1]; ImageNet's by default.
        std: standard deviation of each channel; ImageNet's by default.
        size: height and width to resize to (bilinear, antialiased), or one number for a square.
        pipeline: further random operations, which see pixels in [0, 1] before all else.

    Shape:
        images ``(B, C, H, W)`` uint8 0..255, or float32 or float64 0..1 -> ``(B, C, h, w)``
        float32 or float64, in the images' memory format unless a pipeline changes it.

    Raises:
        TypeError: ``pipeline`` is not a :class:`KorniaPipeline`.
        ValueError: an option does not fit, or shape, dtype or channels of the images; on the CPU
            also floats far outside [0, 1], such as pixels normalised before or up to 255.

    Reference:
        Zhong et al., Random Erasing Data Augmentation, AAAI 2020.

    >>> prepare = SingleView(size=64)
    >>> images = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    >>> prepare(images, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([4, 3, 64, 64])
    """

    __call__: Callable[..., Tensor]

    @torch.no_grad()
    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        return self._finished(self._pixels(images, generator), generator)[0]

    @torch.no_grad()
    def with_landmarks(
        self,
        images: Tensor,
        landmarks: Tensor,
        *,
        visible: Tensor | None = None,
        swap: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
    ) -> LandmarkView:
        """Prepare images with their landmarks, which move as the pipeline and ``size`` move pixels.

        The view is that of a call without landmarks and the same generator. Points that left it or
        lie under its erased box are not visible.

        Args:
            images: as for a call.
            landmarks: points (x, y) in pixels of the images; NaN where not known.
            visible: False for points that are hidden already.
            swap: for each point the one that takes its place in a mirror image, needed where the
                pipeline flips: ``robustfer.landmarks.landmark_layout(68).swap``.
            generator: as for a call.

        Shape:
            images ``(B, C, H, W)``, landmarks ``(B, K, 2)`` float32 or float64, visible ``(B, K)``
            -> view ``(B, C, h, w)``, landmarks ``(B, K, 2)``, visible ``(B, K)``.

        Raises:
            ValueError: the pipeline has an operation that is not known to carry landmarks, see
                :meth:`KorniaPipeline.with_landmarks`, or an argument does not fit.

        >>> images, eyes = torch.rand(1, 3, 48, 48), torch.tensor([[[15.5, 20.0], [33.0, 19.0]]])
        >>> _, landmarks, visible = SingleView(size=96).eval().with_landmarks(images, eyes)
        >>> landmarks, visible
        (tensor([[[31.5000, 40.5000],
                 [66.5000, 38.5000]]]), tensor([[True, True]]))
        """
        points = check_points(images, landmarks, visible, swap)
        pixels, points = self._pixels_and_points(images, points, generator)
        view, boxes = self._finished(pixels, generator)
        return points.resized(old=pixels.shape, new=view.shape).hidden_under(boxes).on(view)
