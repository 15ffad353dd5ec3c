"""Run kornia's operations: checked, reproducible, and switched off in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robustfer._checks import check_range
from robustfer.augmentations._pixels import check_generator, check_images, draw_seed, to_float
from robustfer.augmentations._points import LandmarkView, Points, check_points
from robustfer.functional._precision import without_autocast

if TYPE_CHECKING:
    from kornia.augmentation import AugmentationBase2D, ImageSequential


class KorniaPipeline(nn.Module):
    """Run kornia's operations (crop, rotation, colour, ...) on a batch, on its device.

    It converts uint8 to float. Everything is drawn from one generator on the CPU, the same for
    every device. ``eval()`` switches random operations off. No gradient flows back to the images.

    Operations that are not random also run in ``eval()``: ``Normalize``, ``Denormalize``,
    ``Resize``, ``CenterCrop``, ``PadTo``, ``LongestMaxSize`` and ``SmallestMaxSize`` with ``p=1``,
    outside of containers. The ``pipeline`` of a view needs no ``Normalize``: the view normalises.

    Args:
        operations: two-dimensional kornia augmentations, or kornia's containers of them. They
            must not mix samples, which would change the labels too.

    Shape:
        images ``(B, C, H, W)`` uint8 0..255, or float32 or float64 0..1 -> ``(B, C, h, w)``
        float32 or float64. Operations on hue and saturation need three channels.

    Raises:
        TypeError: an operation is not a two-dimensional kornia augmentation.
        ValueError: there is no operation, a probability is outside [0, 1], or the images do not
            fit.

    Reference:
        Riba et al., Kornia: an Open Source Differentiable Computer Vision Library for PyTorch,
        WACV 2020.

    >>> import kornia.augmentation as K
    >>> pipeline = KorniaPipeline(K.RandomRotation(10.0, p=0.5), K.ColorJitter(0.2, 0.2, p=1.0))
    >>> images = torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8)
    >>> one = pipeline(images, generator=torch.Generator().manual_seed(0))
    >>> two = pipeline(images, generator=torch.Generator().manual_seed(0))
    >>> one.dtype, torch.equal(one, two)
    (torch.float32, True)
    >>> torch.equal(pipeline.eval()(images), images / 255)
    True
    """

    __call__: Callable[..., Tensor]

    def __init__(self, *operations: AugmentationBase2D | ImageSequential) -> None:
        super().__init__()
        # Imported here, because erasing and mirroring do not need kornia.
        import kornia.augmentation as K

        if not operations:
            raise ValueError("operations must hold at least one kornia augmentation, got none")
        refused = (K.MixAugmentationBaseV2, K.AugmentationBase3D, K.VideoSequential)
        for operation in operations:
            if not isinstance(operation, (K.AugmentationBase2D, K.ImageSequential)):
                raise TypeError(
                    "operations must be two-dimensional kornia augmentations, "
                    f"got {type(operation).__name__}"
                )
            for part in operation.modules():
                if isinstance(part, refused):
                    raise TypeError(
                        f"operations must not mix samples, got {type(part).__name__}; mix the "
                        "view with robustfer.augmentations.MixUp or CutMix"
                    )
                for name in ("p", "p_batch"):
                    check_range(f"{name} of {type(part).__name__}", getattr(part, name, 1), 0, 1)
        everything = K.AugmentationSequential(*operations, data_keys=["input"])
        never_random = (
            *(K.Normalize, K.Denormalize, K.Resize, K.CenterCrop, K.PadTo),
            *(K.LongestMaxSize, K.SmallestMaxSize),
        )
        # Tuples hide kornia's modules from nn.Module. Otherwise .to() would make them draw on the
        # GPU, .half() would round the angles, and their buffers would enter checkpoints.
        self._all = (everything.to("cpu", torch.float32),)
        self._fixed = tuple(o for o in operations if isinstance(o, never_random) and o.p == 1)

    @torch.no_grad()
    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        check_images(images)
        check_generator(generator)
        images = to_float(images)
        if not self.training:
            return _applied(self._fixed, images)
        if generator is None:
            return _applied(self._all, images)
        seed = draw_seed(generator)
        # kornia draws from torch's global state on the CPU.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return _applied(self._all, images)

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
        """Run the operations on images and their landmarks.

        The arguments are those of :meth:`SingleView.with_landmarks`. Crops, flips, rotations,
        resizing, affine and projective maps move the points. Operations on colour do not.

        Raises:
            ValueError: an argument does not fit, or the pipeline has another operation, such as
                erasing.

        >>> import kornia.augmentation as K
        >>> pipeline = KorniaPipeline(K.CenterCrop(40), K.RandomHorizontalFlip(p=1.0))
        >>> images, eyes = torch.rand(1, 3, 48, 48), torch.tensor([[[2.0, 20.0], [33.0, 19.0]]])
        >>> _, landmarks, visible = pipeline.with_landmarks(images, eyes, swap=(1, 0))
        >>> landmarks, visible
        (tensor([[[10., 15.],
                 [41., 16.]]]), tensor([[ True, False]]))
        """
        points = check_points(images, landmarks, visible, swap)
        images, points = carried(self, images, points, generator)
        return points.on(images)

    def extra_repr(self) -> str:
        return "\n".join(repr(operation) for operation in self._all[0])


def carried(
    pipeline: KorniaPipeline, images: Tensor, points: Points, generator: torch.Generator | None
) -> tuple[Tensor, Points]:
    """Return images and points after the operations of a pipeline."""
    from robustfer.augmentations._moving_landmarks import check_followable, following

    check_followable(pipeline._all, points.swap)
    with following(pipeline._all, points) as follower:
        images = pipeline(images, generator=generator)
    return images, follower.points


def _applied(operations: Sequence[nn.Module], images: Tensor) -> Tensor:
    """Apply kornia's modules in turn, in full precision, and leave the modules unchanged."""
    # Autocast would round the matrices of rotation and crop to half precision.
    with without_autocast(images), _default_dtype_and_device(), _unchanged(operations):
        try:
            for operation in operations:
                images = operation(images)
        except ValueError as error:
            if images.shape[1] == 3:
                raise
            raise ValueError(
                f"an operation of the pipeline refused images of {images.shape[1]} channels "
                f"({error}); some operations need three, such as hue and saturation: leave it out, "
                "or repeat a grey image with images.expand(-1, 3, -1, -1)"
            ) from error
    return images


@contextmanager
def _default_dtype_and_device() -> Iterator[None]:
    """Set the defaults to float32 on the CPU, because kornia draws its parameters with them."""
    dtype = torch.get_default_dtype()
    if dtype == torch.float32 and torch.get_default_device().type == "cpu":
        # A device context would slow down every call in it.
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def _unchanged(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Undo what kornia stores on its modules: all it drew, with noise, and the last batch."""
    before = [(part, vars(part).copy()) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes in before:
            vars(part).clear()
            vars(part).update(attributes)
