"""Losses by name: the core's and every installed plugin's, stopped and resumed."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from examples.train.engine import Training
from examples.train.methods import METHODS, compose
from examples.train.methods.base import WeightedCrossEntropy
from examples.train.options import Refused, parse
from examples.train.terms import make_term, read_options
from examples.train.views import Views
from robustfer import registry
from robustfer._description import options_of, signature_of
from robustfer.checkpoint import load_resume
from robustfer.losses import SCNLoss
from tests.examples.train.runs import assert_same_to_the_bit, settings_of, train

SIZES = {"num_samples", "num_classes", "num_features", "batch_size"}


def can_be_made(name):
    """Whether the command line and the data have all that a loss must be told."""
    return {option.name for option in registry.describe(name).options if option.required} <= SIZES


OF_PLUGINS = [
    name
    for name, offer in registry.available("losses").items()
    if offer.plugin != "robustfer" and can_be_made(name)
]


def compose_by(losses, *options):
    """Train with these losses and none of the usual ones."""
    settings = settings_of("compose", *options)
    settings.own.loss[:] = losses
    return train(settings)


REMEMBERS = [
    "early_learning_regularization",
    "memory_targets",
    "relative_uncertainty",
    "sparse_over_parameterization",
    "sparse_over_parameterization_plus",
]


def test_stopped_and_resumed_equals_one_run_to_the_bit(tmp_path):
    """With all losses that remember, draw, learn or count, two of which propose one tensor."""
    losses = [*REMEMBERS, "scn=1,rank_weight=0.2", "drawn_vote", "extra_knowledge"]
    compose_by(losses, "--reader.voters=10", f"--output={tmp_path}/whole")
    stopped = "--reader.voters=10", f"--output={tmp_path}/stopped"
    compose_by(losses, *stopped, "--stop-after=1")
    compose_by(losses, *stopped, "--resume")
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "stopped")


def test_a_loss_given_twice_is_refused(tmp_path):
    with pytest.raises(Refused, match="--loss scn is given 2 times; give each loss once"):
        prepared(["scn", "cross_entropy", "robustfer:scn=2"], f"--output={tmp_path}/run")


@pytest.mark.parametrize("name", OF_PLUGINS)
def test_every_loss_of_a_plugin_trains(name, tmp_path):
    outcome = compose_by([name], "--epochs=1", "--reader.voters=10", f"--output={tmp_path}/run")
    assert outcome.history.last[f"loss/{name}"] != 0
    both = {"attention_flipped", "logits_flipped"}
    taken = {tensor.name for tensor in registry.describe(name).tensors}
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["passes"] == (2 if both & taken else 1)


def test_the_losses_of_plugins_are_found():
    assert {"generalized_cross_entropy", *REMEMBERS} <= {*OF_PLUGINS}


def test_a_composition_relabels_and_has_a_teacher(tmp_path):
    outcome = train(settings_of("compose", f"--output={tmp_path}/run"))
    assert outcome.history.last["changed"] > 0
    state = load_resume(tmp_path / "run/resume.pt")["method"]
    assert int(state["teacher.step"]) == 4


def prepared(losses, *options):
    settings = settings_of("compose", *options)
    settings.own.loss[:] = losses
    return Training(settings)


def test_the_counts_of_the_classes_are_those_of_the_labels_now(tmp_path, monkeypatch):
    training, seen = prepared(["extra_knowledge"], f"--output={tmp_path}/run"), []
    method = training.method
    terms = method.criterion.terms
    monkeypatch.setattr(
        method.criterion, "terms",
        lambda **given: seen.append(given["class_counts"].clone()) or terms(**given),
    )  # fmt: skip
    training.begin()
    training.run()
    training.end()
    assert torch.equal(seen[0], training.faces.targets.bincount(minlength=7).float())
    now = method.labels().bincount(minlength=7).float()
    assert torch.equal(method.counted(torch.device("cpu")), now)
    assert not torch.equal(now, seen[0])  # labels have changed


def test_the_counts_of_the_classes_can_be_told(tmp_path):
    told = "--class-counts=[4, 1, 1, 1, 1, 1, 0.5]", f"--output={tmp_path}/run"
    method = prepared(["extra_knowledge"], *told).method
    assert method.counted(torch.device("cpu")).tolist() == [4, 1, 1, 1, 1, 1, 0.5]
    with pytest.raises(Refused, match="--class-counts needs a loss"):
        prepared(["cross_entropy"], *told)
    with pytest.raises(Refused, match=r"--class-counts .* surprise.*, got 2"):
        prepared(["extra_knowledge"], "--class-counts=[4, 1]", told[1])


def test_the_votes_are_those_of_the_faces_of_a_batch(tmp_path):
    training = prepared(["drawn_vote"], "--reader.voters=10", f"--output={tmp_path}/run")
    method, seen = training.method, []
    terms = method.criterion.terms
    method.criterion.terms = lambda **given: seen.append(given) or terms(**given)
    training.begin()
    for batch in training._batches(1):
        method.loss(training.network, batch)
        assert torch.equal(seen[-1]["votes"], training.faces.votes[batch.index])
    training.end()
    assert 0 <= seen[0]["vote_draw"].min() < seen[0]["vote_draw"].max() < 1
    assert not torch.equal(seen[0]["vote_draw"], seen[1]["vote_draw"])
    assert "votes" not in method.state_dict()


def test_data_without_votes_is_refused(tmp_path):
    with pytest.raises(Refused, match="partial_label needs data with votes"):
        prepared(["partial_label"], f"--output={tmp_path}/run")


def test_a_second_view_is_made_only_for_losses_that_look_at_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Views, "pair", None)
    monkeypatch.setattr(compose, "ModelEMA", None)
    outcome = compose_by([], f"--output={tmp_path}/run")
    assert "loss/cross_entropy" in outcome.history.last


def test_a_tensor_that_the_loop_does_not_have_is_named(tmp_path):
    message = "adaptive_wing needs heatmap_target, heatmaps, .* it brings attention, "
    with pytest.raises(Refused, match=message):
        compose_by(["adaptive_wing"], f"--output={tmp_path}/run")


def test_a_term_has_the_weight_and_the_options_of_its_text():
    term = make_term("robustfer:scn=0.5,margin=0.1,variant=official", {}, None)
    assert (term.name, term.weight) == ("scn", 0.5)
    assert isinstance(term.loss, SCNLoss)
    assert (term.loss.margin, term.loss.variant) == (0.1, "official")
    weights = torch.ones(7)
    smoothed = make_term("cross_entropy,label_smoothing=0.1", {}, weights)
    assert isinstance(smoothed.loss, WeightedCrossEntropy)
    assert (smoothed.weight, smoothed.loss.label_smoothing) == (1.0, 0.1)
    assert torch.equal(smoothed.loss.weight, weights)
    assert torch.equal(make_term("eac=1", {}, weights).loss.class_weights, weights)


OPTIONS = {
    "scale=[1,2],other=3": {"scale": [1, 2], "other": 3},
    "scale={a: 1, b: [2, 3]},other=(4,5)": {"scale": {"a": 1, "b": [2, 3]}, "other": (4, 5)},
    "scale={'a,b': 1},other='c,[d'": {"scale": {"a,b": 1}, "other": "c,[d"},
    "scale=[a, no]": {"scale": ["a", False]},
    "other=a=b": {"other": "a=b"},
}


@pytest.mark.parametrize("text", OPTIONS)
def test_an_option_may_be_a_list_a_mapping_or_quoted_text(text):
    assert read_options(text, f"acme,{text}") == OPTIONS[text]


def test_a_list_reaches_the_loss_from_the_command_line():
    own = METHODS["compose"].load().Options
    losses = parse("compose", own, ["--loss", "acme,scale=[1,2]", "--loss", "eac"]).own.loss
    assert losses == ["acme,scale=[1,2]", "eac"]


@pytest.mark.parametrize(
    ("word", "on"), [("true", True), ("yes", True), ("on", True), ("True", True),
                     ("false", False), ("no", False), ("off", False), ("False", False)],
)  # fmt: skip
def test_a_word_switches_on_or_off(word, on):
    learnt = list(make_term(f"scn=1,learnable_margin={word}", {}, None).loss.parameters())
    assert bool(learnt) is on


def test_sizes_are_filled_where_they_are_needed_and_not_given(monkeypatch):
    class Sized(nn.Module):
        def __init__(self, *, num_samples, num_classes, dim=3):
            super().__init__()
            self.sizes = num_samples, num_classes, dim

        def forward(self, logits):
            return logits.sum()

    found = SimpleNamespace(options=options_of(signature_of(Sized)))
    monkeypatch.setattr(registry, "describe", lambda name: found)
    monkeypatch.setattr(registry, "create", lambda name, **options: Sized(**options))
    sizes = {"num_samples": 9, "num_classes": 7, "num_features": 64, "dim": 8}
    assert make_term("sized", sizes, None).loss.sizes == (9, 7, 3)
    assert make_term("sized=1,num_classes=2", sizes, None).loss.sizes == (9, 2, 3)


@pytest.mark.parametrize(
    ("text", "error", "fact"),
    [
        ("no_such_loss", registry.UnknownComponentError, "'no_such_loss'"),
        ("eac=1,consistency=2", TypeError, "'consistency_weight'"),
        ("eac=much", Refused, "much"),
        ("eac=1,variant", Refused, "variant"),
        ("eac=1,variant=[1,2", Refused, r"--loss eac.* brackets and quotes must be closed"),
        ("eac=1,variant=1],margin=2", Refused, "brackets and quotes must be closed"),
        ("eac=1,variant='a,margin=2", Refused, "brackets and quotes must be closed"),
        ("eac=1,variant={[a]: 1}", Refused, "variant must be a value of Python or YAML"),
        ("eac=1,variant=a: b: c", Refused, "variant must be a value of Python or YAML"),
    ],
)
def test_what_is_misspelt_is_refused(text, error, fact):
    with pytest.raises(error, match=fact):
        make_term(text, {}, None)
