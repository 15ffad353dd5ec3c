"""`robustfer plugins --check`: what comes to light once all that plugins offer is imported."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.plugins_support import losses, run_python, write_plugin


@pytest.fixture
def check(tmp_path):
    """Write plugins, NAME=(source of the plugin, source of its factory's module), and check."""

    def check(**sources):
        for name, (plugin, factory) in sources.items():
            offer = losses(name).replace(
                "component(name)", f"component(name, factory='{name}_factory:Loss')"
            )
            write_plugin(tmp_path, name, plugin, offer)
            (tmp_path / f"{name}_factory.py").write_text(factory)
        paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        return run_python(
            *("-m", "robustfer", "plugins", "--check", "--json"),
            PYTHONPATH=paths,
            ROBUSTFER_PLUGINS=",".join(sources),
        )

    return check


LOSS = "class Loss:\n    def forward(self, logits): ...\n"
#: What is done with torch, and how the error ends; what was there before is others' doing.
CHANGES = {
    "dtype": ("set_default_dtype(torch.float64)", "default dtype from .* to torch.float64"),
    "device": ("set_default_device('meta')", "default device from cpu to meta"),
    "deterministic": ("use_deterministic_algorithms(True)", "deterministic algorithms .* to 2"),
    "threads": (
        "set_num_threads(torch.get_num_threads() + 1)",
        r"number of threads from \d+ to \d+",
    ),
    "grad": ("set_grad_enabled(False)", "grad mode from True to False"),
    "anomaly": ("autograd.set_detect_anomaly(True)", "anomaly detection from False to True"),
    "autocast": ("set_autocast_enabled('cpu', True)", "autocast on the CPU from False to True"),
    "precision": ("set_float32_matmul_precision('high')", "precision from highest to high"),
    "denormal": ("set_flush_denormal(True)", "denormal numbers from False to True"),
    "cudnn": ("backends.cudnn.benchmark = True", "cudnn.benchmark from False to True"),
    "seed": ("manual_seed(0)", "random numbers"),
    "draws": ("rand(1, device='cpu')", "random numbers"),
}


def test_changes_of_torch_are_named_with_who_made_them(check):
    sources = {
        name: ("", f"import torch\ntorch.{code}\n{LOSS}") for name, (code, _) in CHANGES.items()
    }
    sources["early"] = ("import torch; torch.set_default_dtype(torch.float16)", LOSS)
    sources["python"] = ("import random, numpy; random.seed(0); numpy.random.seed(0)", LOSS)
    sources["good"] = ("import torch; torch.Generator(device='cpu').manual_seed(0)", LOSS)
    done = check(**sources)
    assert (done.returncode, done.stderr) == (1, "")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    errors = {name: rows[name]["errors"] for name in sources}
    for name, (_, change) in CHANGES.items():
        [error] = errors[name]
        assert error.startswith(f"plugin '{name}' (robustfer-{name} 1.0) changes torch's ")
        assert re.search(f"{change} when its '{name}' is imported$", error)
    [early] = errors["early"]
    assert early.endswith("to torch.float16 when it is imported")
    [python, numpy] = errors["python"]
    assert "changes Python's random numbers when it is imported" in python
    assert "changes numpy's random numbers when it is imported" in numpy
    assert errors["good"] == rows["robustfer"]["errors"] == []


def test_components_that_cannot_be_had(check):
    done = check(
        gone=("", ""),
        exits=("", "import sys; sys.exit(0)"),
        dies=("", "import os; os._exit(7)"),
        prints=("print('hello')", f"print('hello')\n{LOSS}"),
        good=("", LOSS),
    )
    assert done.returncode == 1
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    [gone], [exits], [dies] = (rows[name]["errors"] for name in ("gone", "exits", "dies"))
    assert "offers 'gone' as 'gone_factory:Loss', which cannot be imported: Attribute" in gone
    assert "offers 'exits' as 'exits_factory:Loss', which cannot be imported: SystemExit" in exits
    assert dies == "plugin 'dies' ends the process, with status 7"
    assert rows["prints"]["errors"] == rows["good"]["errors"] == []
    assert rows["good"]["losses"] == ["good"]
