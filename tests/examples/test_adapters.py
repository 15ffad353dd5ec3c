"""Each adapter trains two steps as a plain loop does, to the bit, and goes on from a checkpoint."""

import logging
import socket
from pathlib import Path
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from timm.task import resume_task_checkpoint
from timm.utils import CheckpointSaver
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainingArguments

from examples.adapters.hf_trainer import EACTrainer
from examples.adapters.lightning_module import EACModule
from examples.adapters.timm_task import EACTask
from examples.train.weights import SMALL_BACKBONES
from robustfer.augmentations import MirroredPair
from robustfer.data import DemoFaces
from robustfer.losses import EACLoss
from robustfer.models import CAMClassifier
from robustfer.state import LabelStore, Relabeler

# Lightning's own: it calls a name of torch that has another now, and advises more workers.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]

FACES = DemoFaces(16)
BATCH = 8
EPOCHS = 2  # of two steps each; the second trains on labels that the first has changed
LEARNING_RATE = 2e-3


class Pair(MirroredPair):
    """What is drawn depends on the images alone, not on what a trainer has drawn before."""

    def forward(self, images, *, generator=None):
        seed = int(images.sum(dtype=torch.int64))
        return super().forward(images, generator=torch.Generator().manual_seed(seed))


class Recorded(EACLoss):
    """Remembers what reaches it."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def terms(self, logits, target, attention, attention_flipped):
        found = super().terms(logits, target, attention, attention_flipped)
        if logits.requires_grad:
            maps = (attention.detach(), attention_flipped.detach())
            self.batches.append((target, *maps, sum(found.values()).detach()))
        return found


class Parts:
    """What every adapter is given, equal each time; and the rows that were asked for."""

    def __init__(self):
        torch.manual_seed(0)
        name, options = SMALL_BACKBONES["tiny"]
        self.model = CAMClassifier(name, num_classes=7, model_options=options)
        self.initial = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.labels = LabelStore(FACES.targets, num_classes=7)
        self.relabeler = Relabeler(
            self.labels, margin=0.0, scope="all", weighting="none", start_epoch=1, cooldown=0
        )
        self.views, self.criterion, self.indices = Pair(), Recorded(), []
        self.labels.register_forward_pre_hook(self._remember)

    def _remember(self, labels, args):
        if torch.is_grad_enabled():  # the Relabeler asks too
            self.indices.append(args[0].clone())

    @property
    def given(self):
        return {"relabeler": self.relabeler, "views": self.views, "criterion": self.criterion}


def loader(batch=BATCH):
    """All faces, each time in the same mixed order."""
    order = torch.randperm(len(FACES), generator=torch.Generator().manual_seed(1)).tolist()
    return DataLoader(FACES, batch_size=batch, sampler=order)


def plain_loop(indices):
    """The same without any framework, on the batches that one has made."""
    parts = Parts()
    optimizer = torch.optim.AdamW(parts.model.parameters(), lr=LEARNING_RATE)
    for step, index in enumerate(indices, start=1):
        images = torch.stack([FACES[row]["image"] for row in index.tolist()])
        view, view_flipped = parts.views(images)
        output, flipped = parts.model(view), parts.model(view_flipped)
        loss = parts.criterion(
            output.logits, parts.labels(index), output.attention, flipped.attention
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        epoch = 1 + (step - 1) * BATCH // len(FACES)
        parts.relabeler.update(index, output.logits, step=step, epoch=epoch)
    return parts


def same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    # NaN stands in the journal where there is nothing.
    return all(torch.equal(one[n].nan_to_num(), other[n].nan_to_num()) for n in one)


def assert_trained_like_a_plain_loop(parts):
    assert len(parts.indices) == EPOCHS * len(FACES) // BATCH
    first_epoch, second_epoch = torch.cat(parts.indices).chunk(EPOCHS)
    for index in (first_epoch, second_epoch):
        assert sorted(index.tolist()) == [*range(len(FACES))]
    expected = plain_loop(parts.indices)
    for found, wanted in zip(parts.criterion.batches, expected.criterion.batches, strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one, other)  # target, maps of both views, loss
    assert same_state(parts.model, expected.model)
    assert same_state(parts.labels, expected.labels)

    target, attention, attention_flipped, losses = zip(*parts.criterion.batches, strict=True)
    assert not torch.equal(attention[0].flip(-1), attention_flipped[0])  # a view of its own
    assert len({float(loss) for loss in losses}) == len(losses)
    first_targets, second_targets = torch.cat(target).chunk(EPOCHS)
    assert torch.equal(first_targets, FACES.targets[first_epoch])
    assert not torch.equal(second_targets, FACES.targets[second_epoch])
    weights = [name for name, _ in parts.model.named_parameters()]
    trained = parts.model.state_dict()
    assert not any(torch.equal(trained[name], parts.initial[name]) for name in weights)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch, capfd):
    """No network, no file but where one was asked for, nothing printed."""

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(logging.getLogger("pytorch_lightning"), "level", logging.ERROR)
    yield
    assert list(elsewhere.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def timm_run(epochs, folder):
    parts = Parts()
    task = EACTask(parts.model, **parts.given)
    optimizer = torch.optim.AdamW(task.get_trainable_module().parameters(), lr=LEARNING_RATE)
    saver = CheckpointSaver(
        parts.model, optimizer, task=task, checkpoint_dir=folder, recovery_dir=folder
    )
    checkpoint = folder / "last.pth.tar"
    start = resume_task_checkpoint(task, checkpoint, optimizer) if checkpoint.exists() else 0
    task.train()
    for epoch in range(start, epochs):
        for step, batch in enumerate(loader(), start=1 + epoch * len(FACES) // BATCH):
            result = task(batch["image"], batch["index"])
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            task.after_step(result, batch["index"], step=step, epoch=epoch + 1)
        saver.save_checkpoint(epoch)
    return parts, task


def test_timm(tmp_path):
    parts, task = timm_run(EPOCHS, tmp_path)
    assert_trained_like_a_plain_loop(parts)
    evaluator = task.create_evaluator()
    task.eval()
    for batch in loader():
        output = task.get_eval_model()(task.views(batch["image"]).view)
        evaluator.update(output[0], batch["target"])  # timm's loops take the first of a tuple
    assert evaluator.summary()["top1"] in [100 * right / len(FACES) for right in range(17)]


def lightning_fit(module, epochs, folder, batch=BATCH, **options):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    checkpoint = folder / "last.ckpt"
    resumed = checkpoint if checkpoint.exists() else None
    trainer.fit(
        module,
        loader(batch),
        DataLoader(FACES, batch_size=BATCH),
        ckpt_path=resumed,
        weights_only=True,
    )
    trainer.save_checkpoint(checkpoint)
    return trainer


def lightning_run(epochs, folder, **options_of_fit):
    parts, (name, options) = Parts(), SMALL_BACKBONES["tiny"]
    torch.manual_seed(0)
    module = EACModule(name, 7, model_options=options, learning_rate=LEARNING_RATE, **parts.given)
    parts.model = module.model
    return parts, lightning_fit(module, epochs, folder, **options_of_fit)


def trainer_run(epochs, folder, **options):
    parts = Parts()
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        save_strategy="epoch",
        remove_unused_columns=False,
        label_names=["target"],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
        **options,
    )
    optimizer = torch.optim.AdamW(parts.model.parameters(), lr=LEARNING_RATE)
    trainer = EACTrainer(
        parts.model,
        arguments,
        train_dataset=FACES,
        eval_dataset=FACES,
        optimizers=(optimizer, None),
        **parts.given,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    return parts, trainer


def test_lightning(tmp_path):
    parts, trainer = lightning_run(EPOCHS, tmp_path)
    assert_trained_like_a_plain_loop(parts)
    assert trainer.callback_metrics["cross_entropy"] > 0
    assert 0 <= trainer.callback_metrics["val_accuracy"] <= 1
    # Of several processes, each validates only its part of the faces.
    module = trainer.lightning_module
    module.log_dict = Mock()
    module.validation_step(next(iter(loader())), 0)
    assert module.log_dict.call_args.kwargs == {"batch_size": BATCH, "sync_dist": True}


def test_lightning_relabels_every_batch_of_accumulated_gradients_after_the_step(tmp_path):
    accumulated = {"batch": 2, "accumulate_grad_batches": 4}
    parts, trainer = lightning_run(1, tmp_path, **accumulated)
    assert trainer.global_step == 2
    changes = parts.labels.journal()
    assert changes["step"].unique().tolist() == [1, 2]
    for number, index in enumerate(parts.indices):
        # The four batches of a step change after that step, not in the step before.
        rows = torch.isin(changes["index"], index)
        assert changes["step"][rows].unique().tolist() in ([], [1 + number // 4])
    # A run that continues counts from the steps of its checkpoint.
    resumed, trainer = lightning_run(2, tmp_path, **accumulated)
    assert trainer.global_step == 4
    assert set(resumed.labels.journal()["step"].tolist()) <= {1, 2, 3, 4}


def test_lightning_makes_the_network_of_a_checkpoint_again(tmp_path):
    parts, _ = lightning_run(1, tmp_path)
    module = EACModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert same_state(module.model, parts.model)
    assert module.learning_rate == LEARNING_RATE
    images = next(iter(loader()))["image"]
    view = module.views.eval()(images).view
    expected = parts.model.eval()(view).logits
    torch.testing.assert_close(module.eval().model(view).logits, expected)


def test_lightning_trains_on_the_labels_given_without_a_relabeler(tmp_path):
    name, options = SMALL_BACKBONES["tiny"]
    module = EACModule(name, 7, model_options=options, criterion=Recorded())
    lightning_fit(module, 1, tmp_path)
    target = torch.cat([batch[0] for batch in module.criterion.batches])
    order = torch.cat([batch["index"] for batch in loader()])
    assert torch.equal(target, FACES.targets[order])
    labels = LabelStore(FACES.targets, num_classes=7)
    relabeler = Relabeler(labels, scope="all", weighting="none", start_epoch=1)
    EACModule.load_from_checkpoint(tmp_path / "last.ckpt", relabeler=relabeler, weights_only=True)
    assert not labels.changed().any()


@pytest.mark.parametrize("run", [timm_run, lightning_run])
def test_what_is_logged_needs_no_gradient(run, tmp_path):
    _, module = run(1, tmp_path)
    if run is timm_run:
        batch = next(iter(loader()))
        logged = module.train()(batch["image"], batch["index"])
        assert logged.pop("loss").requires_grad
        assert logged.pop("output").requires_grad
    else:
        logged = module.callback_metrics
    assert {"cross_entropy", "attention_consistency"} <= logged.keys()
    assert all(float(value) >= 0 for value in logged.values())  # a warning is an error


def test_trainer(tmp_path):
    parts, trainer = trainer_run(EPOCHS, tmp_path)
    assert_trained_like_a_plain_loop(parts)
    assert trainer.relabelling.seen == []
    figures = trainer.predict(FACES)
    assert torch.equal(torch.from_numpy(figures.label_ids), FACES.targets)
    assert figures.predictions.shape == (len(FACES), 7)


def test_trainer_relabels_every_batch_of_accumulated_gradients(tmp_path):
    parts, trainer = trainer_run(1, tmp_path, gradient_accumulation_steps=2)
    assert trainer.state.global_step == 1
    changes = parts.labels.journal()
    assert changes["step"].unique().tolist() == [1]
    for index in parts.indices:
        assert torch.isin(changes["index"], index).any()


@pytest.mark.parametrize("run", [timm_run, lightning_run, trainer_run])
def test_a_resumed_run_equals_one_that_was_not_stopped(run, tmp_path):
    for folder in ("whole", "stopped"):
        Path(tmp_path, folder).mkdir()
    whole, _ = run(EPOCHS, tmp_path / "whole")
    stopped, _ = run(1, tmp_path / "stopped")
    resumed, _ = run(EPOCHS, tmp_path / "stopped")
    assert len(resumed.indices) == len(whole.indices) - len(stopped.indices) == 2
    assert same_state(resumed.model, whole.model)
    assert same_state(resumed.labels, whole.labels)
    assert int(stopped.labels.changed().sum()) > 0
