"""The public program's numbers; where its log(softmax()) gives NaN, ours by log_softmax."""

import numpy as np
import torch
from torch import nn

from robustfer.functional import attention_consistency, self_distillation
from robustfer.functional.attention import class_attention
from robustfer.losses import GSMCLoss
from robustfer.state import ModelEMA
from tests.golden.conftest import assert_agrees, assert_array_agrees, needs, tensor

GOLDEN = "gsmc"


def forward(case, dtype):
    student, cam1, cam2 = (tensor(case[k], dtype, grad=True) for k in ("student", "cam1", "cam2"))
    labels, teacher = tensor(case["labels"], dtype), tensor(case["teacher"], dtype)
    terms = GSMCLoss().terms(student, labels, teacher, cam1, cam2)
    return (student, cam1, cam2), terms


def scales(case):
    """Of the divergence, that of the logits; of the consistency, that of the squared maps."""
    logits = max(abs(case[k]).max() for k in ("student", "teacher"))
    return float(logits), float(max(abs(case[k]).max() for k in ("cam1", "cam2"))) ** 2


def holds_nan(case, key):
    """Whether an array has a NaN; a large one is in the file in summary."""
    found = [case[name] for name in case if name == key or name.startswith(f"{key}__")]
    return any(np.isnan(array).any() for array in found)


@needs("student")
def test_values(case):
    (student, cam1, cam2), terms = forward(case, torch.float64)
    logits, maps = scales(case)
    assert_agrees(terms["cross_entropy"], case["ce"])
    divergence = self_distillation(student, tensor(case["teacher"]))
    assert_agrees(divergence, case["kl"], scale=logits)
    assert_agrees(terms["self_distillation"], 0.9 * case["kl"], scale=logits)
    assert_agrees(attention_consistency(cam1, cam2), case["ac"], scale=maps)
    assert_agrees(terms["attention_consistency"], 0.2 * case["ac"], scale=maps)
    total = sum(terms.values())
    assert_agrees(total, case["total_stable"])
    if not np.isnan(case["total"]):
        assert_agrees(total, case["total"])


@needs("student")
def test_values_in_single_precision(case):
    _, terms = forward(case, torch.float32)
    logits, maps = scales(case)
    wanted = {"cross_entropy": (1.0, "ce", 0.0), "self_distillation": (0.9, "kl", logits)}
    wanted["attention_consistency"] = (0.2, "ac", maps)
    for name, (weight, key, scale) in wanted.items():
        golden = case[f"{key}_f32"]
        # Where the public program's is NaN, ours agrees with the double precision one.
        golden = case[key] if np.isnan(golden) else golden
        assert_agrees(terms[name], weight * golden, scale=scale)
    golden = case["total_f32"]
    assert_agrees(sum(terms.values()), case["total_stable"] if np.isnan(golden) else golden)


@needs("student")
def test_gradients_of_the_total(case):
    (student, cam1, cam2), terms = forward(case, torch.float64)
    sum(terms.values()).backward()
    assert_array_agrees(student.grad, case, "dtotal_dstudent_stable")
    if not holds_nan(case, "dtotal_dstudent"):
        assert_array_agrees(student.grad, case, "dtotal_dstudent")
    scale = 0.2 * 2 * scales(case)[1] ** 0.5 / cam1.numel()
    assert_array_agrees(cam1.grad, case, "dtotal_dcam1", scale=scale)
    assert_array_agrees(cam2.grad, case, "dtotal_dcam2", scale=scale)


@needs("student")
def test_gradients_in_single_precision(case):
    (student, _, _), terms = forward(case, torch.float32)
    sum(terms.values()).backward()
    unstable = holds_nan(case, "dtotal_dstudent_f32")
    key = "dtotal_dstudent_stable" if unstable else "dtotal_dstudent_f32"
    assert_array_agrees(student.grad, case, key)


@needs("alpha")
def test_warm_up(case):
    """Followed from a weight of one by a model of zero: what is left is the product of decays."""
    model = nn.Linear(1, 1, bias=False).double()
    teacher = ModelEMA(model, decay=0.999)
    for step, decay in zip(case["global_step"].tolist(), case["alpha"], strict=True):
        teacher.load_state_dict({**teacher.state_dict(), "step": torch.tensor(step - 1)})
        nn.init.ones_(teacher.module.weight)
        nn.init.zeros_(model.weight)
        teacher.update(model)
        assert_agrees(teacher.module.weight.detach()[0, 0], decay)


class Network(nn.Module):
    def __init__(self, channels, width, classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.fc = nn.Linear(width, classes)

    def forward(self, images):
        maps = self.features(images)
        return self.fc(maps.mean((2, 3))), class_attention(maps, self.fc.weight)


def named(case, names, values):
    """Tensors cut from a flat row, by the names and shapes that the file gives."""
    found, start = {}, 0
    for text in case[names].tolist():
        name, _, shape = text.partition(":")
        sizes = [] if shape == "scalar" else [int(size) for size in shape.split("x")]
        length = int(np.prod(sizes, dtype=np.int64))
        found[name] = torch.as_tensor(values[start : start + length].reshape(sizes))
        start += length
    assert start == len(values)
    return found


def flat(tensors):
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


@needs("student_params")
def test_trajectory(case):
    """Student, teacher and the buffers of both, step by step, over the warm-up."""
    parameters = named(case, "param_names", case["init_params"])
    buffers = named(case, "buffer_names", case["init_buffers"])
    width, channels = parameters["features.0.weight"].shape[:2]
    model = Network(channels, width, len(parameters["fc.bias"])).double()
    model.load_state_dict(parameters | buffers)
    teacher = ModelEMA(model, decay=0.999, buffers="keep")
    optimizer = torch.optim.Adam(model.parameters(), lr=float(case["lr"]))
    criterion = GSMCLoss()
    for step, (images, labels) in enumerate(zip(case["images"], case["labels"], strict=True)):
        images, labels = tensor(images), tensor(labels)
        flipped = images.flip(-1)
        logits, maps = model(images)
        _, maps_flipped = model(flipped)
        loss = criterion(logits, labels, teacher(flipped)[0], maps, maps_flipped)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update(model)
        assert_agrees(loss, case["loss"][step])
        for name, module in (("student", model), ("teacher", teacher.module)):
            assert_agrees(flat(module.parameters()), case[f"{name}_params"][step])
            assert_agrees(flat(module.buffers()), case[f"{name}_buffers"][step])
