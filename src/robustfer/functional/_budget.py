"""Memory limits of temporaries, by the kind of device."""

from __future__ import annotations


def byte_budget(device_type: str) -> int:
    """Return how many bytes to work on at once: a CPU's cache, or far more on a GPU."""
    return 2 * 2**20 if device_type == "cpu" else 256 * 2**20
