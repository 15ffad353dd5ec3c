"""The record of a training: what it holds, that it can be left out, and that an audit reads it."""

import pytest
import torch
from safetensors.torch import load_file

from examples.train.data import load_faces
from examples.train.engine import Training
from examples.train.options import Refused
from robustfer.audit import audit
from robustfer.cli import main
from robustfer.noise import write_noise_list
from robustfer.state import TrainingDynamics
from tests.examples.train.runs import METHOD_OPTIONS, run, settings_of

CLASSES = 7
# Two epochs of forty faces, without the last batch, leave two of them out.
pytestmark = pytest.mark.filterwarnings("ignore:2 of 40 samples were never visited")


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_the_record_is_what_the_network_said_in_each_step(method, tmp_path):
    training = Training(settings_of(method, f"--output={tmp_path}/run"))
    training.begin()
    network, said = training.network, {}
    seen = []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for epoch in (1, 2):
        for batch in training._batches(epoch):
            seen.clear()
            training._step(batch)
            output = seen[0]
            if not hasattr(output, "logits"):  # of several views: the first is the training view
                output = output[0]
            logits = output.logits.detach() - getattr(training.method, "shift", 0)
            for row, scores in zip(batch.index.tolist(), logits, strict=True):
                said.setdefault(row, []).append(scores)
    training.end()
    given, record = training.faces.targets, training.record
    mean, margin = record.probabilities(), record.area_under_margin()
    for row in range(len(given)):
        assert record.visits[row] == len(said.get(row, []))
        if row not in said:
            continue
        scores = torch.stack(said[row])
        torch.testing.assert_close(mean[row], scores.softmax(1).mean(0), rtol=1e-4, atol=1e-5)
        own = scores[:, given[row]]
        others = torch.cat((scores[:, : given[row]], scores[:, given[row] + 1 :]), 1).amax(1)
        torch.testing.assert_close(margin[row], (own - others).mean(), rtol=1e-4, atol=1e-5)


def test_without_a_record_training_is_the_same_to_the_bit(tmp_path):
    recorded = run("ce", f"--output={tmp_path}/with")
    other = run("ce", "--dynamics=false", f"--output={tmp_path}/without")
    assert not (tmp_path / "without/dynamics.safetensors").exists()
    for name, value in recorded.classifier.state_dict().items():
        assert torch.equal(other.classifier.state_dict()[name], value), name


def test_a_record_cannot_begin_in_the_middle_of_a_run(tmp_path):
    run("ce", "--dynamics=false", "--stop-after=1", f"--output={tmp_path}/run")
    with pytest.raises(Refused, match=r"no record of its first epochs.*--dynamics false"):
        run("ce", "--resume", f"--output={tmp_path}/run")
    run("ce", "--resume", "--dynamics=false", f"--output={tmp_path}/run")
    run("ce", "--stop-after=1", f"--output={tmp_path}/stopped")
    run("ce", "--resume", "--dynamics=false", f"--output={tmp_path}/stopped")
    assert not (tmp_path / "stopped/dynamics.safetensors").exists()


def test_probabilities_as_labels_are_recorded_by_their_largest(tmp_path):
    faces, judged = load_faces(settings_of("ce"))
    soft = torch.full((len(faces), CLASSES), 0.05)
    soft[torch.arange(len(faces)), faces.targets] = 0.7
    given, faces.targets = faces.targets, soft
    run("ce", f"--output={tmp_path}/run", "--class-weights=none", faces=(faces, judged))
    assert torch.equal(
        load_file(tmp_path / "run/dynamics.safetensors")["label_given"].long(), given
    )


@pytest.mark.parametrize("averaged", [False, True])
def test_at_the_end_each_training_face_is_predicted(averaged, tmp_path):
    options = ["--ema-decay=0.5"] if averaged else []
    settings = settings_of("ce", *options, f"--output={tmp_path}/run")
    training = Training(settings)
    training.begin()
    training.run()
    training.end()
    faces, views = training.faces, training.method.views
    images = torch.stack([faces[row]["image"] for row in range(len(faces))])
    network = training.method.ema if averaged else training.method.classifier
    network.eval()
    with torch.no_grad():
        expected = network(views.plain(images)).logits.softmax(1)
    found = load_file(tmp_path / "run/final.safetensors")["probabilities"]
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)


def test_an_audit_reads_the_run(tmp_path, capsys):
    faces, _ = load_faces(settings_of("ce", "--noise=none"))
    noisy = faces.targets.clone()
    noisy[::4] = (noisy[::4] + 1) % CLASSES
    labels = tmp_path / "labels.txt"
    write_noise_list(labels, faces.ids, noisy)
    run(
        "ce",
        "--noise=list",
        "--noise-rate=null",
        f"--noise-list={labels}",
        f"--output={tmp_path}/run",
    )
    record = TrainingDynamics(len(faces), num_classes=CLASSES, given=noisy)
    record.load_state_dict(load_file(tmp_path / "run/dynamics.safetensors"))
    capsys.readouterr()
    page, reader = tmp_path / "review.html", ["--reader", "num_samples=40", "--reader", "size=32"]
    command = ["audit", f"{tmp_path}/run", "--data", "demo", *reader, "--list", str(labels)]
    assert main([*command, "--output", str(page)]) == 0
    assert page.is_file()
    final = load_file(tmp_path / "run/final.safetensors")["probabilities"].double()
    both = (record.probabilities().double() + final) / 2
    expected = audit(noisy, both, classes=faces.classes, ids=faces.ids)
    shown = capsys.readouterr().out
    assert expected.text() in shown
    assert "predictions: mean over all visits (2 samples had none), and the final weights" in shown
    assert "other labels" not in shown
    assert main([*command[: command.index("--list")], "--output", str(page)]) == 0
    assert "trained on other labels: 10 of 40 differ" in capsys.readouterr().out
