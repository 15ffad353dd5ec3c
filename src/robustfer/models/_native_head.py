"""Examining the head of a timm model: which layers it is made of and whether maps follow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustfer.models._layout import Layout, forward_features, in_training
from robustfer.models.exactness import TOLERANCE, relative_error
from robustfer.models.outputs import class_bias, class_maps


class UnsuitedHeadError(Exception):
    """The head gives no exact class maps; the message completes "its own head ..."."""


@dataclass(frozen=True)
class NativeHead:
    """Paths, within the backbone, of the layers behind the pooling."""

    classifier: str
    norm: str | None

    def parts(self, backbone: nn.Module) -> tuple[nn.Module, nn.LayerNorm | None]:
        """Return classifier and norm of ``backbone``."""
        norm = None if self.norm is None else backbone.get_submodule(self.norm)
        assert norm is None or isinstance(norm, nn.LayerNorm)
        return backbone.get_submodule(self.classifier), norm


def linear_parts(classifier: Any) -> tuple[Tensor, Tensor | None]:
    """Return weight (C, D) and bias (C) of a linear layer or a 1x1 convolution."""
    return classifier.weight.flatten(1), classifier.bias


def find_native_head(probe: Any, images: Tensor, raw: Tensor, layout: Layout) -> NativeHead:
    """Find the layers of the head of ``probe`` and check that class maps made of them are exact.

    Args:
        probe: a copy of the backbone with randomised norms and classifier, in eval mode.
        images: (B, C, H, W) random images.
        raw: the features of ``images``, as the probe gives them.
        layout: of these features.

    Raises:
        UnsuitedHeadError: no mean pooling followed by an optional layer norm and one linear layer.
    """
    if not hasattr(probe, "forward_head"):
        raise UnsuitedHeadError("is not to be found (it has no forward_head)")
    paths = {module: path for path, module in probe.named_modules()}
    try:
        with torch.no_grad(), _recorded_calls(probe) as called:
            logits = probe.forward_head(raw)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as raised:
        raise UnsuitedHeadError(f"does not take its own features ({raised})") from raised
    layers = [module for module in called if any(True for _ in module.parameters(recurse=False))]
    names = ", ".join(f"{paths[layer]} ({type(layer).__name__})" for layer in layers)
    if not layers or not _is_linear(layers[-1]):
        raise UnsuitedHeadError(f"does not end in a linear classifier; its layers: {names}")
    if len(layers) > 2 or not all(isinstance(layer, nn.LayerNorm) for layer in layers[:-1]):
        raise UnsuitedHeadError(f"has further layers before the classifier: {names}")
    found = NativeHead(paths[layers[-1]], paths[layers[0]] if len(layers) == 2 else None)

    classifier, norm = found.parts(probe)
    weight, bias = linear_parts(classifier)
    features = layout.maps(raw, probe, images)
    _check_logits(logits, (len(images), len(weight)))
    if weight.shape[1] != features.shape[1]:
        raise UnsuitedHeadError(
            f"classifies {weight.shape[1]} numbers pooled from {features.shape[1]} channels"
        )
    with torch.no_grad():
        maps = class_maps(features, weight, norm)
        error = relative_error(maps, class_bias(weight, bias, norm), logits)
    if not error <= TOLERANCE:
        raise UnsuitedHeadError(
            "does not classify the mean over the maps (a class token, or another pooling): "
            f"maps and logits are {error:.0%} of the largest logit apart"
        )
    with torch.no_grad():
        whole = probe(images)
    if not torch.allclose(logits, whole, rtol=TOLERANCE, atol=TOLERANCE):
        raise UnsuitedHeadError("is not all that its forward does after forward_features")
    with torch.no_grad(), in_training(probe):
        _check_logits(probe.forward_head(raw), logits.shape, " in training")
    return found


def _check_logits(logits: object, shape: tuple[int, ...], when: str = "") -> None:
    if not isinstance(logits, Tensor):
        raise UnsuitedHeadError(f"gives a {type(logits).__name__}, not logits{when}")
    if logits.shape != shape:
        raise UnsuitedHeadError(
            f"gives logits of shape {tuple(logits.shape)}, not {tuple(shape)}{when}"
        )


def drop_unused(backbone: nn.Module, probe: nn.Module, images: Tensor) -> list[str]:
    """Replace the children of ``backbone`` that its features do not need by ``nn.Identity``.

    That is the head. Left in place, its parameters would never get a gradient, which
    DistributedDataParallel refuses.

    Args:
        backbone: the module to change.
        probe: a copy of it, in which the use is found out.
        images: (B, C, H, W) random images.

    Returns:
        The names of the children dropped.
    """
    probe.requires_grad_(True)
    used: set[str] = set()
    with torch.enable_grad(), in_training(probe), _recorded_calls(probe) as called:
        features = forward_features(probe, images)
        if features.requires_grad:
            names, parameters = zip(*probe.named_parameters(), strict=True)
            gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
            used = {name for name, grad in zip(names, gradients, strict=True) if grad is not None}

    dropped = []
    for name, child in probe.named_children():
        own = {f"{name}.{path}" for path, _ in child.named_parameters()}
        # Not run is not enough: parameters may be read without a call of their module.
        if own and not own & used and called.keys().isdisjoint(child.modules()):
            setattr(backbone, name, nn.Identity())
            dropped.append(name)
    return dropped


def _is_linear(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


@contextmanager
def _recorded_calls(module: nn.Module) -> Iterator[dict[nn.Module, None]]:
    """Collect the submodules that run, in the order in which they first finish."""
    called: dict[nn.Module, None] = {}
    handles = [
        part.register_forward_hook(lambda part, *_: called.setdefault(part))
        for part in module.modules()
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
