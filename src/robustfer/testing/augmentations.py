"""Checks of an augmentation, as tests to inherit."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustfer.testing import _require as require
from robustfer.testing._imitated_gpu import views_follow_to_gpu
from robustfer.testing._state import random_state, same


class AugmentationConformance:
    """Test an augmentation. Subclass it with a name that starts with ``Test``, and define a method.

    ``forward(images, *, generator=None)`` takes a batch and returns a view of it, or a tuple of
    views. Every check is one test. If an augmentation breaks a check on purpose, switch it off by
    its name, and give the reason: ``test_seeds_differ = None  # nothing here is random``.

    Attributes:
        batch: number of images in a batch.
        shape: channels, height and width of an image.

    >>> from robustfer.augmentations import MirroredPair
    >>> class TestMirroredPair(AugmentationConformance):
    ...     def make_augmentation(self):
    ...         return MirroredPair()
    >>> TestMirroredPair().test_eval_draws_nothing()
    """

    batch: int = 6
    shape: tuple[int, int, int] = (3, 24, 20)

    def make_augmentation(self) -> nn.Module:
        """Return a new augmentation, with the same options each time."""
        raise NotImplementedError("define make_augmentation(self), which returns a new one")

    def make_images(self, *, batch: int, generator: torch.Generator) -> Tensor:
        """Return uint8 images (B, C, H, W), drawn from the generator."""
        return torch.randint(256, (batch, *self.shape), generator=generator, dtype=torch.uint8)

    # How it is made and called

    def test_documents_shape(self) -> None:
        """The docstring has the section ``Shape:``."""
        require.sections(self.make_augmentation(), "Shape")

    def test_options_are_keyword_only(self) -> None:
        """The constructor names its options, and takes them by keyword."""
        require.keyword_options(self.make_augmentation())

    def test_call_is_not_overridden(self) -> None:
        """``__call__`` is torch's. Hooks then run."""
        require.own_call(self.make_augmentation())

    def test_can_be_pickled(self) -> None:
        """It can be pickled, which spawned workers need."""
        require.pickling(self.make_augmentation())

    def test_forward_takes_images_and_a_generator(self) -> None:
        """``forward`` takes ``images`` and ``generator``, which is None by default."""
        parameters = inspect.signature(self.make_augmentation().forward).parameters
        assert next(iter(parameters), None) == "images", (
            f"forward must take images first, got {list(parameters)}"
        )
        assert "generator" in parameters, "forward must take generator, its random source"
        assert parameters["generator"].default is None, "generator must be None by default"

    def test_refuses_what_is_no_batch(self) -> None:
        """A single image, an empty batch and int64 raise a ValueError that names ``images``."""
        images = self._images()
        wrong = {
            "one image without a batch axis": images[0],
            "an empty batch": images[:0],
            "int64 images": images.long(),
        }
        for what, tensor in wrong.items():
            require.refusal(partial(self.make_augmentation(), tensor), what, ["images"])

    # Its result

    def test_views_are_batches_of_floats(self) -> None:
        """Views are finite (B, C, H, W): float64 for float64 images, else float32."""
        images = self._images()
        for dtype, expected in (
            (torch.uint8, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
        ):
            given = images if dtype == torch.uint8 else images.to(dtype) / 255
            for view in self._views(self.make_augmentation(), given):
                shape = tuple(view.shape)
                batch = shape[:1] == (self.batch,) and len(shape) == 4
                assert batch, f"each view must have shape ({self.batch}, C, H, W), got {shape}"
                assert view.dtype == expected, f"{dtype} must give {expected}, got {view.dtype}"
                assert view.isfinite().all(), "a view has NaN or infinite pixels"

    def test_uint8_means_the_same_as_float(self) -> None:
        """uint8 in 0..255 and floats in 0..1 give the same views."""
        augmentation, images = self.make_augmentation().eval(), self._images()
        bytes_and_floats = (self._views(augmentation, given) for given in (images, images / 255))
        for one, other in zip(*bytes_and_floats, strict=True):
            require.close(one, other, "uint8 in 0..255 gives other views than floats in 0..1")

    def test_batch_of_one(self) -> None:
        """One image gives one view."""
        for view in self._views(self.make_augmentation(), self._images(batch=1)):
            assert len(view) == 1, f"one image must give one view, got {tuple(view.shape)}"

    def test_samples_are_drawn_apart(self) -> None:
        """Equal images in a batch give different views."""
        augmentation = self.make_augmentation()
        images = self._images()[:1].expand(self.batch, -1, -1, -1)
        apart = any(
            not same(view, view[:1].expand_as(view))
            for seed in range(8)
            for view in self._views(augmentation, images, seed)
        )
        assert apart, "all samples of a batch get the same change; draw one for each sample"

    def test_memory_format_does_not_matter(self) -> None:
        """Images in channels_last give the same views."""
        augmentation, images = self.make_augmentation(), self._images()
        channels_last = images.contiguous(memory_format=torch.channels_last)
        both = (self._views(augmentation, given) for given in (images, channels_last))
        for one, other in zip(*both, strict=True):
            require.close(other, one, "channels_last images give other views")

    def test_follows_to_a_gpu(self) -> None:
        """On a GPU the views are there. This check needs no GPU."""
        for training in (True, False):
            views_follow_to_gpu(
                self.make_augmentation().train(training),
                self._images(),
                "on a GPU forward fails, or its views are on another device; draw random numbers "
                "on the CPU, and move them with .to(images.device)",
            )

    # Random numbers

    def test_generator_decides(self) -> None:
        """A seed gives the same views, and global generators do not advance."""
        augmentation, images = self.make_augmentation(), self._images()
        for seed in range(4):
            once = self._views(augmentation, images, seed)
            before = random_state()
            again = self._views(augmentation, images, seed)
            assert random_state() == before, (
                "a global generator is used beside the given one; pass the given one to every draw"
            )
            assert all(map(same, once, again)), (
                "a seed gives different views; draw everything from the generator"
            )

    def test_seeds_differ(self) -> None:
        """Other seeds give other views."""
        augmentation, images = self.make_augmentation(), self._images()
        first = self._views(augmentation, images, 0)
        others = (self._views(augmentation, images, seed) for seed in range(1, 8))
        differ = not all(all(map(same, first, views)) for views in others)
        assert differ, "eight seeds give the same views; draw from the given generator"

    def test_eval_draws_nothing(self) -> None:
        """In ``eval()`` all seeds give the same views, and nothing is drawn."""
        augmentation, images = self.make_augmentation().eval(), self._images()
        before = random_state()
        once = self._unpacked(augmentation(images))
        assert random_state() == before, "eval() draws random numbers; draw only if self.training"
        seeded = (self._views(augmentation, images, seed) for seed in range(4))
        assert all(all(map(same, once, views)) for views in seeded), (
            "eval() gives different views for different seeds; draw only if self.training"
        )

    # Side effects

    def test_images_are_left_alone(self) -> None:
        """``forward`` does not write to the images."""
        for images in (self._images(), self._images() / 255):
            with require.unwritten({"images": images}, "forward writes to {}; make a copy first"):
                self._views(self.make_augmentation(), images)

    def test_forward_leaves_state_alone(self) -> None:
        """``forward`` changes no parameter, buffer or attribute."""
        augmentation = self.make_augmentation()
        with require.unchanged(
            augmentation, "forward changes {}; return the values, or keep them in local variables"
        ):
            self._views(augmentation, self._images())

    def test_tensors_are_parameters_or_buffers(self) -> None:
        """``.to(device)`` moves every tensor."""
        require.registered_tensors(self.make_augmentation())

    def _images(self, *, batch: int | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return self.make_images(batch=self.batch if batch is None else batch, generator=generator)

    def _views(self, augmentation: nn.Module, images: Tensor, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return self._unpacked(augmentation(images, generator=generator))

    def _unpacked(self, result: Any) -> tuple[Tensor, ...]:
        views = result if isinstance(result, tuple) else (result,)
        assert all(isinstance(view, Tensor) for view in views), (
            f"forward must return a tensor or a tuple of tensors, got {type(result).__name__}"
        )
        return views
