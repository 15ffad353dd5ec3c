"""Landmark coordinates as the landmark space of LA-Net, without a landmark branch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustfer._checks import check_floating_dtype, check_shapes
from robustfer._dtypes import NeverHalf
from robustfer.functional._precision import full_precision
from robustfer.landmarks.geometry import mirror_points
from robustfer.landmarks.layouts import check_swap


class LandmarkCoordinates(NeverHalf):
    r"""Compute how the shape of a face differs from the mean face, without parameters.

    .. math::
        s_n = \frac{p_n - \bar p_n}{\operatorname{rms}(p_n - \bar p_n)}, \qquad
        e_n = \frac{s_n - m}{\sigma}

    with :math:`p_n` the points of a face and :math:`\bar p_n` their centre. Position and size do
    not count. :math:`m` is the mean of :math:`s` over the faces given at construction and their
    mirror images. :math:`\sigma` is the root mean square of :math:`s - m`, one number.

    A face with an unknown point gives zeros, which are nobody's neighbour. :meth:`known` returns
    which faces have all points. This is beyond the paper, whose landmark space is a trained branch,
    :class:`LandmarkClassifier`.

    Args:
        landmarks: points (x, y) in pixels of the training faces, NaN where unknown. Faces with
            unknown points are left out.
        swap: for each point, the point that takes its place in a mirror image, such as
            ``robustfer.landmarks.landmark_layout(68).swap``.

    Shape:
        landmarks ``(B, K, 2)`` -> ``(B, 2K)`` of their dtype; float32 for half inputs.

    Raises:
        ValueError: no face has all points, all faces have the same shape, ``swap`` does not pair
            the points, or a shape or dtype does not fit.

    >>> eyes_and_nose = torch.tensor([[[0, 0], [4, 0], [2, 3]], [[0, 0], [4, 0], [2, 5]]])
    >>> faces = eyes_and_nose.float()
    >>> space = LandmarkCoordinates(faces, swap=(1, 0, 2))
    >>> space(faces[:1]).round(decimals=2)
    tensor([[-1.2900,  0.6700,  1.2900,  0.6700,  0.0000, -1.3400]])
    >>> torch.allclose(space(3 * faces + 7), space(faces), atol=1e-5)
    True
    >>> faces[0, 1] = torch.nan
    >>> space(faces)[0], space.known(faces)
    (tensor([0., 0., 0., 0., 0., 0.]), tensor([False,  True]))
    """

    __call__: Callable[..., Tensor]
    mean: Tensor
    spread: Tensor

    def __init__(self, landmarks: Tensor, *, swap: Sequence[int]) -> None:
        super().__init__()
        points = check_shapes(landmarks=(landmarks, "N K 2"))["K"]
        check_floating_dtype(landmarks=landmarks)
        order = list(check_swap(swap, points))
        self.dim = 2 * points
        whole = full_precision(landmarks[self.known(landmarks)])
        if not len(whole):
            raise ValueError(
                "landmarks must have all points of at least one face, got unknown points in all "
                f"{len(landmarks)} faces"
            )
        # The width does not matter: shapes ignore the position.
        mirrored = mirror_points(whole[:, order], width=1)
        shapes = _shapes(torch.cat([whole, mirrored]))
        self.register_buffer("mean", shapes.mean(0))
        self.register_buffer("spread", (shapes - shapes.mean(0)).square().mean().sqrt())
        if not self.spread > 1e-6:
            raise ValueError(
                "landmarks must differ between faces in more than position and size, got "
                f"{len(whole)} of one symmetric shape"
            )

    def known(self, landmarks: Tensor) -> Tensor:
        """Return which faces have all points, (B) bool. Do not use estimates of the others."""
        return landmarks.isfinite().flatten(1).all(dim=1)

    def forward(self, landmarks: Tensor) -> Tensor:
        check_shapes(landmarks=(landmarks, f"B {self.dim // 2} 2"))
        check_floating_dtype(landmarks=landmarks)
        known, landmarks = self.known(landmarks), full_precision(landmarks)
        # Replace NaN before it is used: masked out afterwards, it would still reach the gradient.
        shapes = _shapes(landmarks.where(known[:, None, None], 0.0))
        mean, spread = self.mean.to(shapes.dtype), self.spread.to(shapes.dtype)
        return ((shapes - mean) / spread).flatten(1).where(known[:, None], 0.0)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


def _shapes(points: Tensor) -> Tensor:
    """Return points (B, K, 2) relative to their centre, divided by their size."""
    centred = points - points.mean(dim=1, keepdim=True)
    # Clamped before the root, whose gradient at 0 is infinite.
    return centred / centred.square().mean(dim=(1, 2), keepdim=True).clamp_min(1e-12).sqrt()
