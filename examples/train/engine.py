"""Run the training loop of every method: epochs, steps, evaluation, figures and files."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from tqdm import tqdm

from examples.train.data import Images, Order, class_weights, load_faces, seed_of
from examples.train.devices import (
    default_dtype,
    deterministic,
    device_name,
    is_native,
    make_fabric,
)
from examples.train.earlier import earlier_runs
from examples.train.evaluation import mean_prediction, predict
from examples.train.methods import METHODS
from examples.train.methods.base import Method, Task
from examples.train.optimizer import Schedule, make_optimizer
from examples.train.options import Refused, Settings, as_yaml
from examples.train.predictions import (
    files_digests,
    labels_fingerprint,
    rows_digest,
    write_predictions,
)
from examples.train.processes import average_, run_in_parts
from examples.train.recording import record_batch, start_record, write_record
from examples.train.run_folder import AVERAGE, LOGS, RunFolder, open_folder, path_of
from examples.train.views import Batch, Views
from examples.train.weights import is_factory, make_classifier, pixels_of, prepare
from robustfer.checkpoint import save_model
from robustfer.data import LabeledFaces
from robustfer.metrics import History, accuracy, confusion_matrix, mean_class_accuracy
from robustfer.models import CAMClassifier
from robustfer.state import ModelEMA

# The user can fix what fails before the first step, so these errors are shown in one line.
_MENDABLE = (ValueError, TypeError, LookupError, OSError, RuntimeError, ImportError)


@dataclass(frozen=True)
class Outcome:
    """The result of a training: its folder, the figures of each epoch, and the classifier."""

    folder: Path
    history: History
    classifier: CAMClassifier


@contextmanager
def refusing() -> Iterator[None]:
    """Turn errors that the user can fix into one line."""
    try:
        yield
    except _MENDABLE as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise Refused(text) from error


@contextmanager
def refusing_the_first(step: int) -> Iterator[None]:
    """Turn errors of the losses' own checks into one line, in the first step of a run.

    Other errors are mistakes in code, which a traceback helps to find.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        if step > 0:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise Refused(
            f"the first step fails: {text}; change the losses, their options or the data, and give "
            "the command again"
        ) from error


def train(settings: Settings, faces: tuple[LabeledFaces, LabeledFaces] | None = None) -> Outcome:
    """Train with the settings, in every process of the run.

    Args:
        settings: all options.
        faces: training set and evaluation set. Default: those of the settings.

    Raises:
        Refused: the settings cannot be used. It is raised before anything is written, except when
            a loss refuses its tensors in the first step, or becomes NaN or infinite.
    """
    with default_dtype(settings.run.precision), deterministic(settings.run.deterministic):
        with refusing():
            training = Training(settings, faces)
        try:
            with refusing():
                training.begin()
            return training.run()
        finally:
            training.end()


class Training:
    """One run: everything made from the settings, and the loop."""

    def __init__(
        self, settings: Settings, faces: tuple[LabeledFaces, LabeledFaces] | None = None
    ) -> None:
        self.settings = settings
        self.faces, self.judged = faces or load_faces(settings)
        kind = METHODS[settings.method].load()
        path = path_of(settings)
        loggers = [
            CSVLogger(path, name=LOGS, version=""),
            TensorBoardLogger(path, name=LOGS, version=""),
        ]
        self.fabric = make_fabric(
            settings.run, unused_parameters=kind.skips_parameters, loggers=loggers
        )
        batch, shares = settings.optimizer.batch_size, self.fabric.world_size
        parts = settings.run.accumulate
        if batch % (shares * parts):
            raise Refused(
                f"--batch-size {batch} cannot be split evenly over {shares} processes and {parts} "
                f"parts; choose a multiple of {shares * parts}"
            )
        if len(self.faces) < batch:
            raise Refused(
                f"--batch-size {batch} is more than the {len(self.faces)} training images; choose "
                "a smaller one"
            )
        self.steps = min(len(self.faces) // batch, settings.run.max_steps or len(self.faces))

        torch.manual_seed(settings.run.seed)
        classifier, self.report = make_classifier(settings.model, self.faces.classes)
        mean, std = pixels_of(classifier, self.report)
        first: Tensor = self.faces[0]["image"]
        views = Views(
            (first.shape[1], first.shape[2]),
            settings.views,
            mean=settings.views.mean or mean,
            std=settings.views.std or std,
        )
        own_backbone = is_factory(settings.model)
        if own_backbone:
            prepare(classifier, self.faces, views)
        task = Task(
            faces=self.faces,
            classifier=classifier,
            views=views,
            class_weights=class_weights(self.faces, settings.data),
            trained=(
                settings.model.pretrained or settings.model.weights is not None or own_backbone
            ),
            steps=self.steps * settings.optimizer.epochs,
            settings=settings,
        )
        self.method: Method = kind(task, settings.own)
        self.earlier = earlier_runs(settings)
        if settings.run.ema_decay is not None:
            # Statistics of batch norm fit only their weights, so they are averaged too.
            self.method.ema = ModelEMA(
                self.method.classifier, decay=settings.run.ema_decay, buffers="ema"
            )
        self.raw_optimizer = make_optimizer(self.method, settings.optimizer)
        self.schedule = Schedule(self.raw_optimizer.main, settings.optimizer, steps=self.steps)
        fused = getattr(self.raw_optimizer.main, "_step_supports_amp_scaling", False)
        if fused and settings.run.precision == "16-mixed":
            raise Refused(
                "--precision 16-mixed cannot tell which steps a fused optimizer skips; remove "
                "--optimizer-options.fused, or choose bf16-mixed"
            )
        self.record = start_record(self.faces) if settings.run.dynamics else None
        self.history = History()
        self.logits: Tensor | None = None
        self.trained_on = labels_fingerprint(self.faces)
        self.evaluated_on = labels_fingerprint(self.judged)
        # The labels of the training images are those that people decided.
        self.begun_with = {
            **files_digests(settings.own),
            "training": rows_digest(self.faces, self.method.labels_now()),
            "evaluation": rows_digest(self.judged, self.judged.targets),
        }
        self.folder: RunFolder | None = None

    def begin(self) -> None:
        """Start the processes, decode the images, and at last take the run's folder."""
        settings, fabric = self.settings, self.fabric
        fabric.launch()
        self.say(as_yaml(settings, type(settings.own)))
        self.say(self.faces.summary())
        if self.report is not None:
            self.say(self.report)
        if self.method.note is not None:
            self.say(self.method.note)
        precision = settings.run.precision
        if not is_native(precision, fabric.device.type):
            self.say(
                f"--precision {precision} is slow on this {fabric.device.type}, which has no "
                "instructions for it; choose 32"
            )
        device, copies = fabric.device, settings.run.devices
        shown = settings.run.progress and fabric.is_global_zero
        self.images, self.judged_images = (
            Images(
                faces, settings.data, device, copies=copies,
                title=f"reading the {name} images" if shown else None,
            )
            for faces, name in ((self.faces, "training"), (self.judged, "evaluation"))
        )  # fmt: skip
        if self.images.advice is not None:
            self.say(self.images.advice)
        self.targets = self.faces.targets.to(device)
        if self.targets.is_floating_point():
            self.targets = self.targets.to(torch.get_default_dtype())

        method = self.method.to(device, memory_format=torch.channels_last)
        if self.record is not None:
            self.record.to(device)
        self.stepped = False
        self.raw_optimizer.register_step_post_hook(self._has_stepped)
        if settings.run.compile:
            method.body.forward = torch.compile(method.body.forward)  # type: ignore[method-assign]
        if settings.run.accumulate > 1:
            run_in_parts(method.body, settings.run.accumulate)
        self.network, self.optimizer = fabric.setup(method.network, self.raw_optimizer)
        # The wrapper averages the gradients of the network. The loop averages those of the loss.
        inside = set(method.network.parameters())
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.beside = [parameter for parameter in trained if parameter not in inside]
        # Buffers that a forward pass can change, such as batch norm's, also those of a teacher.
        averages = [module for module in method.children() if isinstance(module, ModelEMA)]
        self.moving = [b for module in (method.network, *averages) for b in module.buffers()]
        self.statistics = [b for b in method.network.buffers() if b.is_floating_point()]
        self.order = Order(
            settings.data,
            method.labels_now,
            num_classes=len(self.faces.classes),
            epochs=settings.optimizer.epochs,
            seed=settings.run.seed,
        )
        self.folder = self._take_folder()
        if self.folder.state is not None:
            self._load(self.folder.state)

    @property
    def batch(self) -> int:
        """Images per step, over all processes."""
        return self.settings.optimizer.batch_size

    def run(self) -> Outcome:
        """Train the remaining epochs."""
        options, epochs = self.settings.run, self.settings.optimizer.epochs
        self._log_from_the_start()
        for epoch in range(len(self.history) + 1, min(epochs, options.stop_after or epochs) + 1):
            figures = {**self._train_epoch(epoch), **self._evaluate()}
            figures = {name: float(value) for name, value in figures.items()}
            self.history.add(figures)
            self._save()
            self._log(epoch, figures)
            told = f"{figures['changed']:.0f} labels changed; " if "changed" in figures else ""
            self.say(
                f"epoch {epoch}: {told}loss {figures['loss']:.4f}; "
                f"{self.history.summary('accuracy')}"
            )
        if len(self.history) == epochs:
            self._finish()
        else:
            self.say(
                f"stopped after epoch {len(self.history)} of {epochs}, by --stop-after "
                f"{options.stop_after}; continue with --resume and without --stop-after"
            )
        return Outcome(self.folder.path, self.history, self.method.classifier)

    def end(self) -> None:
        """Close the logs and release the folder."""
        for logger in self.fabric.loggers:
            logger.finalize("success")
        if self.folder is not None:
            self.folder.close()

    def say(self, text: object) -> None:
        """Print in the first process only."""
        if self.fabric.is_global_zero:
            tqdm.write(str(text))

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        fabric, options = self.fabric, self.settings.run
        seed_everything(seed_of(options.seed, epoch, fabric.global_rank))
        self.method.train()
        self.network.train()
        start, done, exact = time.perf_counter(), 0, torch.get_default_dtype()
        totals: Tensor | None = None
        names: list[str] = []
        bar = tqdm(
            self._batches(epoch),
            desc=f"{self.settings.method} epoch {epoch}/{self.settings.optimizer.epochs}",
            total=self.steps,
            disable=not (options.progress and fabric.is_global_zero),
            leave=False,
        )
        for batch in bar:
            with refusing_the_first(batch.step):
                terms, stepped = self._step(batch)
            if stepped:
                # Summed on the device, because reading a value would wait for it.
                values = torch.stack([value.detach().to(exact) for value in terms.values()])
                totals, names = values if totals is None else totals + values, list(terms)
                done += 1
        if totals is None:
            raise Refused(
                f"--precision 16-mixed: every step of epoch {epoch} overflowed; choose bf16-mixed "
                "or 32"
            )
        average = fabric.all_reduce(totals / done, reduce_op="mean").tolist()
        seconds = time.perf_counter() - start
        if not math.isfinite(sum(average)):
            # Not to resume: a run keeps its settings, and with them it would fail again.
            before = f"; {path_of(self.settings)} keeps the epochs before, so name another --output"
            raise Refused(
                f"the loss is no longer a number in epoch {epoch}; lower --learning-rate, or set "
                f"--clip-norm{before if epoch > 1 else ''}"
            )
        return {
            "loss": math.fsum(average),
            **{f"loss/{name}": value for name, value in zip(names, average, strict=True)},
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            **({"skipped_steps": self.steps - done} if options.precision == "16-mixed" else {}),
            **self.method.figures(epoch),
            "images_per_second": self.steps * self.batch / seconds,
        }

    def _batches(self, epoch: int) -> Iterator[Batch]:
        fabric, share = self.fabric, self.batch // self.fabric.world_size
        rows = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
        order = self.order(epoch)[: self.steps * self.batch].view(self.steps, self.batch)[:, rows]
        on_device = order.to(fabric.device, non_blocking=True)
        images = self.images.batches(list(order))
        for number, (pixels, index) in enumerate(zip(images, on_device, strict=True)):
            seed = seed_of(self.settings.run.seed, epoch, number, 1)
            yield Batch(
                images=pixels,
                index=index,
                target=self.targets[index],
                step=(epoch - 1) * self.steps + number,
                epoch=epoch,
                rows=rows,
                total=self.batch,
                generator=torch.Generator().manual_seed(seed),
            )

    def _step(self, batch: Batch) -> tuple[dict[str, Tensor], bool]:
        """Take a step of the optimizer. A step that the scaler skips changes nothing."""
        fabric, method = self.fabric, self.method
        scaled = self.settings.run.precision == "16-mixed"
        before = [buffer.clone() for buffer in self.moving] if scaled else []
        with fabric.autocast():
            terms = method.loss(self.network, batch)
            loss = sum(terms.values())
        self.optimizer.zero_grad()
        fabric.backward(loss)
        if fabric.world_size > 1:
            average_(fabric, [p.grad for p in self.beside if p.grad is not None])
        self.stepped = False
        self.optimizer.step()
        if not self.stepped:
            for buffer, value in zip(self.moving, before, strict=True):
                buffer.copy_(value)
            return terms, False
        self.schedule.step()
        if fabric.world_size > 1:
            average_(fabric, self.statistics)
        method.after_step(batch)
        if method.ema is not None:
            method.ema.update(method.classifier)
        if self.record is not None:
            record_batch(self.record, fabric, batch)
        return terms, True

    def _has_stepped(self, *_: Any) -> None:
        self.stepped = True

    def _evaluate(self) -> dict[str, float]:
        """Evaluate every kind of prediction. The suffix of a figure's name says which kind."""
        options, method = self.settings.run, self.method
        networks: dict[str, nn.Module] = {"": method.classifier}
        if method.ema is not None:
            networks["_ema"] = method.ema
        found: dict[str, Tensor] = {}
        for name, network in networks.items():
            both = [
                self._predict(network, self.judged_images, mirrored=mirrored)
                for mirrored in ((False, True) if options.mirrored else (False,))
            ]
            found[name] = both[0]
            if options.mirrored:
                found[f"{name}_mirrored"] = mean_prediction(*both)
        self.logits = found[""]
        figures = {}
        for name, logits in found.items():
            confusion = confusion_matrix(
                logits.argmax(1), self.judged.targets, num_classes=logits.shape[1]
            )
            figures[f"accuracy{name}"] = accuracy(confusion)
            figures[f"mean_class_accuracy{name}"] = mean_class_accuracy(confusion)
        return figures

    def _predict(self, network: nn.Module, images: Images, *, mirrored: bool = False) -> Tensor:
        # The network is compiled for training batches only.
        compiled = self.settings.run.compile
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            return predict(self.fabric, network, self.method.views, images, mirrored=mirrored)

    def _take_folder(self) -> RunFolder:
        """Take the folder in the first process. If that fails, all processes stop.

        The first process sends the state to the others: they may see another disk.
        """
        problem, state, folder = None, None, None
        if self.fabric.is_global_zero:
            try:
                folder = open_folder(self.settings, type(self.settings.own))
                state = folder.state
            except (Refused, OSError, ValueError) as error:
                problem = " ".join(str(error).split())
        problem, state = self.fabric.broadcast((problem, state))
        if problem is not None:
            raise Refused(problem)
        return folder or RunFolder(path_of(self.settings), state)

    def _load(self, state: dict[str, Any]) -> None:
        for name, digest in state.get("begun_with", {}).items():
            if digest != self.begun_with.get(name):
                what = f"the names, labels or classes of the {name} images"
                what = f"the files of {name}" if name.startswith("--") else what
                raise Refused(
                    f"{what} of {path_of(self.settings)} have changed since the run began; restore "
                    "them, or choose another --output"
                )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.history.load_state_dict(state["history"])
        if self.record is not None:
            if state.get("dynamics") is None:
                raise Refused(
                    f"{path_of(self.settings)} has no record of its first epochs, expected one; "
                    "resume it with --dynamics false"
                )
            self.record.load_state_dict(state["dynamics"])
        self.say(f"continuing after epoch {len(self.history)}")

    def _save(self) -> None:
        """Write the state for a resumed run, and the figures so far."""
        if not self.fabric.is_global_zero:
            return
        self.folder.save({
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "history": self.history.state_dict(),
            "dynamics": None if self.record is None else self.record.state_dict(),
            "begun_with": self.begun_with,
        })  # fmt: skip
        self._write_figures()

    def _write_figures(self) -> None:
        targets, truth = self.faces.targets, self.faces.true_targets
        wrong = None
        if truth is not None and targets.ndim == 1:
            wrong = float((targets != truth).double().mean())
        self.folder.record({
            "settings": self.settings.flat(),
            "classes": list(self.faces.classes),
            "passes": self.method.passes,
            "steps_per_epoch": self.steps,
            "train_images": len(self.faces),
            "trained_on": self.trained_on,
            "wrong_labels": wrong,
            "evaluation_images": len(self.judged),
            "evaluated_on": self.evaluated_on,
            "earlier": self.earlier,
            "weights": None if self.report is None else str(self.report),
            "processes": self.fabric.world_size,
            "device": device_name(self.fabric.device),
            "versions": {name: version(name) for name in ("robustfer", "torch", "timm")},
            "epochs": [
                {k: None if math.isnan(v) else v for k, v in epoch.items()}  # JSON has no NaN
                for epoch in self.history.epochs
            ],
        })  # fmt: skip

    def _log_from_the_start(self) -> None:
        """Rewrite the logs of the finished epochs: a killed run can leave a damaged log."""
        if not self.fabric.is_global_zero:
            return
        shutil.rmtree(self.folder.path / LOGS, ignore_errors=True)
        for epoch in self.history.epochs:
            self._log(int(epoch["epoch"]), {k: v for k, v in epoch.items() if k != "epoch"})

    def _log(self, epoch: int, figures: dict[str, float]) -> None:
        self.fabric.log_dict({"epoch": float(epoch), **figures}, step=epoch * self.steps)
        for logger in self.fabric.loggers:
            logger.save()

    def _finish(self) -> None:
        """Write the classifier with its class names and settings, and its predictions."""
        if self.logits is None:  # a finished run was resumed
            self._evaluate()
        if self.record is not None:
            final = self._predict(self.method.ema or self.method.classifier, self.images)
        if not self.fabric.is_global_zero:
            return
        self._write_figures()
        if self.record is not None:
            write_record(
                self.folder.path, self.record, final, self.faces, learnt=self.method.learnt()
            )
        write_predictions(self.folder.path, self.logits, self.judged)
        views = self.method.views
        described = {
            **self.settings.identity(),
            "mean": list(views.normalize.mean),
            "std": list(views.normalize.std),
            "image_size": list(views.size),
        }
        models: dict[Path, nn.Module] = {self.folder.path: self.method.classifier}
        # The average first: a run counts as finished when its own model exists.
        if self.method.ema is not None:
            models = {self.folder.path / AVERAGE: self.method.ema.module, **models}
        for folder, model in models.items():
            path = save_model(folder, model, classes=self.faces.classes, settings=described)
        self.say(self.history.summary("mean_class_accuracy"))
        self.say(f"model written to {path}")


def seed_everything(seed: int) -> None:
    """Seed the global generators, for code such as drop-out."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)
