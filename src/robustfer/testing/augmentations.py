"""What every augmentation must keep to, as tests to inherit."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustfer.testing import _require as require
from robustfer.testing._state import random_state, same


class AugmentationConformance:
    """Tests of an augmentation: subclass under a name that starts with ``Test``, define one method.

    ``forward(images, *, generator=None)`` takes a batch and returns one view of it or a tuple of
    views. Every check is one test. A check that an augmentation breaks on purpose is taken out by
    its name, the reason beside it: ``test_seeds_differ = None  # nothing here is random``.

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
        """The constructor names its options and takes them by keyword."""
        require.keyword_options(self.make_augmentation())

    def test_call_is_not_overridden(self) -> None:
        """``__call__`` is torch's, so that hooks run."""
        require.own_call(self.make_augmentation())

    def test_can_be_pickled(self) -> None:
        """It can be pickled, as spawned workers need."""
        require.pickling(self.make_augmentation())

    def test_forward_takes_images_and_a_generator(self) -> None:
        """``forward`` takes ``images`` and ``generator``, None by default."""
        parameters = inspect.signature(self.make_augmentation().forward).parameters
        assert next(iter(parameters), None) == "images", (
            f"forward must take images first, it takes {list(parameters)}"
        )
        assert "generator" in parameters, "forward must take generator, the source of its numbers"
        assert parameters["generator"].default is None, "generator must be None by default"

    def test_refuses_what_is_no_batch(self) -> None:
        """One image, no image and int64 raise a ValueError that names ``images``."""
        images = self._images()
        wrong = {
            "one image without a batch axis": images[0],
            "an empty batch": images[:0],
            "int64 images": images.long(),
        }
        for what, tensor in wrong.items():
            require.refusal(partial(self.make_augmentation(), tensor), what, ["images"])

    # What comes out

    def test_views_are_batches_of_floats(self) -> None:
        """Views are (B, C, H, W) and finite: float32, or float64 for float64."""
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
                assert view.isfinite().all(), "a view holds NaN or infinite pixels"

    def test_uint8_means_the_same_as_float(self) -> None:
        """0 to 255 in uint8 and 0 to 1 in floats give the same views."""
        augmentation, images = self.make_augmentation().eval(), self._images()
        bytes_and_floats = (self._views(augmentation, given) for given in (images, images / 255))
        for one, other in zip(*bytes_and_floats, strict=True):
            require.close(one, other, "uint8 0..255 gives other views than the same as float 0..1")

    def test_batch_of_one(self) -> None:
        """One image gives one view."""
        for view in self._views(self.make_augmentation(), self._images(batch=1)):
            assert len(view) == 1, f"one image must give one, got {tuple(view.shape)}"

    def test_samples_are_drawn_apart(self) -> None:
        """Equal images in a batch come out different."""
        augmentation = self.make_augmentation()
        images = self._images()[:1].expand(self.batch, -1, -1, -1)
        apart = any(
            not same(view, view[:1].expand_as(view))
            for seed in range(8)
            for view in self._views(augmentation, images, seed)
        )
        assert apart, "every sample of a batch gets the same change; draw one for each"

    def test_memory_format_does_not_matter(self) -> None:
        """Images in channels_last give the same views."""
        augmentation, images = self.make_augmentation(), self._images()
        channels_last = images.contiguous(memory_format=torch.channels_last)
        both = (self._views(augmentation, given) for given in (images, channels_last))
        for one, other in zip(*both, strict=True):
            require.close(other, one, "channels_last images give other views")

    # Random numbers

    def test_generator_decides(self) -> None:
        """One seed gives the same views, and global generators stay where they were."""
        augmentation, images = self.make_augmentation(), self._images()
        for seed in range(4):
            once = self._views(augmentation, images, seed)
            before = random_state()
            again = self._views(augmentation, images, seed)
            assert random_state() == before, (
                "numbers are drawn past the generator that was given; hand it to every draw"
            )
            assert all(map(same, once, again)), (
                "one seed gives different views; draw everything from the generator"
            )

    def test_seeds_differ(self) -> None:
        """Another seed gives other views."""
        augmentation, images = self.make_augmentation(), self._images()
        first = self._views(augmentation, images, 0)
        others = (self._views(augmentation, images, seed) for seed in range(1, 8))
        differ = not all(all(map(same, first, views)) for views in others)
        assert differ, "eight seeds give the same views; draw from the generator that is given"

    def test_eval_draws_nothing(self) -> None:
        """In ``eval()`` every seed gives the same views, and no number is drawn."""
        augmentation, images = self.make_augmentation().eval(), self._images()
        before = random_state()
        once = self._unpacked(augmentation(images))
        assert random_state() == before, "eval() draws random numbers; look at self.training"
        seeded = (self._views(augmentation, images, seed) for seed in range(4))
        assert all(all(map(same, once, views)) for views in seeded), (
            "eval() gives different views for different seeds; look at self.training"
        )

    # What forward must not change

    def test_images_are_left_alone(self) -> None:
        """``forward`` writes into no image."""
        for images in (self._images(), self._images() / 255):
            with require.unwritten({"images": images}, "forward writes into {}; make a copy first"):
                self._views(self.make_augmentation(), images)

    def test_forward_leaves_state_alone(self) -> None:
        """No parameter, buffer or attribute changes, in ``train()`` and ``eval()``."""
        augmentation = self.make_augmentation()
        with require.unchanged(
            augmentation, "forward changes {}; return it, or keep it in local variables"
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
