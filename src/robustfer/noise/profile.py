"""Measure how the labels of a data set go wrong, as a profile that can be saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from robustfer._checks import check_class_index, check_int64, check_range, check_shapes
from robustfer._files import write_whole
from robustfer._inputs import check_ids, to_probabilities, to_tensor
from robustfer.data.dataset import LabeledFaces, check_one_class
from robustfer.metrics import confusion_matrix
from robustfer.noise.matrices import majority, without_diagonal
from robustfer.noise.report import NoiseReport

TENTHS = 10
_SHIPPED = ("fer2013",)
_SMOOTHING = 0.05
_MOST_ATTRACTION = 4.0
_HALVINGS = 50
_SWEEPS = 30
_SEARCH_STEPS = 300


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseProfile:
    r"""A model of how labels go wrong, by class and by what a face looks like.

    :func:`robustfer.noise.with_noise_like` puts such noise on other labels. The model is

    .. math::
        \operatorname{logit} P(\text{wrong} \mid k, t) = \alpha_k + \beta_t, \qquad
        P(l \mid \text{wrong}, k, i) \propto T_{kl} \, s_{il}^{\gamma}

    k is the true class, l the given one, and T the matrix of ``counts``. t is the tenth of face i
    in its class by margin: the probability of its true class minus the largest other one.
    :math:`s_{il}` is how much more a face resembles class l than other faces of class k do.

    Attributes:
        classes: names of the classes.
        counts: faces of each true class (row) with each given label (column), int64 ``(C, C)``.
        by_margin: share of wrong labels in each tenth of a class, smallest margin first. ``None``:
            measured without probabilities.
        attraction: :math:`\gamma` in [0, 4], how strongly wrong labels follow what a face
            resembles: 0 not at all, 1 in proportion. ``None`` as above.
        source: where the labels are from, and how they were compared.

    Raises:
        TypeError: a value has another type.
        ValueError: a name, a shape or a number does not fit.
    """

    classes: tuple[str, ...]
    counts: Tensor
    by_margin: tuple[float, ...] | None = None
    attraction: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        names = check_ids(self.classes, name="classes", unique=True)
        check_shapes(counts=(self.counts, f"{len(names)} {len(names)}"))
        check_int64(counts=self.counts)
        if int(self.counts.min()) < 0 or not int(self.counts.sum()):
            raise ValueError("counts must be 0 or more, and not all 0")
        if self.by_margin is None or self.attraction is None:
            if self.by_margin is not None or self.attraction is not None:
                raise ValueError("by_margin and attraction must both have values, or both be None")
            return
        if len(self.by_margin) != TENTHS:
            raise ValueError(f"by_margin must have {TENTHS} shares, got {len(self.by_margin)}")
        for share in self.by_margin:
            check_range("by_margin", share, 0.0, 1.0)
        check_range("attraction", self.attraction, 0.0, _MOST_ATTRACTION)

    @classmethod
    def of(
        cls,
        dataset: LabeledFaces,
        *,
        true: Tensor | ArrayLike | None = None,
        probabilities: Tensor | ArrayLike | None = None,
        source: str = "",
    ) -> NoiseProfile:
        r"""Measure the noise of a data set, with true labels for some or all faces.

        Args:
            dataset: faces with the given labels.
            true: the true class of each face, or -1 if unknown. Default: ``true_targets`` of the
                data set, or the class with more than half of the ``votes``. The faces with a true
                class must be a random draw.
            probabilities: the classes that each face resembles, to measure how noise depends on
                them: out-of-sample predictions, or shares of votes. Default: the shares of
                ``votes``, if the data set has them.
            source: where the labels are from. It is saved with the profile.

        Shape:
            ``true`` (N), ``probabilities`` (N, C).

        Raises:
            TypeError: ``dataset`` is not one of robustfer's data sets.
            ValueError: no true label is known, the given labels are probabilities, or a shape or
                value does not fit.

        >>> from robustfer.data import DemoFaces
        >>> from robustfer.noise import with_symmetric_noise
        >>> faces = with_symmetric_noise(DemoFaces(num_samples=70), rate=0.3, seed=0)
        >>> NoiseProfile.of(faces).rate
        0.3
        """
        check_one_class(dataset)
        given = dataset.targets
        labels = dataset.true_targets if true is None else true
        if labels is None and dataset.votes is not None:
            labels = majority(dataset.votes)
        if labels is None:
            raise ValueError(
                "dataset has neither true_targets nor votes; pass the true classes that you know "
                "as true="
            )
        true = to_tensor("true", labels)
        check_shapes(true=(true, f"{len(dataset)}"))
        check_int64(true=true)
        known = true != -1
        if not bool(known.any()):
            raise ValueError("true must have the class of at least one face, got -1 for all")
        check_class_index(len(dataset.classes), true=true[known])
        if probabilities is not None:
            rows = to_probabilities("probabilities", probabilities)
            check_shapes(probabilities=(rows, f"{len(dataset)} {len(dataset.classes)}"))
        elif dataset.votes is not None:
            rows = vote_shares(dataset.votes)
        else:
            rows = None
        true, given = true[known], given[known]
        counts = confusion_matrix(given, true, num_classes=len(dataset.classes))
        if rows is None:
            return cls(classes=dataset.classes, counts=counts, source=source)
        rows = rows[known].double()
        return cls(
            classes=dataset.classes,
            counts=counts,
            by_margin=_by_margin(rows, true, given),
            attraction=_attraction(rows, true, given, counts),
            source=source,
        )

    @classmethod
    def load(cls, path: str | Path) -> NoiseProfile:
        """Read a profile from a file, or one that is part of robustfer.

        Args:
            path: a file that :meth:`save` wrote, or ``"fer2013"``. This is the difference between
                FER2013's labels and the majority of FERPlus's crowd, for the training faces with a
                clear majority.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a profile.

        >>> profile = NoiseProfile.load("fer2013")
        >>> f"{profile.rate:.1%} of {profile.samples:,} labels are wrong"
        '28.3% of 13,999 labels are wrong'
        """
        if path in _SHIPPED:
            text = (resources.files("robustfer.noise") / f"{path}.json").read_text("utf-8")
            return _read(text, f"the profile {path}")
        path = Path(path).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist, or is not a file; robustfer has {', '.join(_SHIPPED)}"
            )
        try:
            return _read(path.read_text("utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a noise profile: it is not text") from error

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON. It only has sums over all faces.

        Args:
            path: the file. It is written whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        values = {
            "robustfer": "noise profile",
            "source": self.source,
            "classes": list(self.classes),
            "counts": self.counts.tolist(),
            "by_margin": None if self.by_margin is None else list(self.by_margin),
            "attraction": self.attraction,
        }
        lines = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        write_whole(Path(path), lambda file: file.write(text.encode()))

    @property
    def report(self) -> NoiseReport:
        """The counts as a report."""
        return NoiseReport(classes=self.classes, counts=self.counts)

    @property
    def samples(self) -> int:
        """Number of labels compared."""
        return self.report.samples

    @property
    def rate(self) -> float:
        """Share of the labels that are wrong."""
        return self.report.rate

    @property
    def matrix(self) -> Tensor:
        """Probability of each given class for each true one: float64 (C, C)."""
        return self.report.matrix

    def text(self) -> str:
        """Return the text of the report, with the shares of wrong labels by margin."""
        lines = [self.report.text()]
        if self.by_margin is not None:
            shares = " ".join(f"{100 * share:.1f}" for share in self.by_margin)
            lines += [
                "",
                f"per cent wrong in each tenth of a class, the least clear faces first: {shares}",
                f"wrong labels follow what a face looks like with the power {self.attraction:.2f}",
            ]
        return "\n".join(lines)


def vote_shares(votes: Tensor) -> Tensor:
    """Return the shares of the votes for each face. A face without votes has equal shares."""
    total = votes.sum(dim=1, keepdim=True)
    return (votes.double() / total).where(total > 0, 1 / votes.shape[1])


def margin_log_odds(profile: NoiseProfile) -> Tensor:
    """Return the log odds that each tenth adds to those of its class, float64 (10).

    They are the maximum likelihood: the rates of classes and of tenths are those measured. They are
    zero for a profile without margins.
    """
    beta = torch.zeros(TENTHS, dtype=torch.float64, device="cpu")
    if profile.by_margin is None:
        return beta
    size, rate = profile.counts.sum(dim=1).double(), 1 - profile.matrix.diagonal()
    mixed = (rate > 0) & (rate < 1)  # in other classes all tenths have the same rate
    if not bool(mixed.any()):
        return beta
    measured = torch.tensor(profile.by_margin, dtype=torch.float64, device="cpu")
    # Tenths of few faces differ in size. Scaling makes both sums of wrong labels equal.
    measured = measured * profile.rate / measured.mean().clamp(min=1e-12)
    wanted = measured * size.sum() - (size * rate)[~mixed].sum()
    size, rate = size[mixed], rate[mixed]
    for _ in range(_SWEEPS):  # classes and tenths in turn, until both fit
        before = beta
        alpha = _solve(rate, partial(_class_rates, before))
        beta = _solve(wanted, partial(_tenth_sums, alpha, size))
        if float((beta - before).abs().max()) < 1e-9:
            break
    return beta - beta.mean()


def margins(probabilities: Tensor, true: Tensor) -> Tensor:
    """Return the probability of the true class minus the largest other one (N)."""
    own = probabilities.gather(1, true[:, None])
    return own[:, 0] - probabilities.scatter(1, true[:, None], -1.0).amax(dim=1)


def log_likeness(probabilities: Tensor, true: Tensor) -> Tensor:
    """Return the log of how much more a sample resembles each class than its class does."""
    smooth = probabilities + _SMOOTHING
    sums = torch.zeros(
        probabilities.shape[1], probabilities.shape[1], dtype=torch.float64, device="cpu"
    )
    mean = sums.index_add(0, true, smooth) / true.bincount(minlength=len(sums))[:, None]
    return (smooth / mean[true]).log()


def _by_margin(rows: Tensor, true: Tensor, given: Tensor) -> tuple[float, ...]:
    margin, wrong = margins(rows, true), (given != true).double()
    parts, tenths = [], []
    for k in range(rows.shape[1]):
        own = (true == k).nonzero()[:, 0]
        if not len(own):
            continue
        # Faces with equal margins have equal shares, in every tenth.
        place = torch.unique(margin[own], return_inverse=True)[1]
        share = place.bincount(weights=wrong[own]) / place.bincount()
        parts.append(share[place.sort().values])
        tenths.append(torch.arange(len(own), device="cpu") * TENTHS // len(own))
    tenth = torch.cat(tenths)
    total = torch.zeros(TENTHS, dtype=torch.float64, device="cpu").index_add(
        0, tenth, torch.cat(parts)
    )
    return tuple((total / tenth.bincount(minlength=TENTHS).clamp(min=1)).tolist())


def _attraction(rows: Tensor, true: Tensor, given: Tensor, counts: Tensor) -> float:
    """Return the power with the largest likelihood, given how many wrong labels a pair has."""
    wrong = given != true
    if not bool(wrong.any()):
        return 0.0
    with torch.inference_mode(False), torch.enable_grad():
        likeness, k, label = log_likeness(rows, true)[wrong], true[wrong], given[wrong]
        never = without_diagonal(counts)[k] == 0
        # Each pair of classes has a level, because its number of wrong labels is given.
        levels = torch.zeros(counts.shape, dtype=torch.float64, device="cpu", requires_grad=True)
        power = torch.zeros((), dtype=torch.float64, device="cpu", requires_grad=True)
        search = torch.optim.LBFGS(
            [levels, power], max_iter=_SEARCH_STEPS, tolerance_grad=1e-10, tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def cost() -> Tensor:
            search.zero_grad()
            logits = (levels[k] + power * likeness).masked_fill(never, -math.inf)
            loss = F.cross_entropy(logits, label)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        search.step(cost)  # type: ignore[no-untyped-call]
    return min(max(power.item(), 0.0), _MOST_ATTRACTION)


def _class_rates(beta: Tensor, alpha: Tensor) -> Tensor:
    return (alpha[:, None] + beta).sigmoid().mean(dim=1)


def _tenth_sums(alpha: Tensor, size: Tensor, beta: Tensor) -> Tensor:
    return size @ (alpha[:, None] + beta).sigmoid()


def _solve(wanted: Tensor, rising: Callable[[Tensor], Tensor]) -> Tensor:
    """Solve for the wanted values of a function that increases in each entry."""
    low, high = torch.full_like(wanted, -30.0), torch.full_like(wanted, 30.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = rising(middle) < wanted
        low, high = middle.where(below, low), high.where(below, middle)
    return (low + high) / 2


def _read(text: str, where: str) -> NoiseProfile:
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("robustfer") != "noise profile":
            raise ValueError("'robustfer' must be 'noise profile'")
        shares = values["by_margin"]
        return NoiseProfile(
            classes=tuple(check_ids(values["classes"], name="classes")),
            counts=to_tensor("counts", values["counts"]),
            by_margin=None if shares is None else tuple(shares),
            attraction=values["attraction"],
            source=str(values.get("source", "")),
        )
    except KeyError as error:
        raise ValueError(f"{where} is not a noise profile: it has no {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is not a noise profile: {error}") from error
