"""Near duplicates: the same picture twice, also mirrored, brightened or slightly cropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import check_range

# Pictures are compared in this size, and their crops are taken from the larger one.
_SIDE, _CROPPED_SIDE = 16, 48
_BACKGROUND = 5  # side of the window whose mean is taken away: what light and shade add
_MARGINS = (2, 4)  # of 48 pixels: 4 and 8 % less width and height
_LIKELY = 0.62  # what whole pictures must share before their crops are looked at
_BYTES = 64 * 2**20


class Images(Protocol):
    """Images by row: a data set of robustfer, or any other of such samples."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, row: int, /) -> Any:
        """Return a sample with ``image``, or the image itself, uint8 (3, H, W)."""


class Duplicates(NamedTuple):
    """Pairs of near duplicates, the most similar first.

    Attributes:
        first: rows of the images, ``(M)`` int64.
        second: rows of the others: of ``against``, or of the same images (then ``first < second``).
        similarity: of each pair, up to 1, ``(M)``.
    """

    first: Tensor
    second: Tensor
    similarity: Tensor


def find_duplicates(
    images: Images, *, against: Images | None = None, threshold: float = 0.93
) -> Duplicates:
    r"""Find pictures that are the same but for mirroring, brightness, contrast and a slight crop.

    .. math:: s_{ij} = \max_v \frac{d(x_i) \cdot d(v(x_j))}{\|d(x_i)\| \|d(v(x_j))\|}

    over mirrored and cropped versions :math:`v`, in both directions. :math:`d` makes a picture grey
    and small and takes away the mean of its surroundings. Two pictures of one person are not
    duplicates. Crops are tried only for pairs that are alike as a whole. All pairs are compared, so
    the time grows with the square of the number of images.

    Args:
        images: the data set, or a sequence of images.
        against: another one, such as the test images; default: the images themselves.
        threshold: least similarity of a pair, in (0, 1]. A lower one finds stronger crops, and
            more pictures that are only alike.

    Shape:
        each image uint8 ``(3, H, W)`` or ``(1, H, W)``.

    Raises:
        ValueError: an image is not one, or an option does not fit.

    >>> generator = torch.Generator().manual_seed(0)
    >>> images = torch.randint(256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    >>> images[3] = images[1].flip(-1)
    >>> find_duplicates(images).second
    tensor([3])
    """
    check_range("threshold", threshold, 0.0, 1.0, open_low=True)
    ones = _small(images)
    others = ones if against is None else _small(against)
    found = [
        _similar(ones, others, turned, threshold, inside=against is None)
        for turned in (False, True)
    ]
    pairs, similarity = (torch.cat(parts) for parts in zip(*found, strict=True))
    # Of a pair that is alike both ways, the better one.
    order = similarity.argsort(descending=True, stable=True)
    rows, place = torch.unique(pairs[order], dim=0, return_inverse=True)
    best = torch.full((len(rows),), len(order), device="cpu")
    best.scatter_reduce_(0, place, torch.arange(len(order), device="cpu"), "amin")
    chosen = order[best.sort().values]
    return Duplicates(pairs[chosen, 0], pairs[chosen, 1], similarity[chosen].clamp(max=1))


def image_of(sample: Any) -> Tensor:
    """Return the image of a sample, or an image itself, as uint8 (3, H, W)."""
    image = sample["image"] if isinstance(sample, dict) else sample
    shape = tuple(image.shape) if isinstance(image, Tensor) else ()
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or len(shape) != 3:
        found = type(image).__name__
        if isinstance(image, Tensor):
            found = f"{image.dtype} of shape {shape}"
        raise ValueError(
            f"images must hold uint8 tensors of shape (3, H, W), got {found}; pass the data set "
            "without a transform"
        )
    if shape[0] not in (1, 3):
        raise ValueError(f"images must have 3 channels, or 1, got shape {shape}")
    return image.cpu().expand(3, -1, -1)


def _small(images: Images) -> Tensor:
    """All images, grey and of one size (N, 1, 48, 48)."""
    rows = []
    for row in range(len(images)):
        grey = image_of(images[row]).float().mean(dim=0)[None, None]
        rows.append(_resized(grey, _CROPPED_SIDE))
    empty = torch.zeros(0, 1, _CROPPED_SIDE, _CROPPED_SIDE, device="cpu")
    return torch.cat([empty, *rows])


def _similar(
    images: Tensor, others: Tensor, turned: bool, threshold: float, *, inside: bool
) -> tuple[Tensor, Tensor]:
    """Pairs (M, 2) that are alike, others mirrored or not, and how much."""
    others = others.flip(-1) if turned else others
    one, other = _description(images), _description(others)
    pairs = _likely(one, other, min(threshold, _LIKELY), inside=inside)
    first, second = pairs.T
    best = _products(one, first, other, second)
    for version, whole, cropped, target in (
        (others, one, second, first),
        (images, other, first, second),
    ):
        for crop in _crops(version):
            described = _description(crop)
            best = torch.maximum(best, _products(whole, target, described, cropped))
    alike = best >= threshold
    return pairs[alike], best[alike]


def _likely(one: Tensor, other: Tensor, threshold: float, *, inside: bool) -> Tensor:
    size = max(1, _BYTES // (4 * max(1, len(other))))
    found = [torch.zeros(0, 2, dtype=torch.int64, device="cpu")]
    for start in range(0, len(one), size):
        rows = (one[start : start + size] @ other.T >= threshold).nonzero()
        rows[:, 0] += start
        found.append(rows[rows[:, 0] < rows[:, 1]] if inside else rows)
    return torch.cat(found)


def _products(one: Tensor, first: Tensor, other: Tensor, second: Tensor) -> Tensor:
    """The product of each pair of rows, never all of them in memory."""
    size = _BYTES // (8 * one.shape[1])
    parts = zip(torch.split(first, size), torch.split(second, size), strict=True)
    return torch.cat([one.new_zeros(0), *((one[i] * other[j]).sum(dim=1) for i, j in parts)])


def _crops(images: Tensor) -> Iterator[Tensor]:
    for margin in _MARGINS:
        end = _CROPPED_SIDE - margin
        for top in (0, margin // 2, margin):
            for left in (0, margin // 2, margin):
                yield images[..., top : top + end, left : left + end]


def _description(images: Tensor) -> Tensor:
    small = _resized(images, _SIDE)
    padded = F.pad(small, (_BACKGROUND // 2,) * 4, mode="reflect")
    small = (small - F.avg_pool2d(padded, _BACKGROUND, stride=1)).flatten(1)
    return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1, eps=1e-3)


def _resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(
        images, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
