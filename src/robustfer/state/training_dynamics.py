"""Record predictions, margins and forgetting of each sample during training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from robustfer._checks import (
    check_bool,
    check_choice,
    check_class_index,
    check_dtype,
    check_finite,
    check_floating,
    check_shapes,
    check_whole_number,
    check_within,
    values_are_checked,
)
from robustfer._dtypes import NeverHalf
from robustfer._saved_state import load_whole
from robustfer.functional._precision import full_precision
from robustfer.state import _label_checks as checks
from robustfer.state._distributed import gather_in_rank_order
from robustfer.state._rows import check_bank_index, finite_rows, one_hot, select_rows

Window = Literal["all", "early"]

# Visits and forgetting events are kept as int16. Counting stops here.
_MOST = 2**15 - 1
# Keeps the sum of margins finite.
_LARGEST_MARGIN = 1e30


class TrainingDynamics(NeverHalf):
    r"""Record the predictions of each sample during training, to find wrong labels.

    .. math::
        \bar p_i = \frac{1}{V_i} \sum_{v=0}^{V_i - 1} p_i^{(v)}, \qquad
        m_i = \frac{1}{V_i} \sum_{v=0}^{V_i - 1}
            \bigl( z_{i,y_i}^{(v)} - \max_{k \neq y_i} z_{i,k}^{(v)} \bigr)

    with the logits :math:`z_i^{(v)}` and probabilities :math:`p_i^{(v)}` of visit :math:`v`. Visits
    are counted per sample: no epoch is needed, and a repeated index in a batch counts twice. A
    second mean covers only the early visits: a network contradicts wrong labels before it memorises
    them. Pass the logits of the network, or of its teacher, to :meth:`update` after each step.

    A sample takes 4 bytes per class for the mean of all visits, 2 per class for the early mean, and
    10 for the rest. With ``dtype=torch.float16`` the first mean takes 2 per class too, but loses
    digits over hundreds of visits. All of it is in the ``state_dict``. A saved state must come from
    the same given labels. A row with NaN or infinity is not recorded.

    With several processes each holds the whole record, outside ``DistributedDataParallel``.
    :meth:`update` joins the rows of all in rank order. Each record equals that of one process on
    the joined batch.

    Args:
        num_samples: number of samples in the data set.
        num_classes: number of classes, 2 to 32,768.
        given: labels of the data set, ``(N)`` integers. Without them, margins and forgetting are
            not recorded.
        early: visits of the early mean, counted from 0: from the first to before the last.
        dtype: dtype of the mean of all visits; casting the module to half precision does not change
            it.

    Attributes:
        visits: number of visits, ``(N)`` int16.
        forgotten: how often a right prediction turned wrong, ``(N)`` int16; ``None`` without
            ``given``.
        last_prediction: class predicted at the last visit, ``(N)``; 0 before the first.

    Raises:
        TypeError: ``given`` is not a tensor.
        ValueError: a label is not a class, or an option does not fit.

    Reference:
        Pleiss et al., Identifying Mislabeled Data using the Area Under the Margin Ranking, NeurIPS
        2020; Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network
        Learning, ICLR 2019.

    >>> dynamics = TrainingDynamics(2, num_classes=2, given=torch.tensor([0, 1]))
    >>> index = torch.tensor([0, 1])
    >>> dynamics.update(index, torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    >>> dynamics.update(index, torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    >>> dynamics.visits.tolist(), dynamics.forgotten.tolist()
    ([2, 2], [0, 1])
    >>> dynamics.area_under_margin()
    tensor([2.5000, 1.5000])
    >>> dynamics.probabilities()
    tensor([[0.9167, 0.0833],
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
        *,
        num_classes: int,
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
            labels, _ = checks.given_labels(given, self.num_classes)
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
        """Record the predictions of a batch. Call it after the optimizer's step.

        It does not synchronise with the GPU.

        Args:
            index: rows of the samples in their data set.
            logits: scores of the classes, before softmax, from the network or its teacher.
            gather: join the rows of all processes. Each must then call this at the same point,
                even without rows. With one process it has no effect.

        Shape:
            index ``(B)`` int64, logits ``(B, C)``; B may be 0.

        Raises:
            IndexError: an index is outside the data set (on CUDA a device-side assertion).
            TypeError: ``gather`` is not a bool.
            ValueError: an argument does not fit, or logits are not finite under
                :func:`robustfer.losses.check_values`.
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
        # This raises for an index outside, before anything is written.
        visits = select_rows(self.visits, index).long()
        # Sort by sample. Each sample's rows keep the order of the batch, skipped rows last.
        key, order = torch.add(~finite, index, alpha=2).sort(stable=True)
        index, visits, kept, logits = index[order], visits[order], finite[order], logits[order]
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
            # Compare with the sample's previous row, or with its last visit.
            right = prediction == label
            was_right = (before == label).where(place == first, right.roll(1))
            forgot = (visit > 0) & was_right & ~right
            parts += [margin.clamp(-_LARGEST_MARGIN, _LARGEST_MARGIN)[:, None], forgot[:, None]]
        rows = torch.cat(parts, dim=1) * kept[:, None]
        # Every row gets the sum over its sample's rows, so all of them write the same.
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

        A sample without visits in the window has the same probability for each class. A warning
        says how many samples were never visited: nothing can be said about their labels.

        Args:
            window: ``"all"`` visits, or only the ``"early"`` ones. In our measurements all visits
                ranked wrong labels better.

        Shape:
            ``(N, C)`` float32 (float64 for a record of that dtype); rows sum to 1.

        Raises:
            ValueError: the window is unknown.
        """
        check_choice("window", window, get_args(Window))
        unseen = int((self.visits == 0).sum())
        if unseen:
            warnings.warn(
                f"{unseen} of {self.num_samples} samples were never visited, so their "
                "probabilities are equal for all classes; call update in every step",
                stacklevel=2,
            )
        rows = full_precision(self.mean if window == "all" else self.early_mean)
        # Not 1, because the rows are rounded.
        total = rows.sum(dim=1, keepdim=True)
        return (rows / total).where(total > 0, 1 / self.num_classes)

    def area_under_margin(self) -> Tensor:
        """Return the mean gap between the given label's logit and the greatest other logit.

        A low or negative value suggests a wrong label. NaN before the first visit.

        Shape:
            ``(N)`` float32.

        Raises:
            ValueError: the record has no given labels.
        """
        if self.margin_sum is None:
            raise ValueError(
                "area_under_margin() needs given labels, got none; pass given= to TrainingDynamics"
            )
        return self.margin_sum / self.visits

    def extra_repr(self) -> str:
        return (
            f"{self.num_samples} samples, num_classes={self.num_classes}, early={self.early}, "
            f"given={self.label_given is not None}"
        )


def _move_mean(bank: Tensor, index: Tensor, total: Tensor, arrived: Tensor, count: Tensor) -> None:
    """Add ``arrived`` visits with sum ``total`` to the means, which then cover ``count`` visits."""
    old = select_rows(bank, index)
    moved = old + (total - arrived * old) / count[:, None].clamp(min=1)
    # Rounding may leave [0, 1].
    bank.index_copy_(0, index, moved.clamp_(0, 1).to(bank.dtype))


def _check_early(early: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(early, (tuple, list)) or len(early) != 2:
        raise ValueError(f"early must be a first and a last visit, got {early}; try (1, 4)")
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
