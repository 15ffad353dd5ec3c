"""Examine the head of a network: find its layers, and check that they give exact class maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustfer._copying import independent_copy
from robustfer.models._layout import Layout, logits_of
from robustfer.models._probe import (
    TOLERANCE,
    Call,
    in_training,
    recorded_calls,
    relative_error,
)
from robustfer.models.outputs import class_bias, class_maps

# Both, because a network may skip layers at random in training.
_MODES: tuple[Callable[[nn.Module], AbstractContextManager[object]], ...] = (
    in_training,
    lambda _: nullcontext(),
)


# What a network raises for inputs that it does not take.
_RAISED = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


class UnsuitedHeadError(Exception):
    """The head gives no exact class maps. The message continues "its own head ..."."""


@dataclass(frozen=True)
class NativeHead:
    """Paths in the backbone of the layers after the pooling."""

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


def find_native_head(
    probe: nn.Module, images: Tensor, raw: Any, features: Tensor, layout: Layout
) -> NativeHead:
    """Find the layers of the head of ``probe``, and check that they give exact class maps.

    The probe has randomised norms and is in eval mode. ``raw`` and ``features`` are what
    :meth:`Layout.read` returns for it and the images.

    Raises:
        UnsuitedHeadError: the head gives no exact maps; the message says why.
    """
    if layout.tap is None and not hasattr(probe, "forward_head"):
        raise UnsuitedHeadError("cannot be found (it has no forward_head)")
    paths = {module: path for path, module in probe.named_modules()}
    try:
        with torch.no_grad(), recorded_calls(probe) as calls:
            if layout.tap is not None:
                raw, features = layout.read(probe, images)
            logits = layout.logits(probe, raw)
    except _RAISED as raised:
        raise UnsuitedHeadError(f"raises for its own features ({raised})") from raised
    behind = _after(calls, None if layout.tap is None else probe.get_submodule(layout.tap))
    layers = list(dict.fromkeys(call.module for call in behind if call.has_own_parameters))
    layers = [layer for layer in layers if layer is not probe]
    names = ", ".join(f"{paths[layer]} ({type(layer).__name__})" for layer in layers)
    if not layers or not _is_linear(layers[-1]):
        raise UnsuitedHeadError(
            f"does not end in a linear classifier; its layers: {names or 'none'}"
        )
    if len(layers) > 2 or not all(isinstance(layer, nn.LayerNorm) for layer in layers[:-1]):
        raise UnsuitedHeadError(f"has other layers before the classifier: {names}")
    found = NativeHead(paths[layers[-1]], paths[layers[0]] if len(layers) == 2 else None)

    classifier, norm = found.parts(probe)
    if layout.tap is not None:
        # Random weights, because a classifier that starts at zero hides errors.
        generator = torch.Generator("cpu").manual_seed(0)
        with torch.no_grad():
            for parameter in classifier.parameters():
                parameter.normal_(generator=generator)
            raw, features = layout.read(probe, images)
            logits = layout.logits(probe, raw)
    weight, bias = linear_parts(classifier)
    maps = layout.maps(features, probe, images)
    _check_logits(logits, (len(images), len(weight)))
    if weight.shape[1] != maps.shape[1]:
        raise UnsuitedHeadError(
            f"classifies {weight.shape[1]} numbers pooled from {maps.shape[1]} channels"
        )
    with torch.no_grad():
        error = relative_error(
            class_maps(maps, weight, norm), class_bias(weight, bias, norm), logits
        )
    if not error <= TOLERANCE:
        at = f" that {layout.tap} returns" if layout.tap else ""
        raise UnsuitedHeadError(
            f"does not classify the mean over the maps{at}: they differ from the logits by "
            f"{error:.0%} of the largest logit. The cause is a class token, another pooling, or a "
            "function after the last module, such as F.relu, which must be a module (nn.ReLU)"
        )
    with torch.no_grad():
        whole = logits_of(probe(images))
    if not torch.allclose(logits, whole, rtol=TOLERANCE, atol=TOLERANCE):
        raise UnsuitedHeadError("does not do all that its forward does after forward_features")
    try:
        with torch.no_grad(), in_training(probe):
            in_training_raw = raw if layout.tap is None else layout.read(probe, images)[0]
            in_training_logits = layout.logits(probe, in_training_raw)
    except _RAISED as raised:
        raise UnsuitedHeadError(f"raises in training ({raised})") from raised
    _check_logits(in_training_logits, logits.shape, " in training")
    return found


def _after(calls: list[Call], tapped: nn.Module | None) -> list[Call]:
    """Return the calls that finished after that of the module, or all calls without a module."""
    places = [place for place, call in enumerate(calls) if call.module is tapped]
    return calls[places[0] + 1 :] if places else calls


def _check_logits(logits: object, shape: tuple[int, ...], when: str = "") -> None:
    if not isinstance(logits, Tensor):
        raise UnsuitedHeadError(f"gives a {type(logits).__name__}, not logits{when}")
    if logits.shape != shape:
        raise UnsuitedHeadError(
            f"gives logits of shape {tuple(logits.shape)}, not {tuple(shape)}{when}"
        )


def drop_unused(backbone: nn.Module, probe: nn.Module, images: Tensor, layout: Layout) -> list[str]:
    """Replace modules that the features do not need, the head, by ``nn.Identity``.

    Their parameters would never get a gradient, which ``DistributedDataParallel`` refuses.
    ``probe``, a copy of ``backbone``, shows which modules are used. If the network's ``forward``
    cannot do without them, they stay. Parameters that stay and get no gradient are frozen.

    Returns:
        Paths of the modules that are not used any more.
    """
    used = _learning(probe, lambda: layout.read(probe, images)[1])
    called: set[nn.Module] = set()
    for mode in _MODES:
        with torch.no_grad(), mode(probe), recorded_calls(probe) as calls:
            layout.read(probe, images)
        if layout.tap is not None:
            calls = calls[: -len(_after(calls, probe.get_submodule(layout.tap)))]
        called.update(call.module for call in calls)

    def unused(module: nn.Module, prefix: str = "") -> Iterator[str]:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            own = {f"{path}.{parameter}" for parameter, _ in child.named_parameters()}
            # Gradients count too: parameters may be read without a call of their module.
            if own and not own & used and called.isdisjoint(child.modules()):
                yield path
            elif layout.tap is not None:
                # Part of the head may lie deeper.
                yield from unused(child, f"{path}.")

    dropped = list(unused(probe))
    trial = independent_copy(probe)
    _replace_by_identities(trial, dropped)
    try:
        for mode in _MODES:
            with torch.no_grad(), mode(trial):
                layout.read(trial, images)
    except Exception:  # the network's own code may raise anything
        pass
    else:
        _replace_by_identities(backbone, dropped)
    _freeze_all_but(used, backbone)
    return dropped


def _replace_by_identities(network: nn.Module, paths: list[str]) -> None:
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())


def freeze_unused(backbone: nn.Module, probe: nn.Module, images: Tensor, layout: Layout) -> None:
    """Freeze parameters without a gradient from features and logits, as of auxiliary classifiers.

    ``DistributedDataParallel`` refuses parameters that learn and get none.
    """

    def outputs() -> Tensor:
        raw, features = layout.read(probe, images)
        total: Tensor = features.sum() + layout.logits(probe, raw).sum()
        return total

    _freeze_all_but(_learning(probe, outputs), backbone)


def _freeze_all_but(used: set[str], backbone: nn.Module) -> None:
    for name, parameter in backbone.named_parameters():
        if name not in used:
            parameter.requires_grad_(False)


def _learning(probe: nn.Module, outputs: Callable[[], Tensor]) -> set[str]:
    """Return the names of the parameters that get a gradient, in training or in eval mode."""
    probe.requires_grad_(True)
    for mode in _MODES:
        with torch.enable_grad(), mode(probe):
            result = outputs()
            if result.requires_grad:
                # Not torch.autograd.grad, which reentrant checkpointing refuses.
                result.sum().backward()  # type: ignore[no-untyped-call]
    used = {name for name, parameter in probe.named_parameters() if parameter.grad is not None}
    probe.zero_grad(set_to_none=True)
    return used


def _is_linear(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)
