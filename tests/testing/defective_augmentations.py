"""A sound augmentation and copies with one defect each, beside the checks that must catch it."""

import torch
from torch import nn

from robustfer._checks import check_shapes
from robustfer.testing import AugmentationConformance
from tests.testing.defects import Defects

DEFECTS = Defects()
caught_by = DEFECTS.caught_by


def conformance_of(augmentation):
    return DEFECTS.conformance_of(SoundConformance, augmentation=augmentation)


class Sound(nn.Module):
    """Add a number of its own to each image.

    Shape:
        images ``(B, C, H, W)`` -> ``(B, C, H, W)``.
    """

    def forward(self, images, *, generator=None):
        check_shapes(images=(images, "B C H W"))
        if not images.is_floating_point():
            if images.dtype != torch.uint8:
                raise ValueError(f"images must be uint8 or floats, got {images.dtype}")
            images = images / 255
        return self.changed(images, generator) if self.training else images

    def changed(self, images, generator):
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator, dtype=images.dtype)
        return images + drawn.to(images.device)


class SoundConformance(AugmentationConformance):
    augmentation = Sound

    def make_augmentation(self):
        return self.augmentation()


@caught_by("test_documents_shape")
class WithoutShape(Sound):
    """Add a number of its own to each image."""


@caught_by("test_options_are_keyword_only")
class OptionsByPosition(Sound):
    def __init__(self, strength=0.1):
        super().__init__()


@caught_by("test_call_is_not_overridden")
class OverridesCall(Sound):
    def __call__(self, images, *, generator=None):
        return self.forward(images, generator=generator)


@caught_by("test_can_be_pickled")
class HoldsALambda(Sound):
    def __init__(self):
        super().__init__()
        self.curve = lambda value: value


@caught_by("test_forward_takes_images_and_a_generator")
class NamesImagesOtherwise(Sound):
    def forward(self, x, *, generator=None):
        return super().forward(x, generator=generator)


@caught_by("test_refuses_what_is_no_batch")
class TakesAnythingAsABatch(Sound):
    def forward(self, images, *, generator=None):
        if images.ndim == 3:
            return super().forward(images[None], generator=generator)
        return super().forward(images, generator=generator)


@caught_by("test_views_are_batches_of_floats")
class RoundsToSingle(Sound):
    def forward(self, images, *, generator=None):
        return super().forward(images, generator=generator).float()


@caught_by("test_uint8_means_the_same_as_float")
class ForgetsTheScale(Sound):
    def forward(self, images, *, generator=None):
        views = super().forward(images, generator=generator)
        return views * 255 if images.dtype == torch.uint8 else views


@caught_by("test_batch_of_one")
class SqueezesOne(Sound):
    def forward(self, images, *, generator=None):
        views = super().forward(images, generator=generator)
        return views if len(views) > 1 else views.expand(2, -1, -1, -1)


@caught_by("test_samples_are_drawn_apart")
class OneDrawABatch(Sound):
    def changed(self, images, generator):
        return images + torch.rand((), generator=generator, dtype=images.dtype)


@caught_by("test_memory_format_does_not_matter")
class ReadsMemoryInOrder(Sound):
    def changed(self, images, generator):
        rolled = images.as_strided(images.shape, torch.empty(images.shape).stride())
        return super().changed(rolled, generator)


@caught_by("test_follows_to_a_gpu")
class LeavesItsDrawOnTheCpu(Sound):
    def changed(self, images, generator):
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator, dtype=images.dtype)
        return images + drawn


@caught_by("test_follows_to_a_gpu")
class ReturnsViewsOnTheCpu(Sound):
    def forward(self, images, *, generator=None):
        return super().forward(images, generator=generator).to("cpu")


@caught_by("test_generator_decides")
class DrawsPastTheGenerator(Sound):
    def changed(self, images, generator):
        return super().changed(images, generator) + 0.0 * torch.rand(())


@caught_by("test_seeds_differ")
class OneSeedForAll(Sound):
    def changed(self, images, generator):
        return super().changed(images, torch.Generator().manual_seed(0))


@caught_by("test_eval_draws_nothing")
class IgnoresEval(Sound):  # kornia
    def forward(self, images, *, generator=None):
        views = super().forward(images, generator=generator)
        return views if self.training else views + 1e-6 * torch.rand((), generator=generator)


@caught_by("test_images_are_left_alone")
class WritesIntoTheImages(Sound):
    def changed(self, images, generator):
        return images.clamp_(0, 1) + super().changed(images, generator) - images


@caught_by("test_forward_leaves_state_alone")
class RemembersItsLastDraw(Sound):  # kornia
    def changed(self, images, generator):
        self.last = len(images)
        return super().changed(images, generator)


@caught_by("test_tensors_are_parameters_or_buffers")
class PlainTensor(Sound):
    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(3)
