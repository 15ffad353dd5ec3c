"""Draw numbers for samples from a seed and their ids, independent of the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from robustfer._inputs import name_bytes

Words = npt.NDArray[np.uint64]


def two_words(purpose: bytes, seed: int, ids: Sequence[str]) -> Words:
    """Return two 64-bit numbers for each sample, (N, 2).

    Args:
        purpose: at most 16 bytes. Draws for different purposes are independent of each other.
        seed: any whole number.
        ids: names of the samples.

    >>> one, two = two_words(b"docs", 0, ["a.png"]), two_words(b"docs", 0, ["b.png", "a.png"])
    >>> one[0].tolist() == two[1].tolist()
    True
    """
    # Published lists of noisy labels depend on every byte here.
    start = blake2b(f"{seed}:".encode(), digest_size=16, person=purpose)
    digests = bytearray()
    for name in ids:
        whole = start.copy()
        whole.update(name_bytes(name))
        digests += whole.digest()
    return np.frombuffer(digests, dtype=">u8").reshape(-1, 2).astype(np.uint64)
