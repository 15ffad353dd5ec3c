"""A head that estimates how much to trust each sample (SCN)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import check_floating, check_shapes, check_whole_number
from robustfer.functional._precision import full_precision, without_autocast
from robustfer.models.outputs import check_cam_output


class ImportanceHead(nn.Module):
    r"""Compute one importance per sample by a linear layer and a sigmoid.

    .. math:: \alpha_n = \operatorname{sigmoid}(w \cdot f_n + b)

    It computes in float32 for half inputs, also under autocast: in half precision a large sigmoid
    is exactly 1 and stops learning. Importances often collapse to 1: look at
    :func:`robustfer.functional.importance_health` each epoch.

    Args:
        dim: D, the width of the embeddings.

    Shape:
        embeddings ``(B, D)`` -> importance ``(B)`` in [0, 1].

    Raises:
        ValueError: ``dim`` is not a positive whole number, or not the width of the embeddings.

    Reference:
        Wang et al., Suppressing Uncertainties for Large-Scale Facial Expression Recognition,
        CVPR 2020.

    >>> ImportanceHead(512)(torch.zeros(4, 512)).shape
    torch.Size([4])
    """

    __call__: Callable[..., Tensor]

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(check_whole_number("dim", dim, 1), 1)

    def forward(self, embeddings: Tensor) -> Tensor:
        check_shapes(embeddings=(embeddings, f"B {self.linear.in_features}"))
        check_floating(embeddings=embeddings)
        embeddings = full_precision(embeddings)
        weight, bias = (p.to(embeddings.dtype) for p in (self.linear.weight, self.linear.bias))
        with without_autocast(embeddings):
            return torch.sigmoid(F.linear(embeddings, weight, bias).squeeze(1))


class ImportanceOutput(NamedTuple):
    """The fields of a :class:`robustfer.models.CAMOutput`, and the importance of each sample.

    Attributes:
        logits: (B, C), not weighted by the importance.
        importance: (B) in [0, 1].
    """

    logits: Tensor
    importance: Tensor
    attention: Tensor
    features: Tensor
    embeddings: Tensor


class ImportanceClassifier(nn.Module):
    """Add an importance head to a classifier, as one module to train, save and wrap.

    Inference does not need the head: :func:`robustfer.models.strip_for_inference` removes it.

    Args:
        model: the classifier, which becomes a part of this module: a :class:`CAMClassifier`, or any
            module that returns a :class:`CAMOutput` and has the width of its embeddings as
            ``num_features``.

    Shape:
        images ``(B, channels, height, width)`` -> :class:`ImportanceOutput`.

    Raises:
        ValueError: the model has no ``num_features``.
        TypeError: at a call, the model does not return a :class:`CAMOutput`; at ``bias``, it has no
            ``get_classifier()``.

    >>> from robustfer.models import CAMClassifier
    >>> classifier = CAMClassifier(
    ...     "resnet18", num_classes=7, model_options={"output_stride": 8}
    ... )
    >>> output = ImportanceClassifier(classifier)(torch.rand(2, 3, 48, 48))
    >>> output.logits.shape, output.importance.shape
    (torch.Size([2, 7]), torch.Size([2]))
    """

    __call__: Callable[..., ImportanceOutput]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        width = getattr(model, "num_features", None)
        if not isinstance(width, int):
            raise ValueError(
                f"model must have the width of its embeddings as num_features, got {width!r} from "
                f"{type(model).__name__}; set self.num_features in its __init__, take it out of "
                "any wrapper, or wrap a network that returns maps in CAMClassifier"
            )
        self.model = model
        self.importance_head = ImportanceHead(width)
        parameters = list(model.parameters())
        if parameters:
            # The last one is the classifier's, if the model's parts are on several devices.
            self.importance_head.to(parameters[-1].device)

    @property
    def bias(self) -> Tensor | None:
        """The classifier's bias parameter (C) or ``None``, for losses that do not weight it.

        The classifier is the layer that the model's ``get_classifier()`` returns.
        """
        get_classifier: Any = getattr(self.model, "get_classifier", None)
        if get_classifier is None:
            # Not an AttributeError, which nn.Module would replace by one that says less.
            raise TypeError(
                f"model must have get_classifier(), but {type(self.model).__name__} has none; add "
                "a method that returns the linear layer"
            )
        bias: Tensor | None = get_classifier().bias
        return bias

    def forward(self, images: Tensor) -> ImportanceOutput:
        output = check_cam_output(self.model(images), self.model)
        importance = self.importance_head(output.embeddings)
        return ImportanceOutput(importance=importance, **output._asdict())
