"""What training knows about each sample: its predictions, margins and forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from robustfer._checks import (
    check_bool,
    check_class_index,
    check_dtype,
    check_finite,
    check_floating,
    check_shapes,
    check_whole_number,
    check_within,
    values_are_checked,
)
from robustfer._saved_state import load_whole
from robustfer.functional._precision import full_precision
from robustfer.state import _label_checks as checks
from robustfer.state._distributed import gather_in_rank_order
from robustfer.state._rows import check_bank_index, finite_rows, one_hot, select_rows

Window = Literal["all", "early"]

_MOST = 2**15 - 1  # visits and forgetting events are counted in two bytes and stop there
_LARGEST_MARGIN = 1e30  # so that the sum stays finite


class TrainingDynamics(nn.Module):
    r"""Record how the predictions of each sample develop, to find wrong labels afterwards.

    .. math::
        \bar p_i = \frac{1}{V_i} \sum_{v=0}^{V_i - 1} p_i^{(v)}, \qquad
        m_i = \sum_{v=0}^{V_i - 1} \bigl( z_{i,y_i}^{(v)} - \max_{k \neq y_i} z_{i,k}^{(v)} \bigr)

    with the logits :math:`z_i^{(v)}` and probabilities :math:`p_i^{(v)}` of visit :math:`v`. Visits
    are counted per sample: no epoch is needed, and a repeated index in a batch counts twice. A
    second mean covers only the early visits: a network contradicts wrong labels before it memorises
    them. Pass the logits of the network, or of its teacher, to :meth:`update` after each step.

    It takes 52 bytes per sample with 7 classes: 4 per class for the mean of all visits, 2 per class
    for the early mean, and 10 for the rest. With ``dtype=torch.float16`` it takes 38, but the mean
    of hundreds of visits loses digits. All of it is in the ``state_dict``, and a record of other
    given labels is refused when it is loaded. A row with NaN or infinity in it is not recorded.

    With several processes each holds the whole record, outside ``DistributedDataParallel``:
    :meth:`update` joins the rows of all in rank order, which keeps the records equal, and equal to
    that of one process on the joined batch.

    Args:
        num_samples: number of samples in the data set.
        num_classes: number of classes, 2 to 32,768.
        given: labels as the data set has them, ``(N)`` integers. Without them no margin and no
            forgetting is recorded.
        early: first and last visit of the early mean, counted from 0, the last one left out.
        dtype: of the mean of all visits.

    Attributes:
        visits: number of visits, ``(N)`` int16.
        forgotten: how often a right prediction turned wrong, ``(N)`` int16; with ``given`` only.
        last_prediction: class predicted at the last visit, ``(N)``; 0 before the first.

    Raises:
        TypeError: ``given`` is not a tensor.
        ValueError: a label outside the classes, or an option that does not fit.

    Reference:
        Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS
        2020; Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network
        Learning, ICLR 2019.

    >>> dynamics = TrainingDynamics(3, 2, given=torch.tensor([0, 1, 1]))
    >>> index = torch.tensor([0, 2])
    >>> dynamics.update(index, torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    >>> dynamics.update(index, torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    >>> dynamics.visits.tolist(), dynamics.forgotten.tolist()
    ([2, 0, 2], [0, 0, 1])
    >>> dynamics.area_under_margin()
    tensor([2.5000,    nan, 1.5000])
    >>> dynamics.probabilities()
    tensor([[0.9167, 0.0833],
            [0.5000, 0.5000],
            [0.3745, 0.6255]])
    """

    visits: Tensor
    mean: Tensor
    early_mean: Tensor
    last_prediction: Tensor
    label_given: Tensor | None
    margin_sum: Tensor | None
    forgotten: Tensor | None

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        *,
        given: Tensor | None = None,
        early: tuple[int, int] = (1, 4),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.num_samples = check_whole_number("num_samples", num_samples, 1, 2**40)
        self.num_classes = check_whole_number("num_classes", num_classes, 2, 2**15)
        self.early = _check_early(early)
        check_dtype(dtype)
        labels = None
        if given is not None:
            labels, _ = checks.given_labels(given, self.num_classes, soft_targets=False)
            if len(labels) != self.num_samples:
                raise ValueError(f"given must have N={self.num_samples} labels, got {len(labels)}")
        device = torch.device("cpu") if labels is None else labels.device

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(self.num_samples, *shape, dtype=dtype, device=device)

        narrow = torch.uint8 if self.num_classes <= 256 else torch.int16
        self.register_buffer("visits", zeros(dtype=torch.int16))
        self.register_buffer("mean", zeros(self.num_classes, dtype=dtype))
        self.register_buffer("early_mean", zeros(self.num_classes, dtype=torch.float16))
        self.register_buffer("last_prediction", zeros(dtype=narrow))
        recorded = labels is not None
        self.register_buffer("label_given", labels)
        self.register_buffer("margin_sum", zeros(dtype=torch.float32) if recorded else None)
        self.register_buffer("forgotten", zeros(dtype=torch.int16) if recorded else None)
        load_whole(self, _check_saved)

    @torch.no_grad()
    def update(self, index: Tensor, logits: Tensor, *, gather: bool = True) -> None:
        """Record the predictions of a batch; after the optimizer's step. No host waits.

        Args:
            index: rows of the samples in their data set.
            logits: scores of the classes, before softmax: the network's or its teacher's.
            gather: join the rows of all processes. Each of them must then call this at the same
                point, if only with no rows. Without ``torch.distributed`` it does nothing.

        Shape:
            index ``(B)`` int64, logits ``(B, C)``; B may be 0.

        Raises:
            IndexError: a row outside the data set (on CUDA an assertion of the device).
            TypeError: ``gather`` is not a bool.
            ValueError: an argument does not fit; under :func:`robustfer.losses.check_values` also
                logits that are not finite.
        """
        check_bool("gather", gather)
        check_bank_index(self.visits, index)
        check_shapes(logits=(logits, f"B* {self.num_classes}"), index=(index, "B*"))
        check_floating(logits=logits)
        if gather:
            index, logits = gather_in_rank_order(index, logits)
        if values_are_checked():
            check_finite(logits=logits)
        logits = full_precision(logits)
        finite = finite_rows(logits)
        # Sorted by sample, in the order of the batch: its recorded rows first, skipped ones behind.
        key, order = torch.add(~finite, index, alpha=2).sort(stable=True)
        index, kept, logits = index[order], finite[order], logits[order]
        visits = select_rows(self.visits, index).long()  # refuses a row outside before any write
        before = select_rows(self.last_prediction, index)
        logits = logits.masked_fill(~kept[:, None], 0.0)
        place = torch.arange(len(key), device=key.device)
        first = torch.searchsorted(key, index * 2)
        visit = visits + place - first
        low, high = self.early
        early = (visit >= low) & (visit < high)

        greatest, prediction = logits.max(dim=1)
        powers = (logits - greatest[:, None]).exp()
        probability = powers / powers.sum(dim=1, keepdim=True)
        parts = [probability, probability * early[:, None], kept[:, None], early[:, None]]
        if self.label_given is not None:
            label = select_rows(self.label_given, index)
            own = one_hot(label, self.num_classes, torch.bool)
            others = logits.masked_fill(own, -torch.inf).amax(dim=1)
            margin = logits.gather(1, label.long()[:, None])[:, 0] - others
            # The row before of the same sample, or what was predicted at its last visit.
            right = prediction == label
            was_right = (before == label).where(place == first, right.roll(1))
            forgot = (visit > 0) & was_right & ~right
            parts += [margin.clamp(-_LARGEST_MARGIN, _LARGEST_MARGIN)[:, None], forgot[:, None]]
        rows = torch.cat(parts, dim=1) * kept[:, None]
        # What the rows of a sample add up to, once for each of them: all write the same.
        rows = torch.zeros_like(rows).index_add_(0, first, rows).index_select(0, first)
        sums = torch.split(rows, [part.shape[1] for part in parts], dim=1)

        count = sums[2][:, 0].long()
        seen = (visits + count).clamp(max=_MOST)
        _move_mean(self.mean, index, sums[0], sums[2], seen)
        _move_mean(self.early_mean, index, sums[1], sums[3], seen.clamp(low, high) - low)
        if self.margin_sum is not None and self.forgotten is not None:
            margins = select_rows(self.margin_sum, index) + sums[4][:, 0]
            self.margin_sum.index_copy_(0, index, margins.to(self.margin_sum.dtype))
            times = select_rows(self.forgotten, index) + sums[5][:, 0]
            self.forgotten.index_copy_(0, index, times.clamp(max=_MOST).to(torch.int16))
        prediction = prediction.to(before.dtype)
        latest = prediction[(first + count - 1).clamp(min=0)].where(count > 0, before)
        self.last_prediction.index_copy_(0, index, latest)
        self.visits.index_copy_(0, index, seen.to(torch.int16))

    def probabilities(self, *, window: Window = "all") -> Tensor:
        """Return the mean prediction of every sample.

        A sample that was not visited in the window has the same probability for each class.

        Args:
            window: ``"all"`` visits, for a short training that does not memorise, or the
                ``"early"`` ones, for a long training.

        Shape:
            ``(N, C)`` float32 (float64 for a record of that dtype), rows that sum to 1.

        Raises:
            ValueError: an unknown window.
        """
        if window not in ("all", "early"):
            raise ValueError(f"window must be 'all' or 'early', got {window!r}")
        rows = full_precision(self.mean if window == "all" else self.early_mean)
        total = rows.sum(dim=1, keepdim=True)  # rounding has moved it away from 1
        return (rows / total).where(total > 0, 1 / self.num_classes)

    def area_under_margin(self) -> Tensor:
        """Return by how much the given label's logit leads the others, on average over all visits.

        A low or negative value points to a wrong label. NaN before the first visit.

        Shape:
            ``(N)`` float32.

        Raises:
            ValueError: the record was made without given labels.
        """
        if self.margin_sum is None:
            raise ValueError(
                "margins are recorded only with given labels; make TrainingDynamics with given="
            )
        return self.margin_sum / self.visits

    def extra_repr(self) -> str:
        return (
            f"{self.num_samples} samples, num_classes={self.num_classes}, early={self.early}, "
            f"given={self.label_given is not None}"
        )


def _move_mean(bank: Tensor, index: Tensor, total: Tensor, arrived: Tensor, count: Tensor) -> None:
    """Move the means of samples to those of ``count`` visits, the last of which are new."""
    old = select_rows(bank, index)
    moved = old + (total - arrived * old) / count[:, None].clamp(min=1)
    bank.index_copy_(0, index, moved.clamp_(0, 1).to(bank.dtype))  # rounding may leave [0, 1]


def _check_early(early: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(early, (tuple, list)) or len(early) != 2:
        raise ValueError(f"early must be the first and the last visit, such as (1, 4), got {early}")
    first = check_whole_number("the first visit of early", early[0], 0, _MOST - 1)
    return first, check_whole_number("the last visit of early", early[1], first + 1, _MOST)


def _check_saved(record: TrainingDynamics, saved: Mapping[str, Tensor]) -> None:
    if record.label_given is not None:
        checks.check_same_given("label_given", saved, record.label_given)
        check_finite(margin_sum=saved["margin_sum"])
        check_within(0, _MOST, forgotten=saved["forgotten"])
    check_within(0, _MOST, visits=saved["visits"])
    check_within(0, 1, mean=saved["mean"], early_mean=saved["early_mean"])
    check_finite(mean=saved["mean"], early_mean=saved["early_mean"])
    check_class_index(record.num_classes, last_prediction=saved["last_prediction"])
