"""Check plugins for ``robustfer plugins --check`` by importing all their components.

It finds components that cannot be imported or described, and changed settings of torch. It runs in
another process, because a plugin may end it. torch is imported there first.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from robustfer import plugins, registry
from robustfer.plugins import PluginError, PluginWarning


def faults(names: Sequence[str]) -> dict[str, list[str]]:
    """Return what is wrong with the components of each of these plugins."""
    context = get_context("spawn")
    found: dict[str, list[str]] = {}
    rest = list(names)
    while rest:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_examine, args=(rest, sender), daemon=True)
        process.start()
        sender.close()
        with suppress(EOFError):
            while rest:
                found[rest[0]] = receiver.recv()
                del rest[0]
        process.join()
        if rest:
            name = rest.pop(0)
            found[name] = [f"plugin {name!r} ends the process, with status {process.exitcode}"]
    return found


def _examine(names: Sequence[str], sender: Connection) -> None:
    """Send what is wrong with each plugin. It runs in a separate process."""
    # Plugins may print.
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore", PluginWarning)
    with plugins.torch_importable():
        import robustfer.authoring  # noqa: F401 - and all that plugins import of ours

    before = _settings()
    for name in names:
        found: list[str] = []
        for plugin in plugins.installed().named(name):
            before = _compare(before, found, f"{plugin} changes {{}} when it is imported")
            for offer in plugin.offers:
                try:
                    registry.describe(offer.qualified_name)
                except PluginError as error:
                    found.append(str(error))
                text = f"{plugin} changes {{}} when its {offer.component.name!r} is imported"
                before = _compare(before, found, text)
        sender.send(found)


def _compare(before: dict[str, object], found: list[str], text: str) -> dict[str, object]:
    """Add the changed settings to ``found``, and return the present ones."""
    now = _settings()
    for name, value in now.items():
        if value != before[name]:
            # The state of a generator has no readable value.
            change = name if isinstance(value, bytes) else f"{name} from {before[name]} to {value}"
            found.append(text.format(change))
    return now


def _settings() -> dict[str, object]:
    """Return the settings of the process that change what other code computes."""
    import random

    import numpy as np
    import torch

    tiny = torch.tensor(1e-310, dtype=torch.float64, device="cpu")
    return {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": torch.get_default_device(),
        "torch's deterministic algorithms": torch.get_deterministic_debug_mode(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's number of interop threads": torch.get_num_interop_threads(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's inference mode": torch.is_inference_mode_enabled(),
        "torch's anomaly detection": torch.is_anomaly_enabled(),
        "torch's autocast on the CPU": torch.is_autocast_enabled("cpu"),
        "torch's autocast on CUDA": torch.is_autocast_enabled("cuda"),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "torch's flushing of denormal numbers": (tiny * 1).item() == 0,
        "torch's backends.cudnn.enabled": torch.backends.cudnn.enabled,
        "torch's backends.cudnn.benchmark": torch.backends.cudnn.benchmark,
        "torch's backends.cudnn.deterministic": torch.backends.cudnn.deterministic,
        "torch's backends.cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        "torch's initialization of CUDA": torch.cuda.is_initialized(),  # type: ignore[no-untyped-call]
        "torch's random numbers": _digest(torch.get_rng_state().tolist()),
        "Python's random numbers": _digest(random.getstate()),
        "numpy's random numbers": _digest(np.random.get_state()),  # noqa: NPY002 - it is what may change
    }


def _digest(state: object) -> bytes:
    return hashlib.sha256(pickle.dumps(state)).digest()
