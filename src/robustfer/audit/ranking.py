"""Audit the labels of a data set: a ranking, suggestions, and a table of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer import _shown
from robustfer._checks import check_finite, check_shapes, check_whole_number
from robustfer._files import write_csv
from robustfer._inputs import check_ids, to_probabilities, to_tensor
from robustfer.audit.scores import checked, label_posterior, log_margin, neighbor_disagreement
from robustfer.noise import TransitionEstimate, fingerprint, transition_from_confident_joint

Score = Literal["posterior", "log_margin", "neighbors"]

# The confident joint counts mistakes of the network as wrong labels, so _RIGHT is added to its
# diagonal. It is the prior of the matrix with the weight of _JOINT verified labels per class. The
# predicted class shares are the prior of the shares with the weight of _PREDICTED verified labels.
# The values were chosen on one run of each of two networks, see docs/label_errors.md.
_RIGHT, _JOINT, _PREDICTED = 0.25, 10.0, 20.0


@dataclass(frozen=True)
class ClassSummary:
    """The audit of one class.

    Attributes:
        name: name of the class.
        given: number of samples with this label.
        agreed: number of these that the network predicts to have this label. If it is 0, the
            network has not learnt the class, and right labels of it look wrong too.
        wrong: expected number of wrong labels among them.
        true: expected number of samples that truly have this class.
        suggested: the most frequent class instead of a wrong label. ``None`` without a sample.
    """

    name: str
    given: int
    agreed: int
    wrong: float
    true: float
    suggested: str | None


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
        ranking: rows of the data set, most suspicious first, ``(N)`` int64.
        score: score of the ranking, in the order of the data set, ``(N)``.
        wrong_probability: probability that the given label is wrong, ``(N)``.
        suggestion: the most probable other class, ``(N)`` int64.
        neighbor_disagreement: share of similar samples with another label, ``(N)``. ``None``
            without embeddings.
        given: the labels in the data set, ``(N)`` int64.
        transition: the transition matrix used, ``(C, C)``.
        table: the audit of each class.
        classes: names of the classes.
        ids: names of the samples.
    """

    ranking: Tensor
    score: Tensor
    wrong_probability: Tensor
    suggestion: Tensor
    neighbor_disagreement: Tensor | None
    given: Tensor
    transition: Tensor
    table: tuple[ClassSummary, ...]
    classes: tuple[str, ...]
    ids: Sequence[str]

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the audited labels."""
        return fingerprint(self.ids, self.given, self.classes)

    def text(self) -> str:
        """Return the table of the classes as text."""
        title = ("label", "given", "network agrees", "look wrong", "expected in truth")
        rows = [(*title, "mostly instead")]
        rows += [
            (
                one.name,
                f"{one.given:,}",
                f"{100 * one.agreed / max(1, one.given):.0f} %",
                f"{one.wrong:,.0f} ({100 * one.wrong / max(1, one.given):.0f} %)",
                f"{one.true:,.0f}",
                one.suggested or "",
            )
            for one in self.table
        ]
        return _shown.table(rows, "<>>>><")

    def write(self, path: str | Path, *, count: int | None = None) -> None:
        """Write the ranking as a csv file, most suspicious label first.

        A name that a spreadsheet would run as a formula gets a leading apostrophe.

        Args:
            path: the file to write. An existing file is replaced.
            count: number of rows, at least 1. Default: all.

        Raises:
            OSError: the file cannot be written.
        """
        count = len(self.ranking) if count is None else check_whole_number("count", count, 1)
        rows = self.ranking[:count]
        columns = (self.given[rows], self.suggestion[rows], self.wrong_probability[rows])
        lines = [
            (self.ids[row], self.classes[label], self.classes[other], f"{wrong:.6g}")
            for row, label, other, wrong in zip(
                rows.tolist(), *map(Tensor.tolist, columns), strict=True
            )
        ]
        write_csv(Path(path), ("id", "given", "suggestion", "wrong_probability"), lines)


def audit(
    given: Tensor | ArrayLike,
    probabilities: Tensor | ArrayLike,
    *,
    transition: TransitionEstimate | Tensor | ArrayLike | None = None,
    embeddings: Tensor | ArrayLike | None = None,
    num_neighbors: int = 20,
    score: Score | Tensor | ArrayLike = "posterior",
    classes: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
) -> Audit:
    r"""Rank the labels of a data set by how wrong they look.

    Pass the predictions of a training on these very labels, such as
    :meth:`robustfer.state.TrainingDynamics.probabilities`, or predictions of held-out folds. The
    default ranking is by the probability :math:`w` that the label is wrong:

    .. math:: \frac{w_i}{1 - w_i}
        = \frac{\sum_{k \neq y_i} p_{ik} \, v_k T_{k y_i}}{p_{i y_i} \, v_{y_i} T_{y_i y_i}},
        \qquad c_i = \operatorname{argmax}_{k \neq y_i} p_{ik} \, v_k

    with the suggestion :math:`c`. Without verified labels :math:`v = 1`, and :math:`T` is the
    confident joint with 0.25 added to its diagonal, rows normalised. With an estimate from verified
    labels, :math:`v` is the true share of each class divided by its predicted share. The joint is
    then a prior with the weight of ten verified labels per class. The predicted shares are a prior
    with the weight of twenty verified labels.

    Args:
        given: :math:`y`, the labels in the data set.
        probabilities: :math:`p`, predicted probabilities.
        transition: :math:`T`, how labels go wrong: an estimate of
            :func:`robustfer.noise.transition_from_verified`, or a matrix. A matrix is used
            unchanged, with :math:`v = 1`. Default: from the predictions, as above.
        embeddings: pooled features, to compare each label with those of similar samples.
        num_neighbors: number of similar samples to compare with.
        score: score of the ranking: ``"posterior"``, ``"log_margin"``, ``"neighbors"`` (needs
            embeddings), or your own score for each sample. A higher one is more suspicious.
        classes: names of the classes. Default: their numbers.
        ids: names of the samples. Default: their rows.

    Shape:
        given integers ``(N)``, probabilities ``(N, C)``, transition ``(C, C)``, embeddings
        ``(N, D)``.

    Raises:
        ValueError: an argument does not fit the others, a row is not a distribution, or a label is
            not a class.

    Reference:
        Northcutt et al., Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021.

    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7]]
    >>> result = audit([0, 1, 1, 1], probabilities, classes=["sad", "glad"])
    >>> result.ranking
    tensor([1, 3, 2, 0])
    >>> result.suggestion
    tensor([1, 0, 0, 0])
    """
    labels, rows = checked(given, probabilities)
    num_samples, num_classes = rows.shape
    names = _class_names(classes, num_classes)
    samples = _RowNames(num_samples) if ids is None else check_ids(ids, count=num_samples)
    matrix, weights = transition_and_shares(transition, labels, rows)
    posterior = label_posterior(labels, rows, matrix * weights[:, None])
    suggestion = label_posterior(labels, rows, weights[:, None].expand_as(matrix)).suggestion
    disagreement = None
    if embeddings is not None:
        disagreement = neighbor_disagreement(labels, embeddings, num_neighbors=num_neighbors)
    values = _score(score, labels, rows, posterior.log_odds, disagreement)
    return Audit(
        ranking=values.argsort(descending=True, stable=True),
        score=values,
        wrong_probability=posterior.wrong_probability,
        suggestion=suggestion,
        neighbor_disagreement=disagreement,
        given=labels,
        transition=matrix,
        table=_table(
            labels,
            labels[rows.argmax(dim=1) == labels],
            suggestion,
            posterior.wrong_probability,
            posterior.class_counts,
            names,
        ),
        classes=names,
        ids=samples,
    )


def transition_and_shares(
    transition: TransitionEstimate | Tensor | ArrayLike | None, labels: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the transition matrix, and each class's true share divided by its predicted one."""
    num_classes = rows.shape[1]
    even = torch.ones(num_classes, dtype=torch.float64, device="cpu")
    if transition is not None and not isinstance(transition, TransitionEstimate):
        matrix = to_probabilities("transition", transition)
        check_shapes(probabilities=(rows, "N C"), transition=(matrix, "C C"))
        return matrix, even.to(matrix)
    joint = transition_from_confident_joint(labels, rows) + _RIGHT * torch.diag(even)
    joint /= 1 + _RIGHT
    if transition is None:
        return joint, even
    check_shapes(probabilities=(rows, "N C"), transition=(transition.matrix, "C C"))
    verified = transition.counts.sum(dim=1, keepdim=True)
    matrix = (verified * transition.matrix + _JOINT * joint) / (verified + _JOINT)
    predicted = rows.mean(dim=0, dtype=torch.float64).clamp(min=1e-6)
    total = verified.sum()
    shares = (total * transition.shares + _PREDICTED * predicted) / (total + _PREDICTED)
    return matrix, shares / predicted


class _RowNames(Sequence[str]):
    """Row numbers as names, made on access. A million texts would need more memory than rows."""

    def __init__(self, size: int) -> None:
        self._rows = range(size)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        return str(self._rows[place])


def _class_names(classes: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    if classes is None:
        return tuple(map(str, range(num_classes)))
    return tuple(check_ids(classes, name="classes", count=num_classes, unique=True))


def _score(
    score: Score | Tensor | ArrayLike,
    labels: Tensor,
    rows: Tensor,
    log_odds: Tensor,
    disagreement: Tensor | None,
) -> Tensor:
    if not isinstance(score, str):
        values = to_tensor("score", score)
        check_shapes(probabilities=(rows, "N C"), score=(values, "N"))
        check_finite(score=values)
        return values
    if score == "posterior":
        return log_odds
    if score == "log_margin":
        return log_margin(labels, rows)
    if score != "neighbors":
        raise ValueError(
            f"score must be 'posterior', 'log_margin', 'neighbors' or a number per sample, got "
            f"{score!r}"
        )
    if disagreement is None:
        raise ValueError("score='neighbors' needs embeddings, got none; pass embeddings=")
    return disagreement


def _table(
    labels: Tensor,
    agreed: Tensor,
    suggestion: Tensor,
    wrong: Tensor,
    counts: Tensor,
    names: tuple[str, ...],
) -> tuple[ClassSummary, ...]:
    size = len(names)
    given = labels.bincount(minlength=size)
    pairs = labels * size + suggestion
    changes = pairs.bincount(wrong.double(), minlength=size**2).view(size, size)
    same = agreed.bincount(minlength=size)
    columns = (given, same, changes.sum(dim=1), counts, changes.argmax(dim=1))
    return tuple(
        ClassSummary(name, number, kept, share, true, names[other] if number else None)
        for name, number, kept, share, true, other in zip(
            names, *map(Tensor.tolist, columns), strict=True
        )
    )
