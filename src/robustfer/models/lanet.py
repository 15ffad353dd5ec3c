"""The network of LA-Net: a classifier, a landmark space, an estimator and two projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from robustfer._checks import Variant, check_floating, check_shapes, check_whole_number
from robustfer.functional._precision import full_precision
from robustfer.models._placing import fit_to
from robustfer.models.cam_classifier import CAMClassifier
from robustfer.models.label_distribution import LabelDistributionEstimator
from robustfer.models.landmark_branch import LandmarkBranch
from robustfer.models.landmark_classifier import LandmarkClassifier, LandmarkClassifierOutput
from robustfer.models.landmark_coordinates import LandmarkCoordinates


class ProjectionHead(nn.Module):
    r"""Project embeddings to unit vectors by two linear layers with a ReLU between.

    .. math:: e = \frac{W_2 \max(0, W_1 f + b_1) + b_2}{\|W_2 \max(0, W_1 f + b_1) + b_2\|}

    Args:
        in_dim: D, the width of the embeddings.
        dim: d, the width of the hidden layer and of the projection.

    Shape:
        embeddings ``(B, D)`` -> ``(B, d)``, rows of unit length; float32 for half inputs.
    """

    __call__: Callable[..., Tensor]

    def __init__(self, in_dim: int, *, dim: int = 64) -> None:
        super().__init__()
        in_dim = check_whole_number("in_dim", in_dim, 1)
        dim = check_whole_number("dim", dim, 1)
        self.hidden = nn.Linear(in_dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        check_shapes(embeddings=(embeddings, f"B {self.hidden.in_features}"))
        check_floating(embeddings=embeddings)
        # Coordinates of landmarks are float32, also beside a network in half precision.
        embeddings = embeddings.to(self.hidden.weight.dtype)
        projected = self.output(F.relu(self.hidden(embeddings)))
        return F.normalize(full_precision(projected), dim=1)


class LANetOutput(NamedTuple):
    """Output of :class:`LANetModel`, with the names that the loss and the bank use.

    Attributes:
        logits: (B, C).
        attention: (B, C, H, W) class maps.
        embeddings: (B, D) input of the classifier, the expression space.
        landmark_embeddings: (B, E) the landmark space.
        expression_query: (B, d) projected embeddings, rows of unit length. Those of the averaged
            network are the ``expression_key``.
        landmark_query: (B, d) projected landmark embeddings, rows of unit length. Those of the
            averaged network are the ``landmark_key``. Zeros for faces that are not ``known``.
        heatmaps: (B, K, h, w) of the landmarks; ``None`` without a landmark branch.
        estimate: (B, C) label distributions; ``None`` without ``index``.
        known: (B) bool, faces with all points; ``None`` if the landmark space needs no points.
    """

    logits: Tensor
    attention: Tensor
    embeddings: Tensor
    landmark_embeddings: Tensor
    expression_query: Tensor
    landmark_query: Tensor
    heatmaps: Tensor | None
    estimate: Tensor | None
    known: Tensor | None


class LANetModel(nn.Module):
    """Combine all parts of LA-Net's network, as one module to train, average, save and wrap.

    It has a classifier, a landmark space, a :class:`LabelDistributionEstimator`, and a
    :class:`ProjectionHead` for each space. The landmark space is one of:

    - the landmark branch of a :class:`LandmarkClassifier`, as in the paper;
    - a :class:`LandmarkBranch` that shares nothing with the classifier;
    - :class:`LandmarkCoordinates`, which need no branch. This is beyond the paper.

    Inference needs only the classifier: :func:`robustfer.models.strip_for_inference`.

    Args:
        model: a :class:`LandmarkClassifier`, or a :class:`CAMClassifier` with a
            ``landmark_space``. It becomes a part of this module.
        landmark_space: a :class:`LandmarkBranch` or :class:`LandmarkCoordinates`; ``None`` for a
            :class:`LandmarkClassifier`, which has its own.
        num_neighbors: number of neighbours in each space, at most.
        dim: d, the width of queries and keys, and of the :class:`robustfer.state.FeatureQueue`.
        gather: estimate from the joined batch of all processes. With one process it has no effect.
        variant: ``"paper"``, or ``"official"``, where a sample may be its own neighbour.

    Shape:
        images ``(B, channels, H, W)``, landmarks ``(B, K, 2)`` in pixels, NaN where unknown (only
        for coordinates), index ``(B)`` int64 (only for an estimate) -> :class:`LANetOutput`.

    Raises:
        TypeError: there is no landmark space, or there are two.
        ValueError: an option or an argument does not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> import torch
    >>> classifier = CAMClassifier("resnet10t", num_classes=7)
    >>> model = LANetModel(LandmarkClassifier(classifier, num_landmarks=19))
    >>> output = model(torch.rand(2, 3, 64, 64), index=torch.tensor([4, 0]))
    >>> output.expression_query.shape, output.landmark_query.shape
    (torch.Size([2, 64]), torch.Size([2, 64]))
    >>> output.heatmaps.shape, output.estimate.shape
    (torch.Size([2, 19, 16, 16]), torch.Size([2, 7]))
    """

    __call__: Callable[..., LANetOutput]

    def __init__(
        self,
        model: CAMClassifier | LandmarkClassifier,
        landmark_space: LandmarkBranch | LandmarkCoordinates | None = None,
        *,
        num_neighbors: int = 8,
        dim: int = 64,
        gather: bool = True,
        variant: Variant = "paper",
    ) -> None:
        super().__init__()
        if isinstance(model, LandmarkClassifier) and landmark_space is None:
            widths = model.model.num_features, model.dim
        elif isinstance(model, CAMClassifier) and isinstance(
            landmark_space, (LandmarkBranch, LandmarkCoordinates)
        ):
            widths = model.num_features, landmark_space.dim
        else:
            raise TypeError(
                "model must be a LandmarkClassifier without a landmark_space, or a CAMClassifier "
                "with landmark_space=LandmarkBranch(...) or LandmarkCoordinates(...); got "
                f"{type(model).__name__} with {type(landmark_space).__name__}"
            )
        self.model = model
        self.landmark_space = landmark_space
        self.estimator = LabelDistributionEstimator(
            *widths, num_neighbors=num_neighbors, gather=gather, variant=variant
        )
        self.expression_projection, self.landmark_projection = (
            ProjectionHead(width, dim=dim) for width in widths
        )
        fit_to(model, self.estimator, self.expression_projection, self.landmark_projection)

    @property
    def classifier(self) -> CAMClassifier:
        """The :class:`CAMClassifier` in ``model``, which makes the logits."""
        return self.model if isinstance(self.model, CAMClassifier) else self.model.model

    def forward(
        self, images: Tensor, landmarks: Tensor | None = None, index: Tensor | None = None
    ) -> LANetOutput:
        output = self.model(images)
        heatmaps = known = estimate = None
        if isinstance(output, LandmarkClassifierOutput):
            heatmaps, landmark_embeddings = output.heatmaps, output.landmark_embeddings
        elif not isinstance(self.landmark_space, LandmarkCoordinates):
            assert self.landmark_space is not None
            heatmaps, landmark_embeddings = self.landmark_space(images)
        elif landmarks is None:
            raise ValueError(
                "landmarks must be given for a landmark space of LandmarkCoordinates, got None; "
                "call the model with the batch's landmarks"
            )
        else:
            landmark_embeddings = self.landmark_space(landmarks)
            known = self.landmark_space.known(landmarks)
        if index is not None:
            estimate = self.estimator(output.embeddings, landmark_embeddings, output.logits, index)
        landmark_query = self.landmark_projection(landmark_embeddings)
        if known is not None:
            # Zeros have no direction. A query that they share would draw all classes to one point.
            landmark_query = landmark_query.where(known[:, None], 0.0)
        return LANetOutput(
            logits=output.logits,
            attention=output.attention,
            embeddings=output.embeddings,
            landmark_embeddings=landmark_embeddings,
            expression_query=self.expression_projection(output.embeddings),
            landmark_query=landmark_query,
            heatmaps=heatmaps,
            estimate=estimate,
            known=known,
        )
