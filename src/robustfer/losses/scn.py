"""The loss of SCN, the self-cure network. Its relabelling is in ``robustfer.state``."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor, nn

from robustfer._checks import Variant, check_bool, check_range, check_variant
from robustfer.functional._cross_entropy import register_class_weights
from robustfer.functional._gather import gather_rows, several_processes
from robustfer.functional._precision import full_precision
from robustfer.functional.ranking import (
    check_bias,
    check_high_ratio,
    importance_weighted_cross_entropy,
    ranked,
)
from robustfer.losses._terms import sum_of_terms
from robustfer.losses.rank_regularization import make_margin, margin_text


class SCNLoss(nn.Module):
    r"""Cross entropy of logits weighted by importance, plus a ranking of the importances.

    .. math::
        L = (1 - \gamma)\, \mathrm{CE}\bigl(\alpha (z - b) + b,\; y\bigr)
            + \gamma \max\bigl(0,\; \delta - (\bar\alpha_\text{high} - \bar\alpha_\text{low})\bigr)

    with logits :math:`z`, target :math:`y`, importance :math:`\alpha` and its means in the two
    groups. :math:`b` is the classifier's bias parameter. Without it the whole logits are weighted.

    ``variant="official"`` follows the authors' code. It adds the two terms as they are, which gives
    twice the paper's loss, and always weights the whole logits. See also
    :func:`robustfer.functional.rank_regularization`.

    Args:
        margin: :math:`\delta`, the gap required between the means of the two groups. The paper uses
            0.15 with a batch of 1,024; its authors advise 0.07 for a batch of 64.
        high_ratio: share of the batch in the high group, in (0, 1).
        rank_weight: :math:`\gamma` in [0, 1], default 0.5; leave it out for ``"official"``.
        variant: ``"paper"`` or ``"official"``.
        learnable_margin: make the margin a parameter, see :class:`RankRegularizationLoss`.
        gather: rank the joined batch of all processes. Value and gradient under
            ``DistributedDataParallel`` are then those of one process on the joined batch. See
            :class:`RankRegularizationLoss`.
        class_weights: weight of each class in the cross entropy, ``(C)``, like torch's ``weight``;
            default: all 1. It moves with the module, but is not in its ``state_dict``.

    Shape:
        logits ``(B, C)``, target ``(B)`` int64 or ``(B, C)`` probabilities, importance ``(B)`` in
        [0, 1], bias ``(C)`` of the classifier -> scalar; float32 for half inputs.

    Raises:
        TypeError: ``learnable_margin`` or ``gather`` is not a bool.
        ValueError: an option or an argument does not fit.

    Reference:
        Wang et al., Suppressing Uncertainties for Large-Scale Facial Expression Recognition,
        CVPR 2020.

    >>> import torch
    >>> criterion = SCNLoss(margin=0.15)
    >>> logits, target = torch.zeros(3, 7), torch.tensor([3, 0, 6])
    >>> importance = torch.tensor([0.9, 0.8, 0.8])
    >>> criterion(logits, target, importance)
    tensor(1.0230)
    >>> criterion.terms(logits, target, importance)
    {'weighted_cross_entropy': tensor(0.9730), 'rank_regularization': tensor(0.0500)}
    """

    __call__: Callable[..., Tensor]
    margin: float | nn.Parameter
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        margin: float = 0.15,
        high_ratio: float = 0.7,
        rank_weight: float | None = None,
        variant: Variant = "paper",
        learnable_margin: bool = False,
        gather: bool = True,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        register_class_weights(self, class_weights)
        self.margin = make_margin(margin, learnable=learnable_margin)
        self.high_ratio = check_high_ratio(high_ratio)
        if variant == "official" and rank_weight is not None:
            raise ValueError(
                f"rank_weight must be left out for variant='official', got {rank_weight}; "
                "that variant adds the two terms unweighted"
            )
        if variant == "paper":
            rank_weight = check_range(
                "rank_weight", 0.5 if rank_weight is None else rank_weight, 0, 1
            )
        self.rank_weight = rank_weight
        self.variant = check_variant(variant)
        self.gather = check_bool("gather", gather)

    def terms(
        self, logits: Tensor, target: Tensor, importance: Tensor, bias: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, for logging; :meth:`forward` is their sum."""
        if self.variant == "official":
            check_bias(bias, logits)
            bias = None
        entropy = importance_weighted_cross_entropy(
            logits, target, importance, bias=bias, class_weights=self.class_weights
        )
        if self.rank_weight is not None:
            entropy = (1 - self.rank_weight) * entropy
        if self.gather and several_processes():
            own: int | Tensor
            total: int | Tensor
            # torch divides the mean by the batch here, else by the sum of the class weights.
            if self.class_weights is None or target.ndim == 2:
                own = len(importance)
                (importance,), _ = gather_rows(importance)
                total = len(importance)
            else:
                weights = full_precision(self.class_weights)[target]
                own = weights.sum()
                (importance, weights), _ = gather_rows(importance, weights)
                total = weights.sum()
            # DistributedDataParallel averages over processes. The factor gives each sample the same
            # weight in batches of different sizes.
            entropy = entropy * (own * dist.get_world_size() / total)
        rank = ranked(
            importance,
            self.margin,
            self.high_ratio,
            self.variant,
            weight=1.0 if self.rank_weight is None else self.rank_weight,
        )
        return {"weighted_cross_entropy": entropy, "rank_regularization": rank}

    forward = sum_of_terms(terms)

    def extra_repr(self) -> str:
        return (
            f"{margin_text(self.margin)}, high_ratio={self.high_ratio}, "
            f"rank_weight={self.rank_weight}, variant={self.variant!r}, gather={self.gather}"
        )
