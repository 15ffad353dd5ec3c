"""Golden tensors: read from the folder that ROBUSTFER_GOLDEN names; none is in the repository.

Every case found in a file becomes a test, under whatever name it has there, so that the same tests
run on any other set of the same layout.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

RTOL = {torch.float64: 1e-9, torch.float32: 1e-5}
ATOL = {torch.float64: 1e-12, torch.float32: 1e-6}


def _file(name):
    folder = os.environ.get("ROBUSTFER_GOLDEN")
    path = Path(folder, f"{name}.npz") if folder else None
    return path if path and path.is_file() else None


def needs(key):
    """Give a test only the cases that hold ``key``, where a file has several kinds of them."""

    def marked(function):
        function.golden_key = key
        return function

    return marked


def pytest_generate_tests(metafunc):
    """A test module says ``GOLDEN = "eac"``; its tests take ``case``, a dict of arrays."""
    name = getattr(metafunc.module, "GOLDEN", None)
    if name is None or "case" not in metafunc.fixturenames:
        return
    path = _file(name)
    if path is None:
        metafunc.parametrize("case", [None], ids=["missing"], indirect=True)
        return
    groups = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            case, _, tensor = key.partition("/")
            groups.setdefault(case, {})[tensor] = arrays[key]
    needed = getattr(metafunc.function, "golden_key", None)
    if needed is not None:
        groups = {case: group for case, group in groups.items() if needed in group}
    metafunc.parametrize("case", list(groups.values()), ids=list(groups), indirect=True)


@pytest.fixture
def case(request):
    if request.param is None:
        reason = "set ROBUSTFER_GOLDEN to the folder with the golden tensors"
        if os.environ.get("ROBUSTFER_GOLDEN_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return request.param


def tensor(array, dtype=torch.float64, *, grad=False):
    """An array of a golden file as a tensor; integers stay what they are."""
    made = torch.as_tensor(np.array(array))
    if made.is_floating_point():
        made = made.to(dtype)
    return made.requires_grad_(grad)


def assert_agrees(ours, golden, *, scale=0.0):
    """max|ours - golden| <= rtol * max|golden| + atol, by the dtype of ours.

    ``scale`` is that of the tensors the value is computed from: it takes the place of
    max|golden| where the golden value has cancelled to about zero.
    """
    ours, golden = ours.detach(), torch.as_tensor(np.array(golden))
    assert tuple(ours.shape) == tuple(golden.shape)
    size = golden.abs().max().item()
    if size < 1e-6 * scale:
        size = scale
    bound = RTOL[ours.dtype] * size + ATOL[ours.dtype]
    error = (ours - golden).abs().max().item()
    assert error <= bound, f"differs by {error:.3g}, allowed {bound:.3g}"


def assert_array_agrees(ours, case, key, *, scale=0.0):
    """As :func:`assert_agrees`, also where the file keeps a large array only in summary."""
    if key in case:
        assert_agrees(ours, case[key], scale=scale)
        return
    flat = ours.detach().flatten(1)
    assert_agrees(flat.sum(1), case[f"{key}__sum"], scale=flat.abs().sum(1).max().item())
    assert_agrees(flat.norm(dim=1), case[f"{key}__l2"], scale=scale * flat.shape[1] ** 0.5)
    assert_agrees(ours[:2], case[f"{key}__head"], scale=scale)
