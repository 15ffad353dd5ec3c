"""One view of each image of a batch, normalised and randomly erased."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustfer.augmentations._points import LandmarkView, check_points
from robustfer.augmentations._preparation import Preparation


class SingleView(Preparation):
    r"""Normalise a batch of images for training, and erase a random box in some of them.

    The steps are: ``pipeline``; Gaussian noise on some samples, clipped to the range of pixels;
    resizing; :math:`(x - \text{mean}) / \text{std}`; a box filled with 0, the mean colour, in some
    samples. ``eval()`` keeps only resizing, normalisation and the parts of the pipeline that are
    not random.

    It holds no tensor and works on the batch's device. Boxes and choices are drawn on the CPU, the
    same for every device. Noise is drawn on the batch's device. No gradient flows back to the
    images.

    Args:
        erase_probability: probability that a sample is erased.
        erase_scale: least and largest area of the erased box, as a share of the image.
        erase_ratio: least and largest ratio of height to width of the erased box.
        noise_std: standard deviation of the noise, for pixels in [0, 1]; 0 for no noise. EAC's
            authors use a variance of 30 for pixels in 0..255: ``30**0.5 / 255``.
        noise_probability: probability that a sample gets noise.
        mean: mean of each channel in [0, 1]; default: ImageNet's.
        std: standard deviation of each channel; default: ImageNet's.
        size: height and width to resize to (bilinear, antialiased), or one number for a square.
        pipeline: random operations that run first, on pixels in [0, 1].

    Shape:
        images ``(B, C, H, W)`` uint8 0..255, or float32 or float64 0..1 -> ``(B, C, h, w)``
        float32 or float64, in the images' memory format unless a pipeline changes it.

    Raises:
        TypeError: ``pipeline`` is not a :class:`KorniaPipeline`.
        ValueError: an option, or the shape, dtype or channels of the images do not fit; on the CPU
            also if floats are far outside [0, 1], such as normalised pixels or pixels up to 255.

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
        """Prepare images, and move their landmarks with the pixels.

        The view equals that of a call without landmarks and with the same generator. Points outside
        the view or under its erased box are not visible.

        Args:
            images: the images, as in a call.
            landmarks: points (x, y) in pixels of the images; NaN where unknown.
            visible: False for points that are hidden already.
            swap: for each point, the point that takes its place in a mirror image. A pipeline that
                flips needs it: ``robustfer.landmarks.landmark_layout(68).swap``.
            generator: source of the random numbers, as in a call.

        Shape:
            images ``(B, C, H, W)``, landmarks ``(B, K, 2)`` float32 or float64, visible ``(B, K)``
            -> view ``(B, C, h, w)``, landmarks ``(B, K, 2)``, visible ``(B, K)``.

        Raises:
            ValueError: an argument does not fit, or the pipeline has an operation that is not known
                to move landmarks, see :meth:`KorniaPipeline.with_landmarks`.

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
