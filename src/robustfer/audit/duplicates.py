"""Find near duplicates: the same image, also mirrored, brightened or slightly cropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from robustfer._checks import check_range

_SIDE = 48  # images are compared at this size,
_COARSE = 16  # and described at this size
_BACKGROUND = 5  # side of the window whose mean is subtracted, to remove light and shade
_MOST = 0.1  # largest crop at a side, as a share of the width or height
# Crops at two opposite sides that are tried first. Each crop is similar to one of them.
_CUTS = ((0.03, 0.03), (0.07, 0.07), (0.08, 0.02), (0.02, 0.08))
_COMPONENTS = 64  # principal components for comparing all pairs
_LIKELY = 0.77  # similarity at one of these crops from which the exact crop is searched
_PROMISING = 0.12  # allowed distance to the threshold while the crop is inexact
_STEPS = (0.03, 0.015, 0.008)  # steps of the search for the crop
_SPREAD = 0.1  # smallest range of ranks that is exact in both images
_BYTES = 64 * 2**20
_CHUNK = _BYTES // (32 * _SIDE**2)  # images whose ranks are in memory at once


class Images(Protocol):
    """Images by row: a data set of robustfer, or a similar one."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, row: int, /) -> Any:
        """Return a sample with ``image``, or the image itself, uint8 (3, H, W)."""


class Duplicates(NamedTuple):
    """Pairs of near duplicates, most similar first.

    Attributes:
        first: rows of the images, ``(M)`` int64.
        second: rows of ``against``, or of the same images (then ``first < second``).
        similarity: similarity of each pair, up to 1, ``(M)``.
    """

    first: Tensor
    second: Tensor
    similarity: Tensor


def find_duplicates(
    images: Images, *, against: Images | None = None, threshold: float = 0.93
) -> Duplicates:
    r"""Find images that differ only by mirroring, brightness, contrast and a slight crop.

    .. math:: s_{ij} = \max_v \frac{d(x_i) \cdot d(v(x_j))}{\|d(x_i)\| \|d(v(x_j))\|}

    over mirrored versions and crops :math:`v`, in both directions. A crop can remove up to 10 % of
    the width or height at each side. :math:`d` makes an image grey and small, replaces values by
    their ranks, and subtracts the mean of their surroundings. It does not depend on brightness,
    even if a brightened image is partly white. Two images of one person are not duplicates.

    Rotated images and larger crops are not found. All pairs are compared, so the time grows with
    the square of the number of images. The images are read once. It takes about 7 kB of memory per
    image, 3 GB for 400,000.

    Args:
        images: the data set, or a sequence of images.
        against: another data set, such as the test images. Default: the images themselves.
        threshold: smallest similarity of a pair, in (0, 1]. A lower one finds more changed copies,
            and more images that are only similar.

    Shape:
        each image uint8 ``(3, H, W)`` or ``(1, H, W)``.

    Raises:
        ValueError: an image has another form, or an option does not fit.

    >>> generator = torch.Generator().manual_seed(0)
    >>> images = torch.randint(256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    >>> images[3] = images[1].flip(-1)
    >>> find_duplicates(images).second
    tensor([3])
    """
    check_range("threshold", threshold, 0.0, 1.0, open_low=True)
    ones = _read(images)
    others = ones if against is None else _read(against)
    found = []
    for turned in (False, True):
        # Either image can be the crop. Within one data set both directions are already compared.
        found.append(_copies(others, ones, turned, threshold))
        if against is not None:
            pairs, similarity = _copies(ones, others, turned, threshold)
            found.append((pairs.flip(1), similarity))
    pairs, similarity = (torch.cat(parts) for parts in zip(*found, strict=True))
    if against is None:
        differ = pairs[:, 0] != pairs[:, 1]
        pairs, similarity = pairs[differ].sort(dim=1).values, similarity[differ]
    pairs, similarity, _ = _best(pairs, similarity)
    return Duplicates(pairs[:, 0], pairs[:, 1], similarity.clamp(max=1))


def image_of(sample: Any) -> Tensor:
    """Return the image of a sample, or an image itself, as uint8 (3, H, W)."""
    image = sample["image"] if isinstance(sample, dict) else sample
    shape = tuple(image.shape) if isinstance(image, Tensor) else ()
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or len(shape) != 3:
        found = type(image).__name__
        if isinstance(image, Tensor):
            found = f"{image.dtype} of shape {shape}"
        raise ValueError(
            f"images must be uint8 tensors of shape (3, H, W), got {found}; pass the data set "
            "without a transform"
        )
    if shape[0] not in (1, 3):
        raise ValueError(f"images must have 3 channels or 1, got shape {shape}")
    return image.cpu().expand(3, -1, -1)


class _Pictures(NamedTuple):
    """Grey values, uint8 (N, 1, 48, 48), and the range in which their ranks are exact."""

    values: Tensor
    low: Tensor
    high: Tensor

    def rows(self, index: Tensor) -> _Pictures:
        return _Pictures(self.values[index], self.low[index], self.high[index])


def _read(images: Images) -> _Pictures:
    values = torch.empty(len(images), 1, _SIDE, _SIDE, dtype=torch.uint8, device="cpu")
    for row in range(len(images)):
        grey = image_of(images[row]).float().mean(dim=0)[None, None]
        values[row] = _resized(grey, _SIDE)[0].round().clamp(0, 255)
    low, high = (torch.empty(len(values), device="cpu") for _ in range(2))
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        _, low[part], high[part] = _ranked(values[part])
    return _Pictures(values, low, high)


def _ranked(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace grey values by the share of the image that is darker.

    Many equal darkest or brightest values, such as white parts, limit the range of exact ranks.
    """
    levels, size, shape = 256, _SIDE**2, values.shape
    values = values.long().flatten(1)
    place = values + levels * torch.arange(len(values), device="cpu")[:, None]
    counts = place.flatten().bincount(minlength=levels * len(values)).view(-1, levels)
    below = counts.cumsum(dim=1)
    above = below - counts
    ranks = ((below + above).float() / (2 * size)).gather(1, values).view(shape)
    if not len(values):
        return ranks, ranks.new_zeros(0), ranks.new_zeros(0)
    low = below.gather(1, values).amin(dim=1).float() / size
    high = above.gather(1, values).amax(dim=1).float() / size
    return ranks, low, high


def _copies(
    wholes: _Pictures, crops: _Pictures, turned: bool, threshold: float
) -> tuple[Tensor, Tensor]:
    """Return pairs (M, 2) of a crop and a whole image, mirrored or not, and their similarity."""
    if turned:
        wholes = wholes._replace(values=wholes.values.flip(-1))
    pairs, cut = _likely(wholes, crops, min(threshold, _LIKELY))
    found = [torch.zeros(0, 2, dtype=torch.int64, device="cpu")], [wholes.low.new_zeros(0)]
    for chosen, sides in zip(torch.split(pairs, _CHUNK), torch.split(cut, _CHUNK), strict=True):
        kept, similarity = _aligned(
            wholes.rows(chosen[:, 1]), crops.rows(chosen[:, 0]), sides, threshold
        )
        found[0].append(chosen[kept])
        found[1].append(similarity)
    return torch.cat(found[0]), torch.cat(found[1])


def _likely(wholes: _Pictures, crops: _Pictures, threshold: float) -> tuple[Tensor, Tensor]:
    """Return roughly similar pairs (M, 2) of a crop and a whole, and their crop (M, 4)."""
    whole = torch.empty(len(wholes.values), _COARSE**2, device="cpu")
    for start in range(0, len(whole), _CHUNK):
        ranks, _, _ = _ranked(wholes.values[start : start + _CHUNK])
        whole[start : start + _CHUNK] = _described(_crop(_halved(ranks)))
    # Principal components are faster to compare, and less sensitive to an inexact crop.
    basis = torch.linalg.eigh(whole.T @ whole).eigenvectors[:, -_COMPONENTS:]
    whole = F.normalize(whole @ basis, dim=1, eps=1e-3)
    found = [torch.zeros(0, 2, dtype=torch.int64, device="cpu")]
    similarity, cuts = [whole.new_zeros(0)], [found[0][:, 0]]
    first_cuts = torch.cat(list(_first_cuts()))
    size = max(1, _BYTES // (32 * max(1, len(whole))))  # small enough for a cache
    for start in range(0, len(crops.values), size):
        part = _halved(_ranked(crops.values[start : start + size])[0])
        for number, sides in enumerate(first_cuts):
            described = _described(_crop(part, sides.expand(len(part), -1))) @ basis
            values = F.normalize(described, dim=1, eps=1e-3) @ whole.T
            rows = (values >= threshold).nonzero()
            if not len(rows):
                continue
            similarity.append(values[rows[:, 0], rows[:, 1]])
            rows[:, 0] += start
            found.append(rows)
            cuts.append(torch.full_like(rows[:, 0], number))
    cut = torch.cat(cuts)
    by_cut = cut.argsort(stable=True)  # of equally similar crops the first is taken
    pairs, _, order = _best(torch.cat(found)[by_cut], torch.cat(similarity)[by_cut])
    return pairs, first_cuts[cut[by_cut[order]]]


def _first_cuts() -> Iterator[Tensor]:
    yield torch.zeros(1, 4, device="cpu")
    for across in _CUTS:
        for down in _CUTS:
            yield torch.tensor([[*across, *down]], device="cpu")


def _aligned(
    wholes: _Pictures, crops: _Pictures, cut: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Search the crop of each pair. Return the rows of similar pairs, and their similarity."""
    low = torch.maximum(wholes.low, crops.low)
    high = torch.minimum(wholes.high, crops.high)
    rows = (high - low >= _SPREAD).nonzero()[:, 0]
    whole_ranks, crop_ranks = _ranked(wholes.values)[0], _ranked(crops.values)[0]

    def both(picture: Tensor) -> Tensor:
        edges = (edge[rows][:, None, None, None] for edge in (low, high))
        return _halved(picture.clamp(*edges))

    def alike(sides: Tensor) -> Tensor:
        return (whole * _described(_crop(crop, sides))).sum(dim=1)

    for step in _STEPS:
        whole, crop = _described(_crop(both(whole_ranks[rows]))), both(crop_ranks[rows])
        sides = cut[rows]
        best = alike(sides)
        for side in range(4):
            for way in (-step, step):
                moved = sides.clone()
                moved[:, side] = (moved[:, side] + way).clamp(0, _MOST)
                value = alike(moved)
                better = value > best
                best = value.where(better, best)
                sides = moved.where(better[:, None], sides)
        cut[rows] = sides
        least = threshold if step == _STEPS[-1] else threshold - _PROMISING
        rows, best = rows[best >= least], best[best >= least]
    return rows, best


def _best(pairs: Tensor, similarity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best of each pair, most similar first, and their positions in the input."""
    order = similarity.argsort(descending=True, stable=True)
    rows, place = torch.unique(pairs[order], dim=0, return_inverse=True)
    first = torch.full((len(rows),), len(order), device="cpu")
    first.scatter_reduce_(0, place, torch.arange(len(order), device="cpu"), "amin")
    chosen = order[first.sort().values]
    return pairs[chosen], similarity[chosen], chosen


def _crop(images: Tensor, sides: Tensor | None = None) -> Tensor:
    """Crop shares of left, right, top and bottom (N, 4), and resize to (N, 1, 16, 16)."""
    if not len(images):
        return images.new_zeros(0, 1, _COARSE, _COARSE)
    if sides is None:
        sides = images.new_zeros(len(images), 4)
    left, right, top, bottom = sides.unbind(dim=1)
    zero = torch.zeros_like(left)
    across = torch.stack((1 - left - right, zero, left - right), dim=1)
    down = torch.stack((zero, 1 - top - bottom, top - bottom), dim=1)
    theta = torch.stack((across, down), dim=1)
    grid = F.affine_grid(theta, [len(images), 1, _COARSE, _COARSE], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _described(small: Tensor) -> Tensor:
    padded = F.pad(small, (_BACKGROUND // 2,) * 4, mode="reflect")
    small = (small - F.avg_pool2d(padded, _BACKGROUND, stride=1)).flatten(1)
    return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1, eps=1e-3)


def _halved(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 2)


def _resized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(
        images, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )
