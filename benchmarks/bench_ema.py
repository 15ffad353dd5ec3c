"""One update of the average of a ResNet-18: its parameters alone, and its buffers with them."""

import copy

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
    """Tensor by tensor: scale, then add."""
    for kept, new in zip(teacher.parameters(), model.parameters(), strict=True):
        kept.mul_(DECAY).add_(new, alpha=1 - DECAY)
    if buffers:
        for kept, new in zip(teacher.buffers(), model.buffers(), strict=True):
            kept.copy_(new)


def plain(teacher, model, buffers):
    """What a good engineer writes: all parameters in one call."""
    torch._foreach_lerp_(list(teacher.parameters()), list(model.parameters()), 1 - DECAY)
    if buffers:
        for kept, new in zip(teacher.buffers(), model.buffers(), strict=True):
            kept.copy_(new)


def updates(column, model, buffers):
    """Average to look at, and the call that updates it by the model's next step."""
    after = noisy(model)
    if column == "ours":
        ema = ModelEMA(model, decay=DECAY, warmup=False, buffers="copy" if buffers else "keep")
        return ema.module, lambda: ema.update(after)
    if column == "timm":
        theirs = ModelEmaV3(model, decay=DECAY, exclude_buffers=True)
        return theirs.module, lambda: theirs.update(after)
    teacher = copy.deepcopy(model).requires_grad_(False)
    form = {"literal": literal, "plain": plain}[column]
    return teacher, torch.no_grad()(lambda: form(teacher, after, buffers))


@pytest.mark.parametrize("column", ["literal", "plain", "timm", "ours"])
@pytest.mark.parametrize("buffers", [False, True], ids=["parameters", "buffers"])
def test_ema(compare, device, buffers, column):
    if column == "timm" and not buffers:
        pytest.skip("timm's always sees to the buffers")
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).to(device)
    teacher, update = updates(column, model, buffers)
    expected = [p.detach() + (1 - DECAY) for p in model.parameters()]
    update()
    for found, wanted in zip(teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-4, atol=1e-6)
    assert int(teacher.bn1.num_batches_tracked) == int(buffers)
    what = "parameters and buffers" if buffers else "parameters"
    compare(update, group=f"EMA of a ResNet-18, {what}", column=column, min_rounds=60)
