"""The whole of LA-Net's loss, put together from the files of its parts, which have no sum of it.

Label distributions come step by step from their file, in `case`; the contrast from the case of its
file with as many samples, if there is one, and heat maps from theirs. The sum that these give, and
its gradients, are what LANetLoss has to give for all of it in one call.
"""

import os
from pathlib import Path

import numpy as np
import torch

from robustfer.losses import LANetLoss
from tests.golden import test_lanet_el as el
from tests.golden import test_lanet_lde as lde
from tests.golden.conftest import assert_agrees, tensor

GOLDEN = "lanet_lde"

CONTRAST_WEIGHT = 0.1


def cases(name):
    """Case -> its arrays, of another file than the one whose cases are the tests."""
    groups = {}
    with np.load(Path(os.environ["ROBUSTFER_GOLDEN"], f"{name}.npz")) as arrays:
        for key in arrays.files:
            case, _, rest = key.partition("/")
            groups.setdefault(case, {})[rest] = arrays[key]
    return groups


def contrasts(batch):
    """Steps of as many samples: queries and keys, label, queues, the loss and its gradients."""
    for case in cases("lanet_el").values():
        if "s0/loss" in case and len(case["s0/fer_q"]) == batch:
            for given, queues in el.steps(case):
                rows = [tensor(given[name], grad=True) for name in el.QUERIES]
                label = tensor(given["pseudo"])
                banks = [tensor(queues[name].T) for name in ("fer_bank", "lm_bank")]
                kept = tensor(queues["target_bank"].astype(np.int64))
                slopes = [given[f"d{name}"] for name in el.QUERIES]
                yield float(case["con_T"]), rows, label, [*banks, kept], given["loss"], slopes
    while True:  # a queue of the samples' own class has no negative, and the loss is zero
        rows = [torch.ones(batch, 1, dtype=torch.float64, requires_grad=True) for _ in range(4)]
        label, bank = torch.zeros(batch, dtype=torch.int64), torch.ones(1, 1, dtype=torch.float64)
        yield 0.1, rows, label, [bank, bank, label[:1]], np.array(0.0), [np.zeros((batch, 1))] * 4


def drawn(batch):
    """As many landmarks as there are for each sample, with the file's maps and weights."""
    file = max(cases("lanet_heatmap").values(), key=lambda case: len(case["landmarks"]))
    points = max(1, len(file["landmarks"]) // batch)
    rows = torch.arange(batch * points) % len(file["landmarks"])
    landmarks, maps, weights = (
        tensor(file[name])[rows].double().unflatten(0, (batch, points))
        for name in ("landmarks", "heatmap", "weight")
    )
    # The maps are in float32; the squared distances that made them are whole numbers.
    square = (-4.5 * maps.clamp_min(1e-9).log()).round()
    maps = torch.where(maps > 0, (-square / 4.5).exp(), 0.0)
    return int(file["img_size"]) if "img_size" in file else 224, landmarks, maps, weights


def adaptive_wing(heatmaps, maps, weights):
    """As the notes on the file have it."""
    distance, power = (maps - heatmaps).abs(), 2.1 - maps
    bend = 0.5**power
    slope = 14 * power * 0.5 ** (power - 1) / (1 + bend)
    shift = 0.5 * slope - 14 * (1 + bend).log()
    curve = 14 * (1 + distance**power).log()
    return (torch.where(distance < 0.5, curve, slope * distance - shift) * weights).mean()


def test_sum_and_gradients(case, monkeypatch):
    torch.manual_seed(0)
    steps = lde.steps(case, torch.float64, monkeypatch)
    batch, classes = case["s0/logits"].shape
    image_size, landmarks, maps, weights = drawn(batch)
    others = contrasts(batch)
    seen = 0
    for given, estimator, (fer, lm, logits), soft_target in steps:
        temperature, rows, label, queues, contrast, slopes = next(others)
        target = torch.randint(classes, (batch,))
        heatmaps = (maps + torch.randn_like(maps) / 2).requires_grad_()
        criterion = LANetLoss(
            image_size=image_size,
            temperature=temperature,
            contrast_weight=CONTRAST_WEIGHT,
            variant="official",
        )
        loss = criterion(logits, target, soft_target, *rows, label, *queues, heatmaps, landmarks)

        probabilities = logits.detach().softmax(1)
        chosen = torch.nn.functional.one_hot(target, classes)
        cross_entropy = -logits.detach().log_softmax(1)[chosen.bool()].mean()
        asked = heatmaps.detach().requires_grad_()
        wing = adaptive_wing(asked, maps, weights)
        wing.backward()
        expected = cross_entropy.item() + given["kl"] + wing.item() + CONTRAST_WEIGHT * contrast
        assert_agrees(loss, expected)

        loss.backward()
        assert_agrees(heatmaps.grad, asked.grad.numpy())
        for row, slope in zip(rows, slopes, strict=True):
            assert_agrees(row.grad, CONTRAST_WEIGHT * slope, scale=1 / temperature)
        if "dkl/logits" in given:
            seen += 1
            by_target = ((probabilities - chosen) / batch).numpy()
            assert_agrees(logits.grad, given["dkl/logits"] + by_target)
            assert_agrees(fer.grad, given["dkl/fer"])
            assert_agrees(lm.grad, given["dkl/lm"])
            parameters = dict(estimator.named_parameters())
            for key in given:
                if key.startswith("dkl/param/"):
                    ours = parameters[lde.our_name(key.removeprefix("dkl/param/"))]
                    assert_agrees(ours.grad, given[key])
    assert seen
