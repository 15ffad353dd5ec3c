"""Run two threads as if they were two processes, which would be slow to start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

PROCESSES = 2


def run_as_processes(work: Callable[[int], object], *, patience: float = 10.0) -> None:
    """Call ``work(rank)`` in two threads as if they were two processes.

    Meanwhile ``torch.distributed`` reports two processes, and its gathering functions exchange
    tensors between the threads. Its other functions find no process group.

    Args:
        work: what each process does.
        patience: seconds to wait for the other process at a gathering function.

    Raises:
        AssertionError: a process waited in vain, or the gathered tensors do not fit.
        Exception: the first other error that ``work`` raised.
    """
    meeting = _Meeting(patience)
    errors: list[Exception] = []

    def run(rank: int) -> None:
        meeting.thread.rank = rank
        try:
            work(rank)
        except threading.BrokenBarrierError:
            errors.append(AssertionError("one process gathers, the other does not; it would hang"))
        except Exception as error:
            # First, because the other process fails only by waiting in vain.
            errors.insert(0, error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(PROCESSES)]
    with patch.multiple(dist, create=True, **meeting.functions()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


class _Meeting:
    """Exchange objects between the two threads, which must both arrive."""

    def __init__(self, patience: float) -> None:
        self.thread = threading.local()
        self.barrier = threading.Barrier(PROCESSES, timeout=patience)
        self.brought: list[Any] = [None] * PROCESSES

    def functions(self) -> dict[str, Any]:
        """Return the functions that replace those of ``torch.distributed``, by name."""
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "get_world_size": lambda group=None: PROCESSES,
            "get_rank": lambda group=None: self.thread.rank,
            "get_backend": lambda group=None: "gloo",
            "all_gather": self.all_gather,
            "all_gather_into_tensor": self.all_gather_into_tensor,
            "all_gather_object": self.all_gather_object,
        }

    def exchange(self, mine: object) -> list[Any]:
        """Return the objects of both, that of process 0 first."""
        self.brought[self.thread.rank] = mine
        self.barrier.wait()
        brought = list(self.brought)
        # Wait until the other thread has read them.
        self.barrier.wait()
        return brought

    def all_gather(self, parts: list[Tensor], mine: Tensor, group: object = None) -> None:
        for part, brought in zip(parts, self._tensors(mine), strict=True):
            part.copy_(brought)

    def all_gather_into_tensor(self, joined: Tensor, mine: Tensor, group: object = None) -> None:
        joined.copy_(torch.cat(self._tensors(mine)).view_as(joined))

    def all_gather_object(self, parts: list[Any], mine: object, group: object = None) -> None:
        parts[:] = self.exchange(mine)

    def _tensors(self, mine: Tensor) -> list[Tensor]:
        brought: list[Tensor] = self.exchange(mine.detach().clone())
        shapes = [tuple(tensor.shape) for tensor in brought]
        assert len(set(shapes)) == 1, f"processes must gather tensors of one shape, got {shapes}"
        return brought
