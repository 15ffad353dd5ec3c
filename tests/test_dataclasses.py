"""Results with tensors can be compared and be in sets, as any object can."""

import dataclasses
import importlib
import pkgutil
import re

import pytest
import torch

import robustfer
from robustfer.noise import NoiseReport, transition_from_verified

MODULES = [found.name for found in pkgutil.walk_packages(robustfer.__path__, "robustfer.")]


def test_dataclasses_with_tensors_are_equal_only_to_themselves():
    found = {
        one
        for name in MODULES
        if not name.endswith("__main__")
        for one in vars(importlib.import_module(name)).values()
        if isinstance(one, type) and dataclasses.is_dataclass(one)
    }
    holding = {
        one
        for one in found
        if any(re.search(r"\bTensor\b", f.type) for f in dataclasses.fields(one))
    }
    assert {"NoiseReport", "NoiseList", "TransitionEstimate", "Audit"} <= {
        one.__name__ for one in holding
    }
    assert [one for one in holding if one.__eq__ is not object.__eq__] == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseReport(classes=("a", "b"), counts=torch.eye(2, dtype=torch.int64)),
        lambda: transition_from_verified([0, 1], [0, 1], num_classes=2),
    ],
)
def test_results_compare(make):
    one, other = make(), make()
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2
