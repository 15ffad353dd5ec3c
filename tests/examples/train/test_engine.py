"""The loop: resumed to the bit, skipped steps, schedules, compiled code, figures and files."""

import copy
import csv

import pytest
import torch
from safetensors.torch import load_file

from examples.train.engine import Training
from examples.train.options import Refused
from examples.train.seeds import train_each_seed
from robustfer.checkpoint import load_model, load_resume, read_model_info
from robustfer.data import DemoFaces
from tests.examples.train.runs import (
    METHOD_OPTIONS,
    NOT_REPEATED,
    assert_equal,
    assert_same_to_the_bit,
    run,
    settings_of,
)


def metrics_of(folder):
    return list(csv.DictReader((folder / "logs/metrics.csv").read_text().splitlines()))


def begun(method, *options):
    training = Training(settings_of(method, *options))
    training.begin()
    return training


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_stopped_and_resumed_equals_one_run_to_the_bit(method, tmp_path):
    # Once with drop-out and images from files, once without.
    options = ["--backbone-options.drop_rate=0.2", "--ema-decay=0.9"]
    # A transition matrix needs the labels as often as they are.
    options += [] if method in ("forward", "teacher") else ["--sampling=progressive"]
    whole = run(method, *options, f"--output={tmp_path}/whole", "--keep=files")
    run(method, *options, f"--output={tmp_path}/stopped", "--stop-after=1")
    assert len(load_resume(tmp_path / "stopped/resume.pt")["history"]["epochs"]) == 1
    assert not (tmp_path / "stopped/model.safetensors").exists()
    resumed = run(method, *options, f"--output={tmp_path}/stopped", "--resume")
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "stopped")
    assert_equal(whole.classifier.state_dict(), resumed.classifier.state_dict())
    records = [tmp_path / name / "dynamics.safetensors" for name in ("whole", "stopped")]
    assert records[0].read_bytes() == records[1].read_bytes()
    rows = [metrics_of(tmp_path / name) for name in ("whole", "stopped")]
    for row in (*rows[0], *rows[1]):
        assert float(row.pop(NOT_REPEATED)) > 0
    assert rows[0] == rows[1]


@pytest.mark.parametrize("method", ["eac", "scn", "gsmc", "lanet"])
def test_the_whole_methods_take_class_weights(method, tmp_path):
    options = f"--output={tmp_path}/run", "--class-weights=[1, 1, 1, 4, 1, 1, 1]"
    own = Training(settings_of(method, *options)).method.criterion.class_weights
    assert float(own[3] / own[0]) == pytest.approx(4)
    assert run(method, *options, "--epochs=1").history.last["loss"] > 0


def test_a_finished_run_resumed_stays_as_it_is(tmp_path, capsys):
    run("gsmc", f"--output={tmp_path}/run")
    before = (tmp_path / "run/resume.pt").read_bytes()
    weights = load_file(tmp_path / "run/model.safetensors")
    outcome = run("gsmc", f"--output={tmp_path}/run", "--resume")
    assert len(outcome.history) == 2
    assert "continuing after epoch 2" in capsys.readouterr().out
    assert (tmp_path / "run/resume.pt").read_bytes() == before
    assert_equal(load_file(tmp_path / "run/model.safetensors"), weights)


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_skipped_step_leaves_all_state_untouched(method, tmp_path, monkeypatch):
    training = begun(method, "--precision=16-mixed", f"--output={tmp_path}/run")
    scaler = training.fabric.strategy.precision.scaler
    scaler._growth_interval = 1000
    batches = list(training._batches(1))

    _, stepped = training._step(batches[0])
    assert stepped
    before = everything(training)
    scale = scaler.get_scale()

    parameter = next(training.method.network.parameters())
    overflow = parameter.register_hook(lambda gradient: gradient * float("inf"))
    _, stepped = training._step(batches[1])
    overflow.remove()
    assert not stepped
    assert scaler.get_scale() < scale  # the scaler learns from it, and nothing else does
    assert_equal(everything(training), before)

    _, stepped = training._step(batches[1])
    assert stepped
    after = everything(training)
    assert after["schedule"]["updates"] == before["schedule"]["updates"] + 1
    changed = [n for n, v in after["method"].items() if not torch.equal(v, before["method"][n])]
    assert any(name.startswith("network.") for name in changed)
    assert after["record"]["visits"].sum() == before["record"]["visits"].sum() + 16
    training.end()


def everything(training):
    return copy.deepcopy({
        "method": dict(training.method.state_dict()),
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "record": dict(training.record.state_dict()),
    })  # fmt: skip


def test_figures_count_the_skipped_steps(tmp_path, monkeypatch):
    outcome = run("ce", "--precision=16-mixed", f"--output={tmp_path}/run")
    assert all(epoch["skipped_steps"] >= 0 for epoch in outcome.history.epochs)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_leaves_landmarks_exact(precision, tmp_path):
    training = begun(
        "lanet", "--second-space=coordinates", f"--precision={precision}", f"--output={tmp_path}/r"
    )
    seen = []
    space = training.method.network.landmark_space
    space.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    training._step(next(training._batches(1)))
    assert seen
    assert all(points.dtype == torch.float32 for points in seen)
    training.end()


def test_a_schedule_ends_with_the_run_also_with_fewer_steps_per_epoch():
    training = Training(settings_of("ce", "--max-steps=1", "--epochs=5"))
    assert training.schedule._torch.total_steps == 5


@pytest.mark.parametrize(
    "options",
    [
        ["--schedule=cosine", "--schedule-options.warmup_epochs=1", "--optimizer=lion"],
        ["--schedule=step", "--schedule-options.decay_epochs=1", "--optimizer=lookahead_adamw"],
        ["--schedule=constant", "--layer-decay=0.7", "--clip-norm=0.1", "--sampling=balanced"],
        ["--schedule=none", "--optimizer=sgd", "--optimizer-options.nesterov=true"],
    ],
)
def test_optimizers_and_schedules_resume_to_the_bit(options, tmp_path):
    run("ce", *options, f"--output={tmp_path}/whole")
    run("ce", *options, f"--output={tmp_path}/stopped", "--stop-after=1")
    run("ce", *options, f"--output={tmp_path}/stopped", "--resume")
    assert_same_to_the_bit(tmp_path / "whole", tmp_path / "stopped")


def test_the_learning_rate_follows_the_schedule(tmp_path):
    rates = {}
    for schedule in ("onecycle", "cosine", "none", "constant"):
        training = begun("ce", f"--schedule={schedule}", f"--output={tmp_path}/{schedule}",
                         "--epochs=5", "--learning-rate=0.01")  # fmt: skip
        rates[schedule] = []
        for _ in range(10):
            rates[schedule].append(training.optimizer.param_groups[0]["lr"])
            training.raw_optimizer.step()
            training.schedule.step()
        training.end()
    assert rates["none"] == rates["constant"] == [0.01] * 10
    assert rates["cosine"][0] == 0.01
    assert rates["cosine"] == sorted(rates["cosine"], reverse=True)
    assert rates["cosine"][5] == pytest.approx(0.005)
    assert max(rates["onecycle"]) == pytest.approx(0.01, rel=0.1)
    assert rates["onecycle"][0] == pytest.approx(0.01 / 25)


def test_layer_decay_slows_the_lower_layers(tmp_path):
    training = begun("ce", "--layer-decay=0.5", f"--output={tmp_path}/run", "--schedule=none")
    scales = {group["lr_scale"] for group in training.optimizer.param_groups}
    assert max(scales) == 1.0
    assert min(scales) < 0.5
    training.end()


def test_compiled_training_is_the_same(tmp_path, monkeypatch):
    compiled, compile_ = [], torch.compile

    def without_code_of_its_own(function):
        compiled.append(function)
        return compile_(function, backend="eager")

    monkeypatch.setattr(torch, "compile", without_code_of_its_own)
    run("eac", "--compile", f"--output={tmp_path}/compiled", "--accumulate=2")
    run("eac", f"--output={tmp_path}/plain", "--accumulate=2")
    assert len(compiled) == 1
    assert_same_to_the_bit(tmp_path / "compiled", tmp_path / "plain")


def test_figures_are_means_over_the_epoch(tmp_path):
    training = begun("eac", f"--output={tmp_path}/run")
    seen = []
    step = training._step

    def remember(batch):
        terms, stepped = step(batch)
        seen.append({name: float(value.detach()) for name, value in terms.items()})
        return terms, stepped

    training._step = remember
    figures = training._train_epoch(1)
    training.end()
    assert len(seen) == 2
    for name in ("cross_entropy", "attention_consistency"):
        assert figures[f"loss/{name}"] == pytest.approx(sum(s[name] for s in seen) / 2)
    assert figures["loss"] == pytest.approx(sum(sum(s.values()) for s in seen) / 2)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_what_was(tmp_path):
    run("ce", f"--output={tmp_path}/run", "--stop-after=1", "--schedule=none")
    before = (tmp_path / "run/resume.pt").read_bytes()
    training = begun("ce", f"--output={tmp_path}/run", "--resume", "--schedule=none")
    for parameter in training.method.parameters():
        parameter.data.mul_(float("nan"))
    told = r"no longer a number in epoch 2.*--learning-rate.*run keeps the epochs before.*--output"
    with pytest.raises(Refused, match=told):
        training.run()
    training.end()
    assert (tmp_path / "run/resume.pt").read_bytes() == before


def test_a_loss_that_is_no_number_from_the_start_names_the_seeds_left(tmp_path):
    too_much = ("--learning-rate=1e30", "--schedule=none")
    settings = settings_of("ce", "--seeds=3", f"--output={tmp_path}/run", *too_much)
    with pytest.raises(Refused) as caught:
        train_each_seed(settings)
    assert "in epoch 1; lower --learning-rate" in str(caught.value)
    assert "epochs before" not in str(caught.value)
    assert str(caught.value).endswith("; not trained yet: the seeds 1, 2")
    # The same command with a lower rate begins anew.
    run("ce", f"--output={tmp_path}/run/seed-0")


def test_logs_are_for_tensorboard_and_csv(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome = run("scn", f"--output={tmp_path}/run")
    events = EventAccumulator(str(tmp_path / "run/logs"))
    events.Reload()
    found = [event.value for event in events.Scalars("accuracy")]
    assert found == pytest.approx([epoch["accuracy"] for epoch in outcome.history.epochs])
    assert [event.step for event in events.Scalars("accuracy")] == [2, 4]
    rows = metrics_of(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == [2, 4]
    for row, epoch in zip(rows, outcome.history.epochs, strict=True):
        for name, value in epoch.items():
            assert float(row[name]) == pytest.approx(value, nan_ok=True)


def test_the_model_of_a_run_makes_its_figures(tmp_path):
    outcome = run("lanet", f"--output={tmp_path}/run")
    model = load_model(tmp_path / "run")
    classes, settings = read_model_info(tmp_path / "run")
    assert classes == DemoFaces(7).classes
    assert settings["method"] == "lanet"
    assert settings["image_size"] == [32, 32]
    faces = DemoFaces(40, split="test", size=32)
    images = torch.stack([faces[row]["image"] for row in range(40)]) / 255
    mean, std = (torch.tensor(settings[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        predicted = model((images - mean) / std).logits.argmax(1)
    right = (predicted == faces.targets).double().mean()
    assert outcome.history.last["accuracy"] == pytest.approx(float(right))


def test_started_with_another_number_of_processes_than_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Refused, match="torchrun started 2 processes"):
        Training(settings_of("ce"))
