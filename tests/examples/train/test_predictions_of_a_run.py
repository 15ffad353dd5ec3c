"""What a run predicts with: its last weights, their average, and mirror images."""

import pytest
import torch

from examples.train.engine import Training
from examples.train.evaluation import mean_prediction
from examples.train.options import Refused
from examples.train.trained import load_trained
from tests.examples.train.runs import run, settings_of

ENDINGS = ("", "_ema", "_mirrored", "_ema_mirrored")


def judged_by_hand(folder, faces):
    """Share of the faces whose class a saved model names, without and with mirror images."""
    trained = load_trained(str(folder))
    images = torch.stack([faces[row]["image"] for row in range(len(faces))])
    with torch.no_grad():
        plain, mirrored = (
            trained.classifier(trained.views.plain(seen)).logits.softmax(1)
            for seen in (images, images.flip(-1))
        )
    classes = [p.argmax(1) for p in (plain, plain + mirrored)]
    right = [predicted == faces.targets for predicted in classes]
    known = faces.targets.unique()
    return [
        (
            float(found.float().mean()),
            float(torch.stack([found[faces.targets == k].float().mean() for k in known]).mean()),
        )
        for found in right
    ]


def test_each_prediction_has_figures_by_its_own_name(tmp_path):
    options = ["--ema-decay=0.9", "--mirrored", f"--output={tmp_path}/run", "--learning-rate=0.01"]
    outcome = run("ce", *options)
    faces = Training(settings_of("ce", *options)).judged
    last = outcome.history.last
    for folder, endings in (("", ENDINGS[::2]), ("ema", ENDINGS[1::2])):
        by_hand = judged_by_hand(tmp_path / "run" / folder, faces)
        for ending, (overall, mean_class) in zip(endings, by_hand, strict=True):
            assert last[f"accuracy{ending}"] == pytest.approx(overall, abs=1e-6)
            assert last[f"mean_class_accuracy{ending}"] == pytest.approx(mean_class, abs=1e-6)
    for ending in ENDINGS:
        name = f"accuracy{ending}"
        best = max(epoch[name] for epoch in outcome.history.epochs)
        assert outcome.history.best(name)[name] == best


def test_only_what_was_asked_for_is_evaluated(tmp_path):
    last = run("ce", f"--output={tmp_path}/run").history.last
    assert [name for name in last if "accuracy" in name] == ["accuracy", "mean_class_accuracy"]
    assert not (tmp_path / "run/ema").exists()


@pytest.mark.parametrize("method", ["ce", "lanet"])
def test_the_average_is_that_of_the_weights_after_each_step(method, tmp_path):
    training = Training(settings_of(method, "--ema-decay=0.6", f"--output={tmp_path}/run"))
    training.begin()
    weight = training.method.classifier.get_classifier().weight
    expected = weight.detach().clone()
    for number, batch in enumerate(list(training._batches(1)) * 2, 1):
        training._step(batch)
        share = min(1 - 1 / (number + 1), 0.6)
        expected = share * expected + (1 - share) * weight.detach()
    training.end()
    assert not torch.equal(expected, weight)
    averaged = training.method.ema.module.get_classifier().weight
    torch.testing.assert_close(averaged, expected)


def test_a_run_that_stopped_is_not_finished_by_the_average_of_one(tmp_path):
    run("ce", "--ema-decay=0.9", f"--output={tmp_path}/run")
    (tmp_path / "run/model.safetensors").unlink()
    with pytest.raises(Refused, match="not finished"):
        load_trained(str(tmp_path / "run"))


def test_the_mean_of_two_predictions_is_that_of_their_probabilities():
    one, other = torch.randn(2, 5, 3).double() * 30
    expected = (one.softmax(1) + other.softmax(1)) / 2
    torch.testing.assert_close(mean_prediction(one, other).exp(), expected)
    far = torch.tensor([[0.0, -2000.0]])
    assert mean_prediction(far, far).isfinite().all()
