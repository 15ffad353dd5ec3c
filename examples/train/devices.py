"""Set up Lightning Fabric for the devices and the precision of a run."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from examples.train.options import Refused, RunOptions

_CPU_QUESTIONS = {
    "bf16-mixed": "_is_mkldnn_bf16_supported",
    "16-mixed": "_is_mkldnn_fp16_supported",
}


@contextmanager
def default_dtype(precision: str) -> Iterator[None]:
    """Create new tensors in float64 with ``--precision 64``, and in float32 otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if precision == "64" else torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """Use only deterministic algorithms of torch, if the run is deterministic.

    Raises:
        Refused: an operation has no deterministic algorithm on this device.
    """
    if not asked:
        yield
        return
    # cuBLAS reads this when the GPU is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(".")[0]
        raise Refused(f"--deterministic: {reason}; remove it, or use --device cpu") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def auto_device() -> str:
    """Return the kind of device that ``--device auto`` chooses: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def is_native(precision: str, kind: str) -> bool:
    """Return whether a kind of device has instructions for a precision.

    Without them, a network can take ten times as long as in float32.

    Args:
        precision: that of the run, such as bf16-mixed.
        kind: cpu, cuda or mps.
    """
    if kind == "cpu" and precision in _CPU_QUESTIONS:
        # torch has no public question for this.
        asked = getattr(torch.ops.mkldnn, _CPU_QUESTIONS[precision], None)
        return asked is not None and bool(asked())
    if kind == "cuda" and precision == "bf16-mixed":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def fast_precision(kind: str) -> str:
    """Return bf16-mixed if a kind of device has instructions for it, otherwise 32."""
    return "bf16-mixed" if is_native("bf16-mixed", kind) else "32"


class Autocast(MixedPrecision):
    """Use mixed precision without converting inputs: half precision would move landmarks."""

    def convert_input(self, data: Any) -> Any:
        return data


def make_fabric(options: RunOptions, *, unused_parameters: bool, loggers: list[Logger]) -> Fabric:
    """Return Fabric for the devices and the precision of a run.

    Args:
        options: devices and precision.
        unused_parameters: whether a step may leave parameters without gradient.
        loggers: where figures are logged.

    Raises:
        Refused: this machine does not have these devices.
    """
    kind, _, number = options.device.partition(":")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind == "auto":
        kind = auto_device()
    if kind not in available or (number and not (kind == "cuda" and number.isdigit())):
        raise Refused(f"--device must be auto, cpu, cuda, cuda:NUMBER or mps, got {options.device}")
    if not available[kind]:
        raise Refused(f"--device {kind} is not available on this machine; choose cpu or auto")
    count = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, options.devices)
    first = int(number or 0)
    if first + options.devices > count:
        raise Refused(
            f"--devices {options.devices} from --device {options.device} is more than the {count} "
            "of this machine; choose fewer"
        )
    processes = options.devices * options.nodes
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) != processes:
        raise Refused(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, expected {processes} from "
            f"--devices {options.devices} and --nodes {options.nodes}; make them agree"
        )
    precision: dict[str, Any] = {"precision": f"{options.precision}-true"}
    if options.precision in ("16-mixed", "bf16-mixed"):
        precision = {"plugins": [Autocast(options.precision, kind)]}
    strategy: Any = "auto"
    if processes > 1:
        # The loop averages running statistics over the processes itself.
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        strategy = DDPStrategy(find_unused_parameters=unused_parameters, **{sync: False})
    numbered = list(range(first, first + options.devices))
    return Fabric(
        accelerator=kind,
        devices=numbered if kind == "cuda" else options.devices,
        num_nodes=options.nodes,
        strategy=strategy,
        loggers=loggers,
        **precision,
    )


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
