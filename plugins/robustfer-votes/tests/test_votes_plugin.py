"""The package as robustfer finds it, once it is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from robustfer import registry
from robustfer_votes.losses import DrawnVoteLoss, PartialLabelLoss, VoteCrossEntropyLoss

README = Path(__file__).parents[1] / "README.md"
LOSSES = {
    "drawn_vote": DrawnVoteLoss,
    "partial_label": PartialLabelLoss,
    "vote_cross_entropy": VoteCrossEntropyLoss,
}


@pytest.fixture(autouse=True)
def _only_this_plugin(monkeypatch):
    """Whatever else is installed."""
    monkeypatch.setenv("ROBUSTFER_PLUGINS", "votes")


@pytest.mark.parametrize("name", LOSSES)
def test_it_is_listed_made_and_shown_by_name(name):
    assert registry.available("losses")[name].plugin == "votes"
    criterion = registry.create(name, drop_single=True)
    assert type(criterion) is LOSSES[name]
    assert criterion.drop_single
    described = registry.describe(f"votes:{name}")
    options = [option.name for option in described.options]
    own = {"partial_label": ["min_share"], "vote_cross_entropy": ["smoothing"]}
    assert options == [*own.get(name, []), "drop_single", "weighted", "reduction"]
    assert all(option.meaning for option in described.options)
    tensors = {tensor.name: tensor.shape for tensor in described.tensors}
    assert tensors["votes"] == "(B, C) int64"
    assert ("vote_draw" in tensors) == (name == "drawn_vote")
    assert "ICMI 2016" in described.reference
    assert described.distribution == "robustfer-votes"


def test_the_module_with_the_hooks_loads_no_torch():
    code = (
        "import sys, robustfer_votes; robustfer_votes.robustfer_losses(); "
        "print('torch' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (finished.stdout, finished.stderr) == ("False\n", "")


def test_the_code_of_the_readme_runs_and_shows_what_it_says():
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    found = names["found"]
    print(found, names["human_ceiling"](names["test_votes"]))
    least = names["human_ceiling"](names["test_votes"]).cross_entropy
    above = {name: one["cross entropy"] - least for name, one in found.items()}
    assert 0 < 2 * above["votes"] < above["majority"]
    assert abs(found["votes"]["accuracy"] - found["majority"]["accuracy"]) < 0.05
