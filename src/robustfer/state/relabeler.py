"""Give a sample the label that the network prefers (SCN)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from robustfer._checks import (
    check_bool,
    check_choice,
    check_floating,
    check_range,
    check_shapes,
    check_whole_number,
    check_within,
    values_are_checked,
)
from robustfer.functional._precision import full_precision
from robustfer.functional.ranking import (
    check_bias,
    check_high_ratio,
    check_importance,
    low_importance,
    weighted_logits,
)
from robustfer.state import _label_checks as checks
from robustfer.state._change_journal import ChangeReason
from robustfer.state._distributed import gather_in_rank_order
from robustfer.state._rows import finite_rows
from robustfer.state.label_store import LabelStore

Scope = Literal["low_importance", "all"]
Weighting = Literal["importance", "none"]


class Relabeler:
    r"""Change labels in a :class:`LabelStore` where the network clearly prefers another class.

    .. math::
        y \leftarrow \operatorname{argmax}_c p_c \quad\text{where}\quad \max_c p_c - p_y > \delta

    with probabilities :math:`p` and the current label :math:`y`. By default only the least
    important samples of a batch can change, only from ``start_epoch`` on, and not again during
    ``cooldown``. A batch too small for a high group changes nothing. A label that a person decided
    never changes, see :meth:`LabelStore.apply_decisions`. All state is in the store: labels, and a
    journal with the confidence :math:`\max_c p_c` of each change. A sample whose prediction or
    importance is not finite keeps its label.

    With several processes :meth:`update` first joins the batches of all in rank order. Each store
    then equals that of one process on the joined batch.

    Args:
        labels: the store that the loop reads its targets from.
        margin: :math:`\delta` in [0, 1), by how much the other class must be more probable.
        scope: samples that can change: ``"low_importance"``, the low group as in the paper, or
            ``"all"``, as in the authors' code.
        weighting: ``"importance"`` takes probabilities of logits weighted by importance, as in
            training, so unimportant samples change less easily. ``"none"`` takes those of the
            logits.
        high_ratio: share of the batch in the high group, in (0, 1), as in the loss.
        start_epoch: first epoch that changes labels, as the loop counts. The paper's 10 counts
            from 1.
        cooldown: number of epochs that a label stays after its last change. With 0, as in the
            authors' code, an unsure network changes labels back and forth every epoch.

    Raises:
        TypeError: ``labels`` is not a LabelStore.
        ValueError: an option does not fit.

    Reference:
        Wang et al., Suppressing Uncertainties for Large-Scale Facial Expression Recognition,
        CVPR 2020.

    >>> labels = LabelStore(torch.tensor([0, 0, 1]), num_classes=2)
    >>> relabeler = Relabeler(labels, margin=0.2, start_epoch=10)
    >>> index, importance = torch.tensor([0, 1, 2]), torch.tensor([0.9, 0.2, 0.8])
    >>> logits = torch.tensor([[0.0, 9.0], [0.0, 9.0], [0.0, 9.0]])
    >>> relabeler.update(index, logits, importance, step=500, epoch=10)  # how many changed
    1
    >>> labels(index)  # the first is too important to be doubted
    tensor([0, 1, 1])
    >>> relabeler.figures(epoch=10, true_targets=torch.tensor([1, 1, 1]))["precision"]
    1.0
    """

    def __init__(
        self,
        labels: LabelStore,
        *,
        margin: float = 0.2,
        scope: Scope = "low_importance",
        weighting: Weighting = "importance",
        high_ratio: float = 0.7,
        start_epoch: int = 10,
        cooldown: int = 1,
    ) -> None:
        if not isinstance(labels, LabelStore):
            raise TypeError(f"labels must be a LabelStore, got {type(labels).__name__}")
        self.labels = labels
        self.margin = check_range("margin", margin, 0.0, 1.0, open_high=True)
        self.scope = check_choice("scope", scope, get_args(Scope))
        self.weighting = check_choice("weighting", weighting, get_args(Weighting))
        self.high_ratio = check_high_ratio(high_ratio)
        self.start_epoch = check_whole_number("start_epoch", start_epoch, 0, checks.LAST_EPOCH)
        self.cooldown = check_whole_number("cooldown", cooldown, 0, checks.LAST_EPOCH)

    @torch.no_grad()
    def update(
        self,
        index: Tensor,
        logits: Tensor,
        importance: Tensor | None = None,
        *,
        step: int,
        epoch: int,
        bias: Tensor | None = None,
        gather: bool = True,
    ) -> int:
        """Change labels by the predictions of a batch. Call it after the optimizer's step.

        Args:
            index: rows of the samples in the data set.
            logits: unweighted outputs of the network.
            importance: importance in [0, 1]; not needed for ``scope="all"`` with
                ``weighting="none"``.
            step: number of the optimizer's step, for the journal.
            epoch: number of the epoch, as the loop counts.
            bias: the classifier's bias, if the loss does not weight it.
            gather: join the batches of all processes. Each must then call this at the same point.
                With one process it has no effect.

        Returns:
            Number of changed samples.

        Shape:
            index ``(B)`` int64, logits ``(B, C)``, importance ``(B)``, bias ``(C)``; B may be 0.

        Raises:
            IndexError: an index is outside the data set.
            TypeError: ``gather`` is not a bool.
            ValueError: an argument does not fit, the importance is missing, or a tensor is not
                finite under :func:`robustfer.losses.check_values`.
        """
        # Check before start_epoch too, so a mistake shows in the first step.
        check_bool("gather", gather)
        step, epoch, _ = checks.when_and_why(step, epoch, ChangeReason.RELABELLED)
        checks.check_index(index)
        check_shapes(logits=(logits, f"B* {self.labels.num_classes}"))
        check_floating(logits=logits)
        if len(index) != len(logits):
            raise ValueError(f"index has B={len(index)} but logits has B={len(logits)}")
        if importance is None:
            if self.scope != "all" or self.weighting != "none":
                raise ValueError(
                    f"importance must be a tensor for scope={self.scope!r} with "
                    f"weighting={self.weighting!r}, got None"
                )
            importance = torch.ones_like(logits[:, 0])
        check_shapes(logits=(logits, "B* C"), importance=(importance, "B*"))
        check_importance(importance)
        check_bias(bias, logits)
        if values_are_checked():
            checks.check_rows(index, self.labels.num_samples)
        if epoch < self.start_epoch:
            return 0
        weighted = self.weighting == "importance"
        scores = weighted_logits(logits, importance, bias) if weighted else full_precision(logits)
        home = self.labels.label_current.device
        rows = index.to(home), scores.softmax(dim=1).to(home), full_precision(importance).to(home)
        index, probability, importance = gather_in_rank_order(*rows) if gather else rows

        current = self.labels(index)
        confidence, label = probability.max(dim=1)
        own = probability.gather(1, current[:, None])[:, 0]
        # A NaN in the prediction makes the difference NaN, which is not above the margin.
        doubted = (confidence - own > self.margin) & finite_rows(importance)
        if self.scope == "low_importance":
            low = low_importance(importance, high_ratio=self.high_ratio)
            # Without a high group, as in a batch of one, nothing has a lower importance.
            doubted &= low & ~low.all()
        doubted &= ~self.labels.decided(index)
        changed_epoch = self.labels.changed_epoch(index)
        doubted &= (changed_epoch < 0) | (epoch - changed_epoch > self.cooldown)
        # The store skips unchanged rows. Selecting the changed ones here would wait for the GPU.
        return self.labels.update(
            index,
            torch.where(doubted, label, current),
            step=step,
            epoch=epoch,
            confidence=confidence,
            gather=False,
        )

    @torch.no_grad()
    def figures(self, *, epoch: int, true_targets: Tensor | None = None) -> dict[str, float]:
        """Return counts of changed labels, for :class:`robustfer.metrics.History`.

        - ``changed``: labels that differ from the given ones.
        - ``changed_back``: labels that had changed and are the given ones again.
        - ``changed_in_epoch``, ``changed_back_in_epoch``: those of them that changed last in this
          epoch.
        - ``precision``: share of the changed labels that are right now.
        - ``recall``: share of the wrong given labels that are right now.

        Labels that a person decided are left out. ``precision`` and ``recall`` need
        ``true_targets``. They count only samples of known truth, and are NaN if there are none.

        Args:
            epoch: number of the epoch, as the loop counts.
            true_targets: the true labels; -1 where the truth is not known.

        Shape:
            true_targets ``(N)`` int64, in the order of the store.

        Raises:
            ValueError: ``true_targets`` does not fit the store.
        """
        check_whole_number("epoch", epoch, 0, checks.LAST_EPOCH)
        given, current = self.labels.given(), self.labels()
        changed, last = self.labels.changed(), self.labels.changed_epoch()
        mine = ~self.labels.decided()
        changed, back = changed & mine, ~changed & (last >= 0) & mine
        counts = {
            "changed": changed,
            "changed_back": back,
            "changed_in_epoch": changed & (last == epoch),
            "changed_back_in_epoch": back & (last == epoch),
        }
        shares: dict[str, tuple[Tensor, Tensor]] = {}
        if true_targets is not None:
            if true_targets.shape != given.shape or true_targets.dtype != torch.int64:
                raise ValueError(
                    f"true_targets must be int64 of shape ({len(given)}), got "
                    f"{true_targets.dtype} of shape {tuple(true_targets.shape)}"
                )
            truth = true_targets.to(given.device)
            check_within(-1, self.labels.num_classes - 1, true_targets=truth)
            known = truth >= 0
            right = current == truth
            shares = {
                "precision": (changed & right & known, changed & known),
                "recall": (changed & right & known, (given != truth) & known & mine),
            }
        sums = [mask.sum() for mask in counts.values()]
        sums += [mask.sum() for pair in shares.values() for mask in pair]
        numbers = iter(torch.stack(sums).tolist())
        figures: dict[str, float] = {name: next(numbers) for name in counts}
        for name in shares:
            part, whole = next(numbers), next(numbers)
            figures[name] = part / whole if whole else float("nan")
        return figures

    def __repr__(self) -> str:
        return (
            f"Relabeler({self.labels!r}, margin={self.margin}, scope={self.scope!r}, "
            f"weighting={self.weighting!r}, high_ratio={self.high_ratio}, "
            f"start_epoch={self.start_epoch}, cooldown={self.cooldown})"
        )
