"""The package as robustfer finds it, once it is installed."""

from pathlib import Path

import pytest

from robustfer import registry
from robustfer.testing import PluginConformance
from robustfer_votes.losses import DrawnVoteLoss, PartialLabelLoss, VoteCrossEntropyLoss

LOSSES = {
    "drawn_vote": DrawnVoteLoss,
    "partial_label": PartialLabelLoss,
    "vote_cross_entropy": VoteCrossEntropyLoss,
}


class TestInstalled(PluginConformance):
    plugin = "votes"
    readme = Path(__file__).parents[1] / "README.md"

    def check_readme(self, names):
        found = names["found"]
        least = names["human_ceiling"](names["test_votes"]).cross_entropy
        above = {name: one["cross entropy"] - least for name, one in found.items()}
        assert 0 < 2 * above["votes"] < above["majority"]
        assert abs(found["votes"]["accuracy"] - found["majority"]["accuracy"]) < 0.05


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
    tensors = {tensor.name: tensor.shape for tensor in described.tensors}
    assert tensors["votes"] == "(B, C) int64"
    assert ("vote_draw" in tensors) == (name == "drawn_vote")
    assert "ICMI 2016" in described.reference
    assert described.distribution == "robustfer-votes"
