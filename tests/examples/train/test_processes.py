"""Two processes, and a batch taken in parts, train as one process does on the whole batch."""

import json

import pytest
import torch

from robustfer.checkpoint import load_resume
from tests.examples.train.runs import METHOD_OPTIONS, run, run_in_two_processes

# Without batch norm, whose statistics are those of what passes at once; in float64.
PRECISE = [
    *("--precision=64", "--backbone-options.norm_layer=groupnorm1"),
    *("--ema-decay=0.9", "--mirrored"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def one_process(folder):
    for method in METHOD_OPTIONS:
        run(method, *PRECISE, f"--output={folder}/one-{method}")


@pytest.fixture(scope="module")
def two_processes(folder):
    cases = [(method, [*PRECISE, f"--output={folder}/two-{method}"]) for method in METHOD_OPTIONS]
    shown = run_in_two_processes(cases, folder)
    # One of them speaks.
    assert shown.count("model written to") == len(cases)


def assert_same_run(one, other):
    one, other = load_resume(one / "resume.pt"), load_resume(other / "resume.pt")
    assert one["method"].keys() == other["method"].keys()
    for name, value in one["method"].items():
        found = other["method"][name]
        if value.is_floating_point():
            torch.testing.assert_close(
                found,
                value,
                rtol=1e-9,
                atol=1e-9,
                equal_nan=True,
                msg=f"{name}: {found} is not {value}",
            )
        else:
            assert torch.equal(found, value), name
    for name, value in one["dynamics"].items():
        # Kept in single precision, the early mean in half.
        precision = 1e-3 if value.dtype == torch.float16 else 1e-6
        torch.testing.assert_close(
            other["dynamics"][name], value, rtol=precision, atol=precision, msg=name
        )
    for mine, its in zip(one["history"]["epochs"], other["history"]["epochs"], strict=True):
        mine.pop("images_per_second"), its.pop("images_per_second")
        assert its == pytest.approx(mine, rel=1e-9, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_two_processes_equal_one(one_process, two_processes, folder, method):
    assert_same_run(folder / f"one-{method}", folder / f"two-{method}")
    assert json.loads((folder / f"two-{method}/run.json").read_text())["processes"] == 2


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_batch_in_parts_equals_the_whole(one_process, folder, method):
    run(method, *PRECISE, "--accumulate=2", f"--output={folder}/parts-{method}")
    assert_same_run(folder / f"one-{method}", folder / f"parts-{method}")
