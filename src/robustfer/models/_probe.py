"""Examine a network by running a copy of it on random images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from robustfer._copying import independent_copy
from robustfer.models._layout import SkippedMapsError

TOLERANCE = 1e-5
"""Largest error of exact maps, relative to the largest logit. Rounding in float32 is far less."""

_Module = TypeVar("_Module", bound=nn.Module)


def relative_error(attention: Tensor, bias: Tensor, logits: Tensor) -> float:
    """Return the largest ``|mean of map + bias - logit|``, relative to the largest logit."""
    difference = attention.mean(dim=(2, 3)) + bias - logits
    return float(difference.abs().max() / logits.abs().max().clamp_min(1e-30))


def check_input_size(given: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width), or raise."""
    whole = isinstance(given, Sequence) and len(given) == 3
    if not whole or not all(isinstance(size, int) and size > 0 for size in given):
        raise ValueError(
            f"input_size must be (channels, height, width), such as (3, 128, 128), got {given!r}"
        )
    channels, height, width = given
    return channels, height, width


def random_images(shape: tuple[int, int, int, int], seed: int) -> Tensor:
    """Return standard normal images on the CPU, the same for the same seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def size_text(images: Tensor) -> str:
    """Return channels, height and width of images for an error, such as ``3x128x128``."""
    return "x".join(map(str, images.shape[1:]))


@contextmanager
def naming_the_size(name: str, images: Tensor, mode: str = "") -> Iterator[None]:
    """Say in an error of a network with which images it was examined."""
    try:
        yield
    except SkippedMapsError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise ValueError(
            f"{name} raised for images of {size_text(images)} (channels x height x width){mode}: "
            f"{error}; pass an input_size that it takes. It is examined on the CPU in float32"
        ) from error


@contextmanager
def undisturbed() -> Iterator[None]:
    """Shield the program's random state, and ignore its autocast, inference mode and device.

    Gradients are on inside, because leaving inference mode turns them on.
    """
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices=[]),
        torch.autocast("cpu", enabled=False),
        torch.device("cpu"),
    ):
        yield


def randomized_copy(module: _Module, seed: int) -> _Module:
    """Return a float32 copy in eval mode on the CPU, with random norms and classifier.

    New norms scale by one and shift by zero, and some classifiers start at zero. Such values would
    hide a wrongly read head.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    probe = independent_copy(module).cpu().float().eval()
    with torch.no_grad():
        for part in probe.modules():
            if "norm" not in type(part).__name__.lower():
                continue
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.ndim == 1 and name == "bias":
                    parameter.normal_(0.0, 0.5, generator=generator)
                elif parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5, generator=generator)
        classifier = getattr(probe, "get_classifier", lambda: None)()
        if isinstance(classifier, nn.Module):
            for parameter in classifier.parameters():
                parameter.normal_(generator=generator)
    return probe


@contextmanager
def in_training(probe: nn.Module) -> Iterator[None]:
    """Put a network into training mode except its batch norms, and into eval mode afterwards.

    In training mode a batch norm fails on one value per channel, changes its statistics, and waits
    for other processes if it is synchronised.
    """
    probe.train()
    for part in probe.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
    try:
        yield
    finally:
        probe.eval()


class Call(NamedTuple):
    """A call of a module, with its first argument and its output."""

    module: nn.Module
    taken: Any
    given: Any

    @property
    def has_own_parameters(self) -> bool:
        """Whether the module itself has parameters, not only the modules inside it.

        A parametrized layer, such as by weight_norm, has those that its parametrizations hold.
        """
        if isinstance(self.module, ParametrizationList):
            return False
        own = next(self.module.parameters(recurse=False), None) is not None
        return own or is_parametrized(self.module)


@contextmanager
def recorded_calls(network: nn.Module) -> Iterator[list[Call]]:
    """Collect the calls of all modules, in the order in which they finish."""
    calls: list[Call] = []

    def record(part: nn.Module, taken: tuple[Any, ...], given: Any) -> None:
        calls.append(Call(part, taken[0] if taken else None, given))

    with ExitStack() as hooks:
        for part in network.modules():
            hooks.enter_context(part.register_forward_hook(record))
        yield calls
