"""Turn predictions, given labels and verified ones into soft labels for a second training."""

from __future__ import annotations

from numpy.typing import ArrayLike
from torch import Tensor

from robustfer._checks import check_range
from robustfer.audit.ranking import transition_and_shares
from robustfer.audit.scores import checked
from robustfer.noise import TransitionEstimate


def corrected_labels(
    given: Tensor | ArrayLike,
    probabilities: Tensor | ArrayLike,
    *,
    transition: TransitionEstimate | Tensor | ArrayLike | None = None,
    evidence: float = 0.5,
) -> Tensor:
    r"""Return what the true labels probably are, as soft labels for a second training.

    .. math:: q_{ik} \propto p_{ik} \, v_k \, T_{k y_i}^{e}

    :math:`T` and :math:`v` are those of :func:`robustfer.audit.audit`. With an exponent of 1 this
    is the posterior of the true label, if predictions and labels were independent. They are not: a
    network that was trained on the labels repeats some of the wrong ones. An exponent below 1
    counts the label as less evidence.

    Args:
        given: the labels :math:`y` in the data set.
        probabilities: predictions :math:`p` of a training on these very labels, such as
            :func:`robustfer.audit.read_probabilities` reads from a run.
        transition: as for :func:`robustfer.audit.audit`. An estimate from verified labels helps
            most.
        evidence: the exponent :math:`e`, in [0, 1]. At 0 the given labels do not count.

    Shape:
        given integers ``(N)``, probabilities ``(N, C)``, transition ``(C, C)`` -> ``(N, C)``. The
        rows sum to 1.

    Raises:
        ValueError: an argument does not fit the others, a row is not a distribution, or a label is
            not a class.

    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]
    >>> matrix = [[0.7, 0.3], [0.1, 0.9]]
    >>> corrected_labels([0, 1, 1], probabilities, transition=matrix).round(decimals=2)
    tensor([[0.9600, 0.0400],
            [0.7000, 0.3000],
            [0.0600, 0.9400]], dtype=torch.float64)
    """
    evidence = check_range("evidence", evidence, 0, 1)
    labels, rows = checked(given, probabilities)
    matrix, shares = transition_and_shares(transition, labels, rows)
    factors = (matrix**evidence * shares[:, None]).to(rows.dtype).T
    found = factors[labels].mul_(rows)
    total = found.sum(dim=1, keepdim=True)
    # Where prediction and label exclude each other, the prediction is kept.
    return found.div_(total).where(total > 0, rows)
