"""The contrast between the expression space and the landmark space of faces (LA-Net)."""

from __future__ import annotations

import torch
from torch import Tensor

from robustfer._checks import (
    Variant,
    check_floating,
    check_int64,
    check_probabilities,
    check_range,
    check_shapes,
    check_variant,
    check_within,
    values_are_checked,
)
from robustfer.functional._contrast_kernel import contrast_with_queues
from robustfer.functional._precision import full_precision


def expression_landmark_contrast(
    expression_query: Tensor,
    landmark_query: Tensor,
    expression_key: Tensor,
    landmark_key: Tensor,
    pseudo_label: Tensor,
    expression_queue: Tensor,
    landmark_queue: Tensor,
    queue_label: Tensor,
    *,
    temperature: float = 0.1,
    variant: Variant = "paper",
) -> Tensor:
    r"""Contrast expressions with landmarks, and landmarks with expressions.

    .. math::
        \ell_i = \frac{1}{|P(i)|} \sum_{j \in P(i)} -\log
            \frac{e^{a_i \cdot b_j / T}}{e^{a_i \cdot b_j / T}
                + \sum_{m : y_m \ne y_i} e^{a_i \cdot q_m / T}},
        \qquad P(i) = \{j : y_j = y_i\}

    with :math:`a` the queries of one space, and :math:`b` the batch's keys and :math:`q` the queue
    of the other space. The loss is the mean of :math:`\ell_i`, summed over both directions. A
    sample is a positive of itself. Negatives come only from the queue, without entries of the
    sample's own label. A sample without negatives adds zero.

    Gradients reach queries and keys, never the queues. They are computed together with the value,
    and memory does not grow with the queues. A second derivative raises an error.

    Unfilled slots of the queue are left out. ``variant="official"`` follows the authors' code: it
    takes these random unit vectors as negatives of every sample.

    Args:
        expression_query: the images in the expression space, rows of unit length.
        landmark_query: the same images in the landmark space, rows of unit length.
        expression_key: the same images in the expression space, from the averaged network.
        landmark_key: the same images in the landmark space, from the averaged network.
        pseudo_label: :math:`y`, labels of the batch, see :func:`pseudo_labels`.
        expression_queue: keys of earlier batches in the expression space; rows are entries.
        landmark_queue: keys of the same entries in the landmark space.
        queue_label: pseudo labels of the entries; :data:`robustfer.functional.UNFILLED` for a slot
            that is not filled yet.
        temperature: :math:`T`, divides the similarities.
        variant: ``"paper"`` or ``"official"``, see above.

    Shape:
        expression_query, landmark_query, expression_key, landmark_key ``(B, d)``, pseudo_label
        ``(B)`` int64, expression_queue, landmark_queue ``(M, d)``, queue_label ``(M)`` int64 ->
        scalar; float32 for half inputs.

    Raises:
        ValueError: shapes, dtypes, devices or an option do not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> from robustfer.functional import UNFILLED
    >>> faces, label = torch.eye(2), torch.tensor([0, 1])
    >>> queue, queue_label = torch.eye(2), torch.tensor([0, 1])
    >>> expression_landmark_contrast(
    ...     faces, faces, faces, faces, label, queue, queue, queue_label, temperature=1.0
    ... )
    tensor(0.6265)
    >>> expression_landmark_contrast(
    ...     faces, faces, faces, faces, label, queue, queue, torch.full((2,), UNFILLED)
    ... )
    tensor(0.)
    """
    spaces = {
        "expression_query": (expression_query, "B d"),
        "landmark_query": (landmark_query, "B d"),
        "expression_key": (expression_key, "B d"),
        "landmark_key": (landmark_key, "B d"),
        "expression_queue": (expression_queue, "M d"),
        "landmark_queue": (landmark_queue, "M d"),
    }
    check_shapes(**spaces, pseudo_label=(pseudo_label, "B"), queue_label=(queue_label, "M"))
    check_floating(**{name: rows for name, (rows, _) in spaces.items()})
    check_int64(pseudo_label=pseudo_label, queue_label=queue_label)
    check_range("temperature", temperature, 0.0, open_low=True)
    check_variant(variant)
    queries = full_precision(expression_query), full_precision(landmark_query)
    dtype = torch.promote_types(queries[0].dtype, queries[1].dtype)
    rows = [row.to(dtype) for row in (*queries, expression_key, landmark_key)]
    loss: Tensor = contrast_with_queues(
        *rows,
        pseudo_label,
        # The kernel converts half-precision queues chunk by chunk, to avoid a large copy.
        expression_queue.detach(),
        landmark_queue.detach(),
        queue_label,
        temperature,
        variant == "paper",
        torch.is_grad_enabled() and any(row.requires_grad for row in rows),
    )[0]
    return loss


def pseudo_labels(soft_target: Tensor, index: Tensor, *, threshold: float = 0.7) -> Tensor:
    r"""Return the class that a distribution is sure of, or a label of the sample's own.

    .. math::
        \hat y_i = \operatorname{argmax}_c q_{i,c} \text{ if } \max_c q_{i,c} \ge \tau,
        \text{ else } -(n_i + 1)

    with :math:`n_i` the sample's row in the data set. An ambiguous sample is a positive only of
    itself, and has the same label as its older entries in a queue. The authors' code takes
    :math:`-n_i`, which is class 0 for the first sample.

    Args:
        soft_target: :math:`q`, distributions whose rows sum to 1.
        index: rows of the samples in the data set.
        threshold: :math:`\tau` in [0, 1].

    Shape:
        soft_target ``(B, C)``, index ``(B)`` int64 -> ``(B)`` int64.

    Raises:
        ValueError: shapes, dtypes, devices or the threshold do not fit.

    Reference:
        Wu and Cui, LA-Net: Landmark-Aware Learning for Reliable Facial Expression Recognition
        under Label Noise, ICCV 2023.

    >>> pseudo_labels(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([5, 0]))
    tensor([ 0, -1])
    """
    check_shapes(soft_target=(soft_target, "B C"), index=(index, "B"))
    check_probabilities(soft_target=soft_target)
    check_int64(index=index)
    check_range("threshold", threshold, 0.0, 1.0)
    if values_are_checked():
        check_within(0, 2**63 - 1, index=index)
    confidence, label = soft_target.detach().max(dim=1)
    return torch.where(confidence >= threshold, label, -1 - index)
