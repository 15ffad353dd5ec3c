"""Which of kornia's operations take landmarks along, and following them while they run.

It imports kornia: import it where a pipeline is there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import kornia.augmentation as K
import torch
from kornia.constants import Resample
from torch import Tensor, nn

from robustfer.augmentations._points import Points

# A picture upside down is a mirrored one, turned by 180 degrees: left is right in both.
_MIRRORING = (K.RandomHorizontalFlip, K.RandomVerticalFlip)

# Their matrix tells where they put each pixel, which tests see by drawn points.
_RIGID = (
    *_MIRRORING,
    *(K.RandomAffine, K.RandomRotation, K.RandomRotation90, K.RandomShear, K.RandomTranslate),
    *(K.RandomPerspective, K.RandomCrop, K.RandomResizedCrop, K.CenterCrop, K.PadTo),
    *(K.Resize, K.LongestMaxSize, K.SmallestMaxSize),
)

# Not so harmless among the operations on colour: one smears to one side, one paints anew.
_MOVING_COLOUR = (K.RandomMotionBlur, K.RandomDissolving)


class Follower:
    """A forward hook on kornia's operations: each moves the points as it moves its images.

    kornia's own way, keypoints as a second input, forgets which points left the frame between two
    operations, and calls the left eye of a mirrored face a left eye.
    """

    def __init__(self, points: Points) -> None:
        self.points = points

    def __call__(self, operation: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(operation, _RIGID):
            return
        # On the CPU, where the parameters are: on a GPU, to solve for the matrix of a crop would
        # wait. In float64, where it costs nothing.
        like_input = torch.empty((), dtype=torch.float64, device="cpu").expand(inputs[0].shape)
        drawn = operation._params
        matrices = operation.generate_transformation_matrix(like_input, drawn, operation.flags)
        self.points = self.points.moved(matrices, height=output.shape[-2], width=output.shape[-1])
        if isinstance(operation, _MIRRORING):
            self.points = self.points.renamed(drawn["batch_prob"] > 0.5)


@contextmanager
def following(operations: Iterable[nn.Module], points: Points) -> Iterator[Follower]:
    """Carry points through all that the operations do within the context."""
    follower = Follower(points)
    with ExitStack() as hooks:
        for part in set(_leaves(operations)):
            hooks.enter_context(part.register_forward_hook(follower))
        yield follower


def check_followable(operations: Iterable[nn.Module], swap: Sequence[int] | None) -> None:
    """Refuse operations that are not known to put points where they put the image."""
    for part in _leaves(operations):
        name = type(part).__name__
        if isinstance(part, K.RandomErasing):
            raise ValueError(
                f"{name} hides landmarks without telling which; let SingleView or MirroredPair "
                "erase instead: erase_probability=, erase_scale=, erase_ratio="
            )
        known = isinstance(part, (K.IntensityAugmentationBase2D, *_RIGID))
        if not known or isinstance(part, _MOVING_COLOUR):
            raise ValueError(
                f"{name} is not known to put landmarks where it puts the image; leave it out, or "
                "call the augmentation without landmarks"
            )
        if getattr(part, "flags", {}).get("resample") == Resample.NEAREST:
            raise ValueError(
                f"{name} with nearest resampling moves pixels by up to half a pixel of their own; "
                'use resample="bilinear" with landmarks'
            )
        if swap is None and isinstance(part, _MIRRORING):
            raise ValueError(
                f"{name} makes left landmarks right ones; give swap=, as in "
                "robustfer.landmarks.landmark_layout(points).swap"
            )


def _leaves(operations: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The operations inside of containers; one that cuts images into patches counts as one."""
    for operation in operations:
        if isinstance(operation, K.ImageSequential) and not isinstance(
            operation, K.PatchSequential
        ):
            yield from _leaves(operation.children())
        else:
            yield operation
