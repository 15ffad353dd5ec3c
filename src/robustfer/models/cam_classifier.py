"""Any image classifier, with class maps in the same forward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from robustfer._checks import check_bool, check_choice, check_whole_number
from robustfer.models._find_maps import examine_features, examine_training, probe_size
from robustfer.models._layout import record
from robustfer.models._native_head import (
    NativeHead,
    UnsuitedHeadError,
    drop_unused,
    find_native_head,
    freeze_unused,
    linear_parts,
)
from robustfer.models._probe import random_images, randomized_copy, undisturbed
from robustfer.models.outputs import CAMOutput, class_bias, class_maps, pooled_embeddings

Head = Literal["auto", "keep", "replace"]
HeadKind = Literal["linear", "norm_linear", "replaced"]

# Options of timm with paths on this machine, which building the network elsewhere must not need.
_OF_MACHINE = ("checkpoint_path", "cache_dir")


class CAMClassifier(nn.Module):
    r"""Wrap a network to get logits, class maps, features and embeddings in one forward.

    The class maps are exact: without dropout, their mean plus :meth:`class_bias` are the logits.
    The constructor examines the network's head by running a copy on random images, in eval and in
    training mode. ``head_kind`` is one of:

    - ``"linear"``: mean pooling and a linear layer (ResNet, EfficientNet, Swin). It is kept.
    - ``"norm_linear"``: a layer norm between the two (ConvNeXt, ViT built with
      ``global_pool="avg"``). It is kept; the maps take the deviation of the pooled vector as a
      constant, see :func:`robustfer.models.cam_outputs`.
    - ``"replaced"``: mean pooling and a new linear layer, with the dropout rate of the old head.
      Heads without exact maps are replaced: class tokens (ViT), hidden layers (MobileNetV3, VGG),
      several classifiers (LeViT). Modules that the features do not need are removed, or frozen if
      the network's ``forward`` cannot do without them.

    With a replaced head, and in classifiers of other libraries than timm, parameters that get no
    gradient are frozen, such as those of auxiliary classifiers. ``DistributedDataParallel`` refuses
    parameters that never learn.

    Dropout of the head changes only the logits. A loss on ``attention`` trains the backbone, never
    the classifier. Networks that drop or merge tokens in training (timm's ``patch_drop_rate``)
    raise an error, because their maps have no fixed places.

    A network of stride 32 has maps of 1x1 for images of 32x32, which cannot tell places apart.
    Enlarge small images, or lower the stride as in the example.

    Args:
        backbone: name of a timm model; or a whole classifier of timm, torchvision or Hugging Face,
            changed in place if its head is replaced; or any module that returns maps
            (B, D, H, W), such as a network without its last layers.
        num_classes: C, the number of classes.
        pretrained: load timm's pretrained weights, if ``backbone`` is a name.
        head: ``"auto"`` keeps a head with exact maps and replaces any other, with a warning if
            trained weights may be lost. ``"replace"`` always replaces it. ``"keep"`` raises if the
            head has no exact maps.
        model_options: options of ``timm.create_model``, if ``backbone`` is a name, such as
            ``in_chans``, ``img_size``, ``output_stride``, ``global_pool``, ``drop_rate``.
        input_size: (channels, height, width) of the images to examine the backbone with. Default:
            what the network declares, or 3 channels and 128 pixels.

    Attributes:
        name: name of the backbone.
        num_features: D.
        input_size: (channels, height, width) of the images used to examine the backbone.

    Shape:
        images ``(B, channels, height, width)`` -> :class:`CAMOutput`.

    Raises:
        TypeError: ``backbone`` is not a name or a module, or ``pretrained`` is not a bool.
        RuntimeError: timm has no model of this name.
        ValueError: an option does not fit, the features are not maps or have other places in
            training mode, the network already returns a ``CAMOutput``, or ``head="keep"`` and the
            head has no exact maps.

    >>> model = CAMClassifier("resnet18", num_classes=7, model_options={"output_stride": 8})
    >>> model.head_kind
    'linear'
    >>> output = model(torch.rand(2, 3, 48, 48))
    >>> output.logits.shape, output.attention.shape
    (torch.Size([2, 7]), torch.Size([2, 7, 6, 6]))
    >>> output.features.shape, output.embeddings.shape
    (torch.Size([2, 512, 6, 6]), torch.Size([2, 512]))
    """

    __call__: Callable[..., CAMOutput]

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        num_classes: int,
        pretrained: bool = False,
        head: Head = "auto",
        model_options: Mapping[str, Any] | None = None,
        input_size: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        num_classes = check_whole_number("num_classes", num_classes, 1)
        check_choice("head", head, ("auto", "keep", "replace"))
        options = dict(model_options or {})
        by_name = isinstance(backbone, str)
        self.name = backbone if isinstance(backbone, str) else type(backbone).__name__
        self._options = options if by_name else None
        backbone = network_of("backbone", backbone, pretrained, options, num_classes=num_classes)
        if any(parameter.is_meta for parameter in backbone.parameters()):
            raise ValueError(
                "backbone must hold values, got parameters on the meta device; build it on another "
                "device"
            )
        self.backbone = backbone
        self.num_classes = num_classes
        self.input_size = probe_size(backbone, options, input_size)

        with undisturbed():
            probe = randomized_copy(backbone, seed=0)
            images = random_images((2, *self.input_size), seed=0)
            self._layout, raw, features = examine_features(self.name, probe, images)
        self.num_features = self._layout.channels
        self._native: NativeHead | None = None
        self.own_head: nn.Linear | None = None
        refusal = ""
        if head != "replace":
            try:
                with undisturbed():
                    self._native = find_native_head(probe, images, raw, features, self._layout)
                self._check_num_classes()
            except UnsuitedHeadError as error:
                refusal = f"{self.name} gives no exact class maps: its own head {error}"
        with undisturbed():
            examine_training(self.name, self._layout, probe, images, features)
        if head == "keep" and refusal:
            hint = "head='auto' or 'replace'"
            if getattr(backbone, "global_pool", None) == "token":
                hint += ", or model_options={'global_pool': 'avg'}"
            raise ValueError(f"{refusal}; use {hint}")
        if self._layout.tap is not None:
            record(backbone, self._layout.tap)
        if self._native is None:
            dropped = self._take_own_head(probe, images, options)
            lost = dropped or self._layout.tap is not None
            if refusal and lost and (pretrained or not by_name):
                unused = f", and {', '.join(dropped)} with any trained weights are not used"
                warnings.warn(
                    f"{refusal}. Mean pooling and a new linear layer replace it"
                    f"{unused if dropped else ''}; pass head='replace' to confirm",
                    stacklevel=2,
                )
        elif self._layout.tap is not None:
            with undisturbed():
                freeze_unused(backbone, probe, images, self._layout)

    @property
    def head_kind(self) -> HeadKind:
        """Kind of the head: ``"linear"``, ``"norm_linear"`` or ``"replaced"``."""
        if self._native is None:
            return "replaced"
        return "linear" if self._native.norm is None else "norm_linear"

    @property
    def architecture(self) -> dict[str, Any] | None:
        """Arguments that build the same classifier; ``None`` for a backbone not given by name."""
        if self._options is None:
            return None
        return {
            "backbone": self.name,
            "head": "replace" if self._native is None else "keep",
            "model_options": {
                name: value for name, value in self._options.items() if name not in _OF_MACHINE
            },
            "input_size": self.input_size,
        }

    def get_classifier(self) -> nn.Module:
        """Return the linear layer (or 1x1 convolution) that makes the logits."""
        return self._head_parts()[0]

    def class_bias(self) -> Tensor:
        """Return (C), the difference of logits without dropout and mean of the maps, a constant."""
        classifier, norm = self._head_parts()
        return class_bias(*linear_parts(classifier), norm)

    def forward(self, images: Tensor) -> CAMOutput:
        raw, features = self._layout.read(self.backbone, images)
        features = self._layout.maps(features, self.backbone, images)
        classifier, norm = self._head_parts()
        embeddings = pooled_embeddings(features, norm)
        if self.own_head is None:
            logits = self._layout.logits(self.backbone, raw)
        else:
            logits = self.own_head(self.dropout(embeddings))
        maps = class_maps(features, linear_parts(classifier)[0], norm)
        return CAMOutput(logits, maps, features, embeddings)

    def extra_repr(self) -> str:
        return (
            f"{self.name!r}, num_classes={self.num_classes}, num_features={self.num_features}, "
            f"head_kind={self.head_kind!r}"
        )

    def _head_parts(self) -> tuple[nn.Module, nn.LayerNorm | None]:
        if self._native is not None:
            return self._native.parts(self.backbone)
        assert self.own_head is not None
        return self.own_head, None

    def _take_own_head(
        self, probe: nn.Module, images: Tensor, options: Mapping[str, Any]
    ) -> list[str]:
        """Make the new head, and return the paths of the modules that it replaces."""
        like = next(self.backbone.parameters(), torch.empty(0))
        self.own_head = nn.Linear(
            self.num_features, self.num_classes, device=like.device, dtype=like.dtype
        )
        if self._layout.tap is None and not hasattr(self.backbone, "forward_features"):
            self.dropout = nn.Dropout(0.0)
            return []
        with undisturbed():
            dropped = drop_unused(self.backbone, probe, images, self._layout)
        heads = [part for name in dropped for part in probe.get_submodule(name).modules()]
        rates = [part.p for part in heads if isinstance(part, nn.Dropout)]
        rate = options.get("drop_rate", getattr(self.backbone, "drop_rate", [0.0, *rates][-1]))
        self.dropout = nn.Dropout(float(rate))
        return dropped

    def _check_num_classes(self) -> None:
        found = len(linear_parts(self.get_classifier())[0])
        if found != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, but the head of this {self.name} has "
                f"{found} classes; build it with num_classes={self.num_classes}, or pass "
                "head='replace'"
            )


def network_of(
    name: str, given: str | nn.Module, pretrained: bool, options: Mapping[str, Any], **fixed: Any
) -> nn.Module:
    """Return the given network, or build a timm model by name with the options."""
    check_bool("pretrained", pretrained)
    if not isinstance(given, (str, nn.Module)):
        raise TypeError(
            f"{name} must be the name of a timm model or an nn.Module, got {type(given).__name__}"
        )
    if not isinstance(given, str):
        if "_orig_mod" in given._modules:  # what torch.compile returns
            raise ValueError(
                "the network must not be compiled yet, because a copy of it is examined; compile "
                "the model that takes it instead"
            )
        if pretrained or options:
            raise ValueError(
                "pretrained and model_options need the name of a timm model, got the built "
                f"network {type(given).__name__}; leave them out"
            )
        return given
    taken = sorted({"pretrained", *fixed} & options.keys())
    if taken:
        raise ValueError(
            f"model_options must not hold {', '.join(taken)}, which the other arguments set"
        )
    try:
        return timm.create_model(given, pretrained=pretrained, **fixed, **options)
    except AssertionError as error:
        # timm asserts to refuse an option.
        raise ValueError(f"timm cannot build {given} with {dict(options)}: {error}") from error
