"""The package as robustfer finds it, once it is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from robustfer import registry
from robustfer_gce.losses import GeneralizedCrossEntropyLoss

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def _this_plugin_alone(monkeypatch):
    """Whatever else is installed."""
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "gce")


def test_it_is_listed_and_made_by_name():
    assert registry.available("losses")["generalized_cross_entropy"].plugin == "gce"
    criterion = registry.create("generalized_cross_entropy", q=0.5)
    assert type(criterion) is GeneralizedCrossEntropyLoss
    assert criterion.q == 0.5


def test_all_that_can_be_shown_is_said():
    described = registry.describe("gce:generalized_cross_entropy")
    assert [str(option) for option in described.options] == ["q=0.7", "reduction='mean'"]
    assert all(option.meaning for option in described.options)
    assert [(tensor.name, tensor.shape) for tensor in described.tensors] == [
        ("logits", "(B, C)"),
        ("target", "(B) int64 or (B, C) probabilities"),
    ]
    assert described.result == 'scalar, or (B) for "none"; float32 for half inputs'
    assert "NeurIPS 2018" in described.reference
    assert described.distribution == "robustfer-gce"


def test_the_module_with_the_hooks_loads_no_torch():
    code = (
        "import sys, robustfer_gce; robustfer_gce.robustfer_losses(); print('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == ("False\n", "")


def test_the_code_of_the_readme_runs():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert isinstance(names["criterion"], GeneralizedCrossEntropyLoss)
