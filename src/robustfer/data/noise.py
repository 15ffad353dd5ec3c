"""Label noise that depends on a seed and the samples' names alone, never on their order."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

import torch
from torch import Tensor

from robustfer._checks import check_class_index, check_range, check_shapes
from robustfer.data.dataset import LabeledFaces

_FacesT = TypeVar("_FacesT", bound=LabeledFaces)


def symmetric_noise(
    targets: Tensor,
    ids: Sequence[str],
    *,
    num_classes: int,
    rate: float,
    seed: int,
    all_ids: Sequence[str] | None = None,
) -> Tensor:
    r"""Give an exact number of samples another class, each other class being equally likely.

    Each name has two 64-bit numbers, the halves of a hash of seed and name. The
    :math:`\operatorname{round}(\text{rate} \cdot N)` samples with the least first number are
    changed, to

    .. math:: y' = (y + 1 + h_2 \bmod (C - 1)) \bmod C

    So neither the order of the samples nor which other samples are loaded changes a label, and
    the same seed changes more and more samples as the rate grows.

    Args:
        targets: the labels before.
        ids: a stable name for each sample.
        num_classes: number of classes C, at least 2.
        rate: share of the samples to change, in [0, 1].
        seed: which of the possible draws.
        all_ids: names of the full split where ``ids`` are only some of it: the exact count holds
            for the split, and each sample is changed or not as it would be there. Default ``ids``.

    Shape:
        ``targets`` int64 (N) -> int64 (N), a new tensor.

    Raises:
        ValueError: labels outside the classes, a name twice, or a sample not in ``all_ids``.

    >>> targets = torch.zeros(10, dtype=torch.int64)
    >>> names = [f"face{row}" for row in range(10)]
    >>> noisy = symmetric_noise(targets, names, num_classes=7, rate=0.3, seed=0)
    >>> int((noisy != targets).sum())
    3
    """
    check_shapes(targets=(targets, "N"))
    check_range("rate", rate, 0.0, 1.0)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2 for another class, got {num_classes}")
    check_class_index(num_classes, targets=targets)
    if len(ids) != len(targets):
        raise ValueError(f"ids must name the {len(targets)} samples of targets, got {len(ids)}")
    numbers = {name: _two_numbers(seed, name) for name in (all_ids or ids)}
    if len(numbers) != len(all_ids or ids):
        raise ValueError("ids must name each sample once, and a name is there twice")
    unknown = next((name for name in ids if name not in numbers), None)
    if unknown is not None:
        raise ValueError(f"ids must be names of all_ids, got {unknown!r}")

    # The name breaks a tie of two hashes, so that the count stays exact.
    ranked = sorted(numbers, key=lambda name: (numbers[name][0], name))
    changed = set(ranked[: round(rate * len(ranked))])
    shifts = [1 + numbers[name][1] % (num_classes - 1) if name in changed else 0 for name in ids]
    return (targets + torch.tensor(shifts, device=targets.device)) % num_classes


def with_symmetric_noise(dataset: _FacesT, *, rate: float, seed: int) -> _FacesT:
    """Return a data set with :func:`symmetric_noise` on its labels; ``true_targets`` keep the old.

    The noise is drawn on the full split: before or after :meth:`LabeledFaces.subset` a sample gets
    the same label. A part of the split therefore has about, not exactly, the rate.

    Args:
        dataset: a data set with one class a sample.
        rate: share of the full split's samples to change, in [0, 1].
        seed: which of the possible draws.

    Raises:
        ValueError: the labels are probabilities, or ``rate`` lies outside [0, 1].

    >>> from robustfer.data import DemoFaces
    >>> faces = with_symmetric_noise(DemoFaces(num_samples=20), rate=0.3, seed=0)
    >>> int((faces.targets != faces.true_targets).sum())
    6
    """
    if dataset.targets.ndim != 1:
        raise ValueError("symmetric noise needs one class a sample, got probabilities as targets")
    noisy = symmetric_noise(
        dataset.targets,
        dataset.ids,
        num_classes=len(dataset.classes),
        rate=rate,
        seed=seed,
        all_ids=dataset.all_ids,
    )
    return dataset.with_targets(noisy)


def _two_numbers(seed: int, name: str) -> tuple[int, int]:
    # The purpose (person) keeps other draws by the same seed and names unrelated to this one.
    text = f"{seed}:{name}".encode()
    digest = blake2b(text, digest_size=16, person=b"symmetric noise").digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
