"""Record the predictions for each training face, during training and at the end.

``robustfer audit`` reads the two files: ``dynamics.safetensors`` and ``final.safetensors``.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors.torch import save
from torch import Tensor

from examples.train.files import write_whole
from examples.train.views import Batch
from robustfer.data import LabeledFaces
from robustfer.state import TrainingDynamics

DYNAMICS = "dynamics.safetensors"
FINAL = "final.safetensors"
LEARNT = "learnt"  # the tensor of the labels that the network learnt


def start_record(faces: LabeledFaces) -> TrainingDynamics:
    """Return an empty record for a training set and the labels of the data set."""
    given = faces.targets if faces.targets.ndim == 1 else faces.targets.argmax(1)
    return TrainingDynamics(len(faces), num_classes=len(faces.classes), given=given)


def record_batch(record: TrainingDynamics, fabric: Fabric, batch: Batch) -> None:
    """Record the batch of all processes, without a host synchronisation."""
    if batch.logits is None:
        raise NotImplementedError("the method's loss must set batch.logits")
    index, logits = batch.index, batch.logits.detach().to(torch.get_default_dtype())
    if fabric.world_size > 1:
        index, logits = (_of_all(fabric, batch, own) for own in (index, logits))
    record.update(index, logits, gather=False)


def _of_all(fabric: Fabric, batch: Batch, own: Tensor) -> Tensor:
    """Join the rows of all processes in the order of the whole batch."""
    joined = own.new_zeros(batch.total, *own.shape[1:])
    joined[batch.rows] = own
    return fabric.all_reduce(joined, reduce_op="sum")


def write_record(
    folder: Path,
    record: TrainingDynamics,
    logits: Tensor,
    faces: LabeledFaces,
    *,
    learnt: Tensor | None,
) -> None:
    """Write the record into the run's folder, and the predictions at the end.

    Args:
        folder: of the run.
        record: of the training.
        logits: of the training faces by the final weights, or by their average (N, C).
        faces: the training faces. Their names tell a reader which row is whose.
        learnt: the labels that the network learnt to predict, or ``None`` for the true ones.
    """
    state = {name: value.cpu().contiguous() for name, value in record.state_dict().items()}
    final = {"probabilities": logits.float().softmax(1).cpu().contiguous()}
    if learnt is not None:
        final[LEARNT] = (learnt.float() if learnt.is_floating_point() else learnt).contiguous()
    # One entry: safetensors writes several in no fixed order, and equal runs would differ.
    names = json.dumps({"classes": faces.classes, "ids": list(faces.ids)})
    for name, tensors in ((DYNAMICS, state), (FINAL, final)):
        write_whole(folder / name, save(tensors, {"names": names}))
