"""Forward correction and the teacher: each term as a slow loop makes it."""

from dataclasses import replace

import pytest
import torch

from examples.train.data import seed_of
from examples.train.engine import Training
from examples.train.methods.base import ramp
from examples.train.options import Refused
from robustfer.noise import transition_from_confident_joint
from tests.examples.train.runs import METHOD_OPTIONS, run, settings_of

# What only tells how fast, or is named by the method.
UNLIKE = ("images_per_second", "loss/")


def begun(method, *options):
    training = Training(settings_of(method, *options))
    training.begin()
    return training


def likened(history):
    return [
        {name: value for name, value in epoch.items() if not name.startswith(UNLIKE)}
        for epoch in history.epochs
    ]


def test_without_a_matrix_it_is_cross_entropy(tmp_path, monkeypatch):
    for method in ("ce", "forward", "teacher"):
        monkeypatch.setitem(METHOD_OPTIONS, method, [])
    plain = run("ce", f"--output={tmp_path}/ce").history
    for method in ("forward", "teacher"):
        plain_options = ("--transition=none", "--distillation-weight=0")
        found = run(method, *plain_options, f"--output={tmp_path}/{method}").history
        for one, other in zip(likened(plain), likened(found), strict=True):
            assert one == pytest.approx(other, abs=1e-5)


def test_a_ramp_rises_between_two_shares_of_the_run():
    heights = [ramp(progress, (0.2, 0.6)) for progress in (0.0, 0.2, 0.3, 0.4, 0.6, 1.0)]
    assert heights == pytest.approx([0, 0, 0.25, 0.5, 1, 1])
    assert [ramp(progress, (0.5, 0.5)) for progress in (0.4, 0.5)] == [0, 1]


@pytest.mark.parametrize("method", ["forward", "teacher"])
def test_verified_faces_train_with_their_true_label(method, tmp_path):
    training = begun(method, f"--output={tmp_path}/run")
    faces, method_ = training.faces, training.method
    wrong = faces.targets != faces.true_targets
    assert int(method_.verified.sum()) == 20
    assert (method_.labels_now() != faces.targets).nonzero()[:, 0].tolist() == (
        (wrong & method_.verified).nonzero()[:, 0].tolist()
    )
    training.end()


@torch.no_grad()
def terms_by_hand(method, batch):
    """The terms of the teacher, sample after sample."""
    options, share = method.options, batch.step / method.task.steps
    points = method.points[batch.index]
    view, mirror, *_ = method.views.pair_with_landmarks(batch, points, method.layout)
    output, flipped = method.network(view, view.flip(-1))
    taught = (method.teacher.eval()(mirror).logits - method.shift).softmax(1)
    student = (output.logits - method.shift).softmax(1)
    height = min(1, max(0, share / 0.5))  # of the ramps in METHOD_OPTIONS
    matrix = method.criterion.transition
    sums = dict.fromkeys(("memory", "forward_correction", "self_distillation"), 0.0)
    for number, row in enumerate(batch.index.tolist()):
        label, known = int(method.label[row]), bool(method.verified[row])
        p = student[number]
        believed = (
            options.memory_decay * method.memory.bank.distribution[row]
            + (1 - options.memory_decay) * taught[number]
        )
        own = torch.eye(7)[label] if known else matrix[:, label]
        loss = (1 - (own @ p) ** options.q) / options.q
        remembered = sum(believed[k] * (1 - p[k] ** options.q) / options.q for k in range(7))
        weight = 1.0
        if share >= options.posterior_from and not known:
            joint = believed * method.memory.transition[:, label]
            weight = max(options.posterior_floor, float(joint[label] / joint.sum()))
        part = 0.0 if known else options.memory_weight * height
        sums["forward_correction"] += weight * (1 - part) * loss
        sums["memory"] += part * remembered
        divergence = (taught[number] * (taught[number] / p).log()).sum()
        sums["self_distillation"] += options.distillation_weight * height * divergence
    terms = {name: value / len(batch.index) for name, value in sums.items()}
    difference = output.attention - flipped.attention.flip(-1)
    terms["attention_consistency"] = options.consistency_weight * difference.square().mean()
    return terms


def test_every_term_is_what_a_slow_loop_makes(tmp_path):
    training = begun("teacher", f"--output={tmp_path}/run")
    method = training.method
    with torch.no_grad():  # a teacher and maps that say something
        method.classifier.get_classifier().weight.mul_(20)
    seen = set()
    for epoch in (1, 2):
        method.train()
        for number, batch in enumerate(training._batches(epoch)):
            again = torch.Generator().manual_seed(seed_of(0, epoch, number, 1))
            expected = terms_by_hand(method, replace(batch, generator=again))
            found = method.loss(training.network, batch)
            assert found.keys() == {*expected, "landmark_adaptive_wing"}
            for name, value in expected.items():
                torch.testing.assert_close(found[name].detach(), torch.as_tensor(value))
                if float(value):
                    seen.add(name)
            batch.generator.manual_seed(seed_of(0, epoch, number, 1))
            training._step(batch)
    training.end()
    assert seen == set(expected)


def test_the_teacher_is_not_moved_by_what_it_sees(tmp_path):
    training = begun("forward", f"--output={tmp_path}/run", "--distillation-ramp=[0, 0]")
    method = training.method
    method.train()
    assert method.network.training
    before = {name: value.clone() for name, value in method.teacher.state_dict().items()}
    method.loss(training.network, next(training._batches(1)))
    training.end()
    for name, value in method.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_matrix_is_estimated_from_the_memory_once_it_is_needed(tmp_path):
    options = ["--transition=none", "--verified=0", "--adjust-to=none", "--posterior-from=0.5"]
    training = begun("teacher", *options, f"--output={tmp_path}/run")
    method = training.method
    for number, batch in enumerate([*training._batches(1), *training._batches(2)], 1):
        training._step(batch)
        if number == 1:
            assert torch.equal(method.memory.transition, torch.eye(7))
        if number == 2:
            expected = transition_from_confident_joint(
                method.label, method.memory.bank.distribution
            )
            torch.testing.assert_close(method.memory.transition, expected.float())
    torch.testing.assert_close(method.memory.transition, expected.float())
    training.end()


@pytest.mark.parametrize(
    ("options", "truth", "labels"),
    [
        (["--transition=none", "--adjust-to=truth"], 0.5, -0.5),
        (["--transition=none", "--adjust-to=uniform"], 0.5, -1.0),
        (["--transition=none", "--adjust-to=uniform", "--verified=0"], 0.0, -0.5),
        (["--transition=verified", "--adjust-to=uniform"], -0.5, 0.0),
        (["--transition=verified", "--adjust-to=truth"], 0.0, 0.0),
    ],
)
def test_predictions_are_adjusted_to_shares(options, truth, labels, tmp_path):
    """The shift is so many times the logarithms of both shares, up to a constant."""
    training = begun("teacher", *options, "--adjust-strength=0.5", f"--output={tmp_path}/run")
    method = training.method
    expected = labels * (method.label.bincount(minlength=7) / len(method.label)).double().log()
    if truth:
        expected = expected + truth * method.estimate.shares.log()
    found = method.shift.double() - method.shift.double().mean()
    torch.testing.assert_close(found, expected - expected.mean(), atol=1e-6, rtol=1e-5)
    training.end()


def test_a_network_learns_to_predict_with_the_shares_asked_for(tmp_path, monkeypatch):
    """Where images say nothing, the prediction is the share of the class."""
    monkeypatch.setitem(METHOD_OPTIONS, "teacher", [])
    training = begun(
        "teacher", "--adjust-to=uniform", "--optimizer=sgd", "--learning-rate=0.5",
        "--schedule=none", "--weight-decay=0", f"--output={tmp_path}/run",
    )  # fmt: skip
    head = training.method.classifier.get_classifier()
    for parameter in training.method.classifier.parameters():
        parameter.requires_grad_(parameter is head.bias)
        if parameter is head.weight:
            parameter.data.zero_()
    label = training.method.label
    for epoch in range(1, 60):
        for batch in training._batches(epoch):
            training._step(batch)
    training.end()
    plain = (head.bias - training.method.shift).softmax(0)
    shares = label.bincount(minlength=7) / len(label)
    torch.testing.assert_close(plain, shares, atol=0.04, rtol=0)
    torch.testing.assert_close(head.bias.softmax(0), torch.full((7,), 1 / 7), atol=0.06, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        ["--adjust-to=truth", "--transition=none", "--verified=0"],
        ["--transition=verified", "--verified=0", "--adjust-to=none"],
    ],
)
def test_what_needs_verified_labels_says_so(options, tmp_path):
    with pytest.raises(Refused, match="--verified 100"):
        Training(settings_of("teacher", *options, f"--output={tmp_path}/run"))


def test_parts_that_are_off_make_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(METHOD_OPTIONS, "teacher", ["--distillation-weight=0"])
    training = begun("teacher", f"--output={tmp_path}/run")
    method = training.method
    assert (method.teacher, method.memory, method.wing, method.passes) == (None, None, None, 1)
    assert list(method.loss(training.network, next(training._batches(1)))) == ["forward_correction"]
    training.end()
