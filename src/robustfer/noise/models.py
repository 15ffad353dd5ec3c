"""Make label noise that depends on a seed and the names of samples, not on their order."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustfer._checks import (
    check_choice,
    check_class_index,
    check_distribution,
    check_floating,
    check_int64,
    check_range,
    check_shapes,
    check_whole_number,
)
from robustfer._hashes import Words, two_words
from robustfer._inputs import check_ids
from robustfer._names import NoiseVariant as Variant
from robustfer.data.classes import class_order, renumber
from robustfer.data.dataset import LabeledFaces, check_one_class
from robustfer.noise.matrices import (
    LANET_CONFUSIONS,
    NamedConfusions,
    crowd_counts,
    noise_matrix,
    transition_matrix,
    without_diagonal,
)

Confusions = NamedConfusions | Tensor | Literal["lanet", "crowd"]
_FacesT = TypeVar("_FacesT", bound=LabeledFaces)

#: Makes the draws of noise independent of other draws with the same seed. It must not change.
PURPOSE = b"symmetric noise"


def symmetric_noise(
    targets: Tensor,
    ids: Sequence[str],
    *,
    num_classes: int,
    rate: float,
    seed: int,
    true_class: Literal["excluded", "included"] = "excluded",
    variant: Variant = "exact",
    all_ids: Sequence[str] | None = None,
) -> Tensor:
    """Return labels (N) with the noise of :func:`with_symmetric_noise`.

    Args:
        targets: the labels before, int64 (N).
        ids: a stable name for each sample, in the order of ``targets``.
        num_classes: number of classes C, at least 2.
        rate: share of the samples to draw, in [0, 1].
        seed: seed of the noise, a whole number.
        true_class: whether a drawn sample can get its own class again.
        variant: how the samples are drawn.
        all_ids: names of the full split, if ``ids`` are a part of it. Each sample then gets the
            same label as in the full split. Default: ``ids``.

    >>> targets = torch.zeros(10, dtype=torch.int64)
    >>> names = [f"face{row}" for row in range(10)]
    >>> noisy = symmetric_noise(targets, names, num_classes=7, rate=0.3, seed=0)
    >>> int((noisy != targets).sum())
    3
    """
    num_classes = check_whole_number("num_classes", num_classes, 2)
    check_choice("true_class", true_class, ("excluded", "included"))
    check_shapes(targets=(targets, "N"))
    ids, all_ids, seed = _check(targets, ids, all_ids, num_classes, rate, seed, variant)
    if variant == "official":
        if num_classes != 7 or true_class == "included":
            raise ValueError(
                "variant='official' needs seven classes and true_class='excluded', as in the "
                f"public program, got {num_classes} classes and true_class={true_class!r}"
            )
        generator = random.Random(seed)
        shifts = [generator.randint(1, 6) if generator.random() < rate else 0 for _ in ids]
        return (targets + torch.tensor(shifts, device=targets.device)) % 7
    drawn, numbers = _draw(ids, all_ids, rate, seed, variant)
    if true_class == "included":
        new = torch.from_numpy((numbers % np.uint64(num_classes)).astype(np.int64))
    else:
        shifts = 1 + (numbers % np.uint64(num_classes - 1)).astype(np.int64)
        new = (targets.cpu() + torch.from_numpy(shifts)) % num_classes
    return new.where(drawn, targets.cpu()).to(targets.device)


def class_noise(
    targets: Tensor,
    ids: Sequence[str],
    *,
    confusions: Tensor,
    rate: float,
    seed: int,
    variant: Variant = "exact",
    all_ids: Sequence[str] | None = None,
) -> Tensor:
    """Return labels (N) with the noise of :func:`with_class_noise`.

    The arguments are those of :func:`symmetric_noise`, with a matrix of confusions (C, C).

    >>> matrix = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> targets = torch.zeros(10, dtype=torch.int64)
    >>> noisy = class_noise(targets, list("abcdefghij"), confusions=matrix, rate=0.3, seed=0)
    >>> noisy.bincount()
    tensor([7, 3])
    """
    num_classes = check_shapes(confusions=(confusions, "C C"), targets=(targets, "N"))["C"]
    check_floating(confusions=confusions)
    check_distribution(confusions=confusions)
    ids, all_ids, seed = _check(targets, ids, all_ids, num_classes, rate, seed, variant)
    if variant == "official":
        if not bool(((confusions == 0) | (confusions == 1)).all()):
            raise ValueError(
                "variant='official' needs one wrong class per class, as in the public program; "
                "pass a matrix of zeros and ones"
            )
        generator = random.Random(seed)
        hits = [generator.random() < rate for _ in ids]
        new = confusions.argmax(dim=1).to(targets.device)[targets]
        return new.where(torch.tensor(hits, device=targets.device), targets)
    drawn, numbers = _draw(ids, all_ids, rate, seed, variant)
    # On the CPU, because not every device has float64. Its 53 bits are used.
    point = torch.from_numpy((numbers >> np.uint64(11)) / 2**53)
    steps = confusions.cpu().double().cumsum(dim=1)
    # After rounding, the last class with a share must still reach 1.
    steps = steps.where(steps < steps[:, -1:], 2.0)
    new = torch.searchsorted(steps[targets.cpu()], point[:, None], right=True)[:, 0]
    return new.where(drawn, targets.cpu()).to(targets.device)


def with_symmetric_noise(
    dataset: _FacesT,
    *,
    rate: float,
    seed: int,
    true_class: Literal["excluded", "included"] = "excluded",
    variant: Variant = "exact",
) -> _FacesT:
    r"""Change the labels of some samples to other classes, all equally likely.

    A hash of seed and id gives each sample two 64-bit numbers. A sample is drawn if its first
    number is among the :math:`\operatorname{round}(\text{rate} \cdot N)` smallest (``"exact"``), or
    less than :math:`\text{rate} \cdot 2^{64}` (``"bernoulli"``). It changes to

    .. math:: y' = (y + 1 + h_2 \bmod (C - 1)) \bmod C \quad\text{or}\quad y' = h_2 \bmod C

    without and with the true class among the possible ones. The order of the samples does not
    matter. A higher rate changes the same samples, and more. A sample gets the same label before
    and after :meth:`LabeledFaces.subset`, so a subset has only about this rate.

    ``"official"`` draws like LA-Net's public program: in the order of the rows, with Python's
    generator and that program's order of classes. A label then depends on all rows before it, so it
    needs the full split.

    Args:
        dataset: a data set with one class per sample.
        rate: share of the samples to draw, in [0, 1].
        seed: seed of the noise, a whole number.
        true_class: whether a drawn sample can get its own class again. About
            ``rate * (C - 1) / C`` of the samples change then.
        variant: how the samples are drawn.

    Returns:
        A new data set, whose ``true_targets`` are the labels before.

    Raises:
        TypeError: ``dataset`` is not one of robustfer's data sets.
        ValueError: the labels are probabilities, an option does not fit, or ``"official"`` cannot
            do what the options say.

    >>> from robustfer.data import DemoFaces
    >>> faces = with_symmetric_noise(DemoFaces(num_samples=20), rate=0.3, seed=0)
    >>> int((faces.targets != faces.true_targets).sum())
    6
    """
    _check_drawn(dataset, variant)
    # The public program draws for its own order of the classes.
    order = class_order("lanet") if variant == "official" else dataset.classes
    noisy = symmetric_noise(
        renumber(dataset.targets, source=dataset.classes, target=order),
        dataset.ids,
        num_classes=len(order),
        rate=rate,
        seed=seed,
        true_class=true_class,
        variant=variant,
        all_ids=dataset.all_ids,
    )
    return dataset.with_targets(renumber(noisy, source=order, target=dataset.classes))


def with_class_noise(
    dataset: _FacesT,
    confusions: Confusions,
    *,
    rate: float,
    seed: int,
    variant: Variant = "exact",
) -> _FacesT:
    r"""Change the labels of some samples to a class that depends on their class.

    The samples are drawn as in :func:`with_symmetric_noise`: the same ones for the same seed. A
    drawn sample of class :math:`c` gets class :math:`k` with probability :math:`T_{ck}`.

    Args:
        dataset: a data set with one class per sample.
        confusions: the probabilities :math:`T`, in one of these forms:

            - names: class -> the class it is confused with, or several with their shares. The
              remaining share keeps its class, and so do classes that are not named.
            - a matrix (C, C) in the order of ``dataset.classes``, a row per true class, a column
              per given class. Rows sum to 1. The diagonal is the share of drawn labels that stay:
              use ``rate=1`` with a measured matrix.
            - ``"lanet"``: the confusions of LA-Net's protocol.
            - ``"crowd"``: the wrong classes in single people's votes, for faces with more than half
              of their votes for one class.
        rate: share of the samples to draw, in [0, 1].
        seed: seed of the noise, a whole number.
        variant: how the samples are drawn. ``"official"`` needs one wrong class per class.

    Returns:
        A new data set, whose ``true_targets`` are the labels before.

    Raises:
        TypeError: ``dataset`` is not one of robustfer's data sets, or ``confusions`` has another
            type.
        ValueError: the labels are probabilities, a name is not one of the classes, rows are not
            probabilities, there are no votes, or an option does not fit.

    >>> from robustfer.data import DemoFaces
    >>> faces = DemoFaces(num_samples=70)
    >>> noisy = with_class_noise(faces, {"fear": "surprise"}, rate=1.0, seed=0)
    >>> int((noisy.targets != noisy.true_targets).sum())  # the fearful faces
    10
    """
    _check_drawn(dataset, variant)
    noisy = class_noise(
        dataset.targets,
        dataset.ids,
        confusions=_matrix(confusions, dataset),
        rate=rate,
        seed=seed,
        variant=variant,
        all_ids=dataset.all_ids,
    )
    return dataset.with_targets(noisy)


def _matrix(confusions: Confusions, dataset: LabeledFaces) -> Tensor:
    if isinstance(confusions, Tensor):
        if check_shapes(confusions=(confusions, "C C"))["C"] != len(dataset.classes):
            raise ValueError(
                f"confusions must have a row for each of {', '.join(dataset.classes)}, got "
                f"{len(confusions)} rows"
            )
        return confusions
    if isinstance(confusions, str):
        if check_choice("confusions", confusions, ("lanet", "crowd")) == "crowd":
            return without_diagonal(transition_matrix(crowd_counts(dataset.votes)))
        confusions = LANET_CONFUSIONS
    if not isinstance(confusions, Mapping):
        raise TypeError(
            "confusions must be names of classes, {'fear': 'surprise'}, a matrix, 'lanet' or "
            f"'crowd', got {type(confusions).__name__}"
        )
    return noise_matrix(confusions, dataset.classes)


def _check_drawn(dataset: LabeledFaces, variant: str) -> None:
    """Require one class per sample, and the full split for ``"official"``."""
    check_one_class(dataset)
    if variant == "official" and len(dataset.all_ids) != len(dataset):
        raise ValueError(
            "variant='official' needs the full split, got a subset; put the noise on the full "
            "split and take the subset afterwards"
        )


def _check(
    targets: Tensor,
    ids: Sequence[str],
    all_ids: Sequence[str] | None,
    num_classes: int,
    rate: float,
    seed: int,
    variant: str,
) -> tuple[list[str], list[str], int]:
    """Check the shared arguments, and return the names of samples, of the split, and the seed."""
    check_int64(targets=targets)
    check_class_index(num_classes, targets=targets)
    check_range("rate", rate, 0.0, 1.0)
    check_choice("variant", variant, get_args(Variant))
    # Python's generator of the public program ignores the sign.
    seed = check_whole_number("seed", seed, 0 if variant == "official" else None)
    names = check_ids(ids, count=len(targets), unique=True)
    if all_ids is None or all_ids is ids:
        return names, names, seed
    every = check_ids(all_ids, name="all_ids", unique=True)
    known = set(every)
    if not known.issuperset(names):
        unknown = next(name for name in names if name not in known)
        raise ValueError(f"ids must be names of all_ids, got {unknown!r}")
    return names, every, seed


def _draw(
    ids: list[str], all_ids: list[str], rate: float, seed: int, variant: Variant
) -> tuple[Tensor, Words]:
    """Return which samples are drawn, (N), and the second number of each, (N)."""
    words = two_words(PURPOSE, seed, all_ids)
    first = words[:, 0]
    if variant == "bernoulli":
        bound = math.ceil(rate * 2**64)
        drawn = np.full(len(first), True) if bound == 2**64 else first < np.uint64(bound)
    else:
        drawn = _smallest(first, round(rate * len(first)), all_ids)
    if ids is not all_ids:
        place = {name: row for row, name in enumerate(all_ids)}
        rows = [place[name] for name in ids]
        drawn, words = drawn[rows], words[rows]
    return torch.from_numpy(drawn), words[:, 1]


def _smallest(numbers: Words, count: int, names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which numbers are the ``count`` smallest. The name breaks ties, to keep the count."""
    if count == 0:
        return np.full(len(numbers), False)
    greatest = np.partition(numbers, count - 1)[count - 1]
    found: npt.NDArray[np.bool_] = numbers < greatest
    equal: list[int] = np.flatnonzero(numbers == greatest).tolist()
    found[sorted(equal, key=names.__getitem__)[: count - found.sum()]] = True
    return found
