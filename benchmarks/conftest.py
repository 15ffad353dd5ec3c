"""Run speed benchmarks with one thread, and record versions and peak memory."""

import functools
import random
import statistics
import time
from importlib.metadata import version

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

torch.set_num_threads(1)


def pytest_benchmark_update_machine_info(config, machine_info):
    for package in ("torch", "torchvision", "timm", "kornia", "numpy", "robustfer"):
        machine_info[package] = version(package)
    machine_info["threads"] = torch.get_num_threads()
    if torch.cuda.is_available():
        machine_info["cuda_device"] = torch.cuda.get_device_name()


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


def peak_bytes(call, device):
    """Return the peak of allocated memory in a call, with its results but without its inputs."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results = call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        del results
        return peak
    # Without acc_events older torch warns.
    cpu = [ProfilerActivity.CPU]
    with profile(activities=cpu, profile_memory=True, acc_events=True) as record:
        results = call()
    del results
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def by_turns(plain, ours, rounds):
    """Return the time of plain divided by that of ours: ratio of minima, and median of pairs.

    Both are called alternately in random order. The state of a machine changes over time, so timing
    one after the other cannot rank two similar contenders.
    """
    order = random.Random(0)
    times = {plain: [], ours: []}
    for _ in range(rounds):
        for call in order.sample((plain, ours), 2):
            times[call].append(seconds_of(call))
    pairs = zip(times[plain], times[ours], strict=True)
    return {
        "minima": min(times[plain]) / min(times[ours]),
        "median": statistics.median(theirs / own for theirs, own in pairs),
    }


@pytest.fixture
def compare(benchmark, device):
    """Return ``compare(call, group=..., column=...)``, which times a contender of a group.

    ``ours`` is compared with the columns ``literal`` and ``plain``. It is also timed alternately
    with the call ``plain`` on the same tensors.
    """

    def run(call, *, group, column, plain=None, min_rounds=20):
        def timed(call=call):
            result = call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return result

        for _ in range(3):
            seconds = seconds_of(timed)
        # About a second each, because the minimum of a few quick rounds is random.
        rounds = max(min_rounds, min(300, int(1 / seconds)))
        benchmark.group = f"{group}, {device.type}"
        benchmark.extra_info["column"] = column
        benchmark.extra_info["peak_mib"] = peak_bytes(call, device) / 2**20
        benchmark.pedantic(timed, rounds=rounds, iterations=1)
        if plain is not None and column == "ours":
            turns = by_turns(functools.partial(timed, plain), timed, 2 * rounds)
            benchmark.extra_info["by_turns"] = turns

    return run
