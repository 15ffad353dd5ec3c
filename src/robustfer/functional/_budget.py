"""How much memory temporaries may take, by the kind of device."""

from __future__ import annotations


def byte_budget(device_type: str) -> int:
    """Return the bytes to work on at once: what a CPU's cache holds, far more on a GPU."""
    return 2 * 2**20 if device_type == "cpu" else 256 * 2**20
