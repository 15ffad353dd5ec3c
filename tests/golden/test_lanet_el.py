import numpy as np
import torch

from robustfer.functional import expression_landmark_contrast, pseudo_labels
from robustfer.state import FeatureQueue
from tests.golden.conftest import assert_agrees, needs, tensor

GOLDEN = "lanet_el"

QUERIES = ("fer_q", "lm_q", "fer_k", "lm_k")


def steps(case):
    """Consecutive steps with the state of the queues before each, moved on as the file does."""
    queues = {name: case[f"{name}0"].copy() for name in ("fer_bank", "lm_bank", "target_bank")}
    pointer, step = 0, 0
    while f"s{step}/loss" in case:
        given = {key.partition("/")[2]: case[key] for key in case if key.startswith(f"s{step}/")}
        yield given, {name: array.copy() for name, array in queues.items()}
        columns = slice(pointer, pointer + len(given["fer_k"]))
        queues["fer_bank"][:, columns] = given["fer_k"].T
        queues["lm_bank"][:, columns] = given["lm_k"].T
        queues["target_bank"][columns] = given["pseudo"]
        pointer, step = columns.stop % queues["fer_bank"].shape[1], step + 1


def contrast(case, given, queues, dtype):
    rows = [tensor(given[name], dtype, grad=True) for name in QUERIES]
    return rows, expression_landmark_contrast(
        *rows,
        tensor(given["pseudo"]),
        tensor(queues["fer_bank"].T, dtype),
        tensor(queues["lm_bank"].T, dtype),
        tensor(queues["target_bank"].astype(np.int64)),
        temperature=float(case["con_T"]),
        variant="official",
    )


@needs("s0/loss")
def test_values_and_gradients(case):
    for given, queues in steps(case):
        rows, loss = contrast(case, given, queues, torch.float64)
        scale = 1 / float(case["con_T"])
        assert_agrees(loss, given["loss"], scale=scale)
        loss.backward()
        for name, row in zip(QUERIES, rows, strict=True):
            assert_agrees(row.grad, given[f"d{name}"], scale=scale)


@needs("s0/loss")
def test_values_in_single_precision(case):
    for given, queues in steps(case):
        _, loss = contrast(case, given, queues, torch.float32)
        assert_agrees(loss, given["loss_f32"], scale=1 / float(case["con_T"]))


@needs("s0/loss")
def test_pseudo_labels(case):
    """Ours are one below where the public program has minus the row, which for row 0 is class 0."""
    for given, _ in steps(case):
        ours = pseudo_labels(
            tensor(given["targets"]), tensor(given["idx"]), threshold=float(case["confidence"])
        )
        sure = tensor(given["targets"]).max(dim=1).values >= float(case["confidence"])
        theirs = tensor(given["pseudo"])
        assert torch.equal(torch.where(sure, ours, ours + 1), theirs)


@needs("s0/loss")
def test_queue(case):
    """Ours wraps; the file's banks are written at a pointer."""
    dim, capacity = case["fer_bank0"].shape
    queue = FeatureQueue(dim, capacity=capacity, dtype=torch.float64)
    queue.expression.copy_(tensor(case["fer_bank0"].T))
    queue.landmark.copy_(tensor(case["lm_bank0"].T))
    queue.label.copy_(tensor(case["target_bank0"].astype(np.int64)))
    for step, (given, _) in enumerate(steps(case)):
        queue.update(tensor(given["fer_k"]), tensor(given["lm_k"]), tensor(given["pseudo"]))
        assert_agrees(queue.label.double(), given["target_bank_after"])
        assert int(queue.cursor) == int(given["ptr_after"][0]), step
        if "fer_bank_after" in given:
            assert_agrees(queue.expression, given["fer_bank_after"].T)
            assert_agrees(queue.landmark, given["lm_bank_after"].T)
