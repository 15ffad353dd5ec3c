"""Move landmarks with the images while kornia's operations run.

This module imports kornia, so import it only where a pipeline exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import kornia.augmentation as K
import torch
from kornia.constants import Resample
from torch import Tensor, nn

from robustfer.augmentations._points import Points

# A vertical flip is a horizontal flip turned by 180 degrees: both swap left and right.
_MIRRORING = (K.RandomHorizontalFlip, K.RandomVerticalFlip)

# Their matrix says where each pixel goes, which tests check with drawn points.
_FOLLOWED = (
    *_MIRRORING,
    *(K.RandomAffine, K.RandomRotation, K.RandomRotation90, K.RandomShear, K.RandomTranslate),
    *(K.RandomPerspective, K.RandomCrop, K.RandomResizedCrop, K.CenterCrop, K.PadTo),
    *(K.Resize, K.LongestMaxSize, K.SmallestMaxSize),
)

# Operations on colour that also move content: one smears to one side, one repaints the image.
_MOVING_COLOUR = (K.RandomMotionBlur, K.RandomDissolving)


class Follower:
    """Forward hook on kornia's operations that moves the points with the images.

    kornia can take keypoints as a second input. But it forgets which points left the frame between
    two operations, and does not swap left and right when it mirrors.
    """

    def __init__(self, points: Points) -> None:
        self.points = points

    def __call__(self, operation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(operation, _FOLLOWED):
            return
        # On the CPU, because solving for the matrix of a crop on a GPU would wait. float64 costs
        # nothing here.
        like_input = torch.empty((), dtype=torch.float64, device="cpu").expand(inputs[0].shape)
        drawn = operation._params
        matrices = operation.generate_transformation_matrix(like_input, drawn, operation.flags)
        self.points = self.points.moved(matrices, height=output.shape[-2], width=output.shape[-1])
        if isinstance(operation, _MIRRORING):
            self.points = self.points.renamed(drawn["batch_prob"] > 0.5)


@contextmanager
def following(operations: Iterable[nn.Module], points: Points) -> Iterator[Follower]:
    """Move points through all operations that run within the context."""
    follower = Follower(points)
    with ExitStack() as hooks:
        for part in set(_leaves(operations)):
            hooks.enter_context(part.register_forward_hook(follower))
        yield follower


def check_followable(operations: Iterable[nn.Module], swap: Sequence[int] | None) -> None:
    """Require operations that are known to move points with the image."""
    for part in _leaves(operations):
        name = type(part).__name__
        if isinstance(part, K.RandomErasing):
            raise ValueError(
                f"{name} does not say which landmarks it hides; use the erase_probability, "
                "erase_scale and erase_ratio of SingleView or MirroredPair instead"
            )
        known = isinstance(part, (K.IntensityAugmentationBase2D, *_FOLLOWED))
        if not known or isinstance(part, _MOVING_COLOUR):
            raise ValueError(
                f"{name} is not known to move landmarks with the image; leave it out, or call the "
                "augmentation without landmarks"
            )
        if getattr(part, "flags", {}).get("resample") == Resample.NEAREST:
            raise ValueError(
                f"{name} with nearest resampling moves pixels by up to half a pixel more than "
                'landmarks; use resample="bilinear"'
            )
        if swap is None and isinstance(part, _MIRRORING):
            raise ValueError(
                f"{name} swaps left and right landmarks, which needs swap, got None; pass swap="
                "robustfer.landmarks.landmark_layout(points).swap"
            )


def _leaves(operations: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """Yield the operations inside of containers. PatchSequential counts as one operation."""
    for operation in operations:
        if isinstance(operation, K.ImageSequential) and not isinstance(
            operation, K.PatchSequential
        ):
            yield from _leaves(operation.children())
        else:
            yield operation
