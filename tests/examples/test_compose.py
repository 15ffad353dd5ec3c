"""Losses by name in one loop: the core's and every installed plugin's, stopped and resumed."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from examples import compose
from robustfer import registry
from robustfer._description import options_of, signature_of
from robustfer.data import DemoFaces
from robustfer.losses import SCNLoss
from robustfer.noise import with_symmetric_noise

SHORT = ["--backbone", "tiny", "--batch-size", "16", "--max-steps", "2", "--device", "cpu"]
SIZES = {"num_samples", "num_classes", "num_features"}


def can_be_made(name):
    """Whether the command line and the data have all that a loss must be told."""
    return {option.name for option in registry.describe(name).options if option.required} <= SIZES


OF_PLUGINS = [
    name
    for name, offer in registry.available("losses").items()
    if offer.plugin != "robustfer" and can_be_made(name)
]
COMPOSITIONS = {
    "consistency, distillation and relabelling": [
        "--loss=cross_entropy",
        "--loss=attention_consistency=0.5",
        "--loss=self_distillation=0.9",
        "--relabel-from=1",
        "--relabel-margin=0",
    ],
    "importance": ["--loss=scn=1,rank_weight=0.2", "--relabel-from=1", "--relabel-margin=0"],
}


@pytest.fixture(scope="module")
def faces():
    train = with_symmetric_noise(DemoFaces(96), rate=0.3, seed=0)
    return train, DemoFaces(32, split="test")


@pytest.mark.parametrize("name", [*COMPOSITIONS, *OF_PLUGINS])
def test_stop_and_resume_equal_one_run_to_the_bit(faces, tmp_path, name):
    losses = COMPOSITIONS.get(name, [f"--loss={name}"])
    common = [*SHORT, *losses, "--epochs", "2"]
    whole, history = compose.train(
        compose.parse([*common, "--output", str(tmp_path / "whole")]), *faces
    )
    stopped = [*common, "--output", str(tmp_path / "stopped")]
    compose.train(compose.parse([*stopped, "--stop-after", "1"]), *faces)
    resumed, resumed_history = compose.train(compose.parse([*stopped, "--resume"]), *faces)

    torch.testing.assert_close(
        resumed_history.epochs, history.epochs, rtol=0, atol=0, equal_nan=True
    )
    expected, found = whole.state_dict(), resumed.state_dict()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    saved = [
        torch.load(tmp_path / run / "resume.pt", weights_only=True) for run in ("whole", "stopped")
    ]
    for part in {"criterion", "labels", "teacher"} & saved[0].keys():
        for key, value in saved[0][part].items():
            assert torch.equal(saved[1][part][key], value), (part, key)


def test_a_composition_relabels_and_has_a_teacher(faces, tmp_path):
    losses = COMPOSITIONS["consistency, distillation and relabelling"]
    settings = compose.parse([*SHORT, *losses, "--epochs", "2", "--output", str(tmp_path)])
    _, history = compose.train(settings, *faces)
    assert history.last["changed"] > 0
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert {"teacher", "criterion", "labels"} <= saved.keys()


def test_no_loss_named_is_cross_entropy():
    settings = compose.parse([])
    (text,) = settings.loss
    term = compose.make_term(text, {})
    assert isinstance(term.loss, nn.CrossEntropyLoss)
    assert term.weight == 1.0


def test_a_term_has_the_weight_and_the_options_of_its_text():
    term = compose.make_term("robustfer:scn=0.5,margin=0.1,variant=official", {})
    assert (term.name, term.weight) == ("scn", 0.5)
    assert isinstance(term.loss, SCNLoss)
    assert (term.loss.margin, term.loss.variant) == (0.1, "official")
    smoothed = compose.make_term("cross_entropy,label_smoothing=0.1", {})
    assert (smoothed.weight, smoothed.loss.label_smoothing) == (1.0, 0.1)


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
    assert compose.make_term("sized", sizes).loss.sizes == (9, 7, 3)
    assert compose.make_term("sized=1,num_classes=2", sizes).loss.sizes == (9, 2, 3)


def test_a_second_view_is_made_only_for_losses_that_look_at_it(faces, tmp_path, monkeypatch):
    settings = compose.parse([*SHORT, "--epochs", "1", "--output", str(tmp_path)])
    monkeypatch.setattr(compose, "MirroredPair", None)
    monkeypatch.setattr(compose, "ModelEMA", None)
    compose.train(settings, *faces)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("no_such_loss", registry.UnknownComponentError, "no component is called 'no_such_loss'"),
        ("eac=1,consistency=2", TypeError, "did you mean 'consistency_weight'"),
        ("eac=much", ValueError, "could not convert string to float: 'much'"),
    ],
)
def test_what_is_misspelt_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        compose.make_term(text, {})


def test_a_tensor_that_the_loop_does_not_have_is_named(faces, tmp_path):
    settings = compose.parse([
        *SHORT, "--epochs", "1", "--loss=adaptive_wing", "--output", str(tmp_path)
    ])  # fmt: skip
    with pytest.raises(TypeError, match="term 'adaptive_wing' needs the tensor 'heatmaps'"):
        compose.train(settings, *faces)
