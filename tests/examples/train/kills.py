"""Kill a training at random moments, resume it, and compare it with one that ran through.

python -m tests.examples.train.kills --kills 20
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from robustfer.checkpoint import load_resume
from tests.examples.train.runs import METHOD_OPTIONS, assert_same_to_the_bit, run

# The server has imported the program: a process of it starts at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.examples.train.runs"])
CASES = list(product(METHOD_OPTIONS, (0, 2)))
COMMON = ["--epochs=4", "--resume", "--backbone-options.drop_rate=0.2"]


def train(method, options):
    import torch

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for the workers, as outside of a server
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - no path of a file
        sys.stdout = nowhere
        run(method, *COMMON, *options)


def begin(method, *options):
    process = CONTEXT.Process(target=train, args=(method, options))
    process.start()
    return process


def finish(method, *options):
    """Train to the end, and return how long it took."""
    start = time.monotonic()
    process = begin(method, *options)
    process.join()
    assert process.exitcode == 0, (method, options)
    return time.monotonic() - start


def killed_at(moment, method, *options):
    """Kill a training after so many seconds; whether it still ran."""
    process = begin(method, *options)
    process.join(moment)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def epochs_done(folder):
    resume = folder / "resume.pt"
    return len(load_resume(resume)["history"]["epochs"]) if resume.exists() else 0


def kill_and_compare(kills, folder, *, seed=0, cases=CASES):
    """Yield for each kill what was trained, when it was killed, and whether the result is equal."""
    moments, whole = random.Random(seed), {}
    first = CONTEXT.Process(target=int)  # starts the server, whose imports are no part of a run
    first.start()
    first.join()
    for number in range(kills):
        method, workers = cases[number % len(cases)]
        options = [f"--workers={workers}", *(["--keep=files"] if workers else [])]
        if (method, workers) not in whole:
            path = folder / f"{method}-{workers}"
            whole[method, workers] = path, finish(method, *options, f"--output={path}")
        path, seconds = whole[method, workers]
        killed = folder / f"killed-{number}"
        moment = seconds * moments.random()
        while not killed_at(moment, method, *options, f"--output={killed}"):
            shutil.rmtree(killed)  # it had ended
            moment *= 0.9
        done = epochs_done(killed)
        finish(method, *options, f"--output={killed}")
        yield (
            f"{method}, {workers} workers, {moment:.2f} of {seconds:.2f} s, {done} epochs done",
            equals(path, killed) and not list(killed.glob(".*.tmp")),
        )


def equals(one, other):
    try:
        assert_same_to_the_bit(one, other)
    except AssertionError as difference:
        print(difference)
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for what, equal in kill_and_compare(options.kills, Path(folder), seed=options.seed):
            print(f"{what}: {'equal' if equal else 'DIFFERENT'}", flush=True)
            outcomes.append(equal)
    print(f"{sum(outcomes)} of {len(outcomes)} resumed runs equal the uninterrupted one")
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
