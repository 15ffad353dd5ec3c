"""Time one update of the average of a ResNet-18: only parameters, and also buffers."""

import copy
import functools

import pytest
import timm
import torch
from timm.utils import ModelEmaV3

from robustfer.state import ModelEMA

DECAY = 0.999


@torch.no_grad()
def noisy(model):
    other = copy.deepcopy(model)
    for tensor in (*other.parameters(), *other.buffers()):
        tensor.add_(torch.ones_like(tensor))
    return other


def literal(teacher, model, buffers):
    """Scale, then add, tensor by tensor."""
    for kept, new in zip(teacher.parameters(), model.parameters(), strict=True):
        kept.mul_(DECAY).add_(new, alpha=1 - DECAY)
    if buffers:
        for kept, new in zip(teacher.buffers(), model.buffers(), strict=True):
            kept.copy_(new)


def plain(teacher, model, buffers):
    """Update all parameters in one call."""
    torch._foreach_lerp_(list(teacher.parameters()), list(model.parameters()), 1 - DECAY)
    if buffers:
        for kept, new in zip(teacher.buffers(), model.buffers(), strict=True):
            kept.copy_(new)


@functools.cache
def models(device):
    """Return a model, its average, and the model after a step, in the same memory for all.

    The update only reads and writes, so its time depends on where the tensors are in memory.
    """
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).to(device)
    return model, copy.deepcopy(model).requires_grad_(False), noisy(model)


def updating(column, teacher, after, buffers):
    """Return the call that updates the teacher."""
    if column == "timm":
        theirs = ModelEmaV3(teacher, decay=DECAY, exclude_buffers=True)
        theirs.module = teacher
        return lambda: theirs.update(after)
    if column == "ours":
        rule = "copy" if buffers else "keep"
        ours = ModelEMA(teacher, decay=DECAY, warmup=False, buffers=rule)
        ours.module = teacher
        return lambda: ours.update(after)
    form = {"literal": literal, "plain": plain}[column]
    return torch.no_grad()(lambda: form(teacher, after, buffers))


@pytest.mark.parametrize("column", ["literal", "plain", "timm", "ours"])
@pytest.mark.parametrize("buffers", [False, True], ids=["parameters", "buffers"])
def test_ema(compare, device, buffers, column):
    if column == "timm" and not buffers:
        pytest.skip("timm's always updates the buffers")
    model, teacher, after = models(device)
    teacher.load_state_dict(model.state_dict())
    update = updating(column, teacher, after, buffers)
    expected = [p.detach() + (1 - DECAY) for p in model.parameters()]
    update()
    for found, wanted in zip(teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-4, atol=1e-6)
    assert int(teacher.bn1.num_batches_tracked) == int(buffers)
    what = "parameters and buffers" if buffers else "parameters"
    compare(
        update,
        group=f"EMA of a ResNet-18, {what}",
        column=column,
        plain=updating("plain", teacher, after, buffers),
        min_rounds=60,
    )
