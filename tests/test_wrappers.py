"""Wrapped models go where the plain model goes."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV2, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel

from robustfer._wrappers import unwrapped
from robustfer.checkpoint import load_model, save_model
from robustfer.models import (
    CAMClassifier,
    ImportanceClassifier,
    cam_exactness,
    strip_for_inference,
)
from robustfer.state import ModelEMA


def compiled(model):
    return torch.compile(model, backend="eager")


def in_fabric(model):
    wrappers = pytest.importorskip("lightning_fabric.wrappers")
    return wrappers._FabricModule(nn.DataParallel(model), None, original_module=model)


WRAPPINGS = {
    "plain": lambda model: model,
    "parallel": nn.DataParallel,
    "compiled": compiled,
    "averaged": AveragedModel,
    "teacher": ModelEMA,
    "timm's averages": lambda model: ModelEmaV2(ModelEmaV3(model)),
    "fabric": in_fabric,
    "parallel and compiled": lambda model: compiled(nn.DataParallel(model)),
    "compiled and parallel": lambda model: nn.DataParallel(compiled(model)),
}


@pytest.fixture(params=WRAPPINGS)
def wrap(request):
    return WRAPPINGS[request.param]


def test_the_model_itself(wrap):
    model = nn.Sequential(nn.Linear(4, 2))
    found = unwrapped(wrap(model))
    assert type(found) is nn.Sequential
    assert found.state_dict().keys() == model.state_dict().keys()


def test_a_model_with_a_part_called_module_is_no_wrapper():
    model = nn.Sequential()
    model.module = nn.Linear(4, 2)
    assert unwrapped(model) is model


def test_the_teacher_is_a_plain_copy(wrap):
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    wrapped = wrap(copy.deepcopy(model))
    teacher = ModelEMA(wrapped, decay=0.5, warmup=False)
    assert teacher.module.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        for parameter in wrapped.parameters():
            parameter.add_(1.0)
    teacher.update(wrapped)
    torch.testing.assert_close(teacher.module[0].weight, model[0].weight + 0.5)
    other = ModelEMA(model)
    other.load_state_dict(teacher.state_dict())
    model.load_state_dict(teacher.module.state_dict())
    torch.testing.assert_close(other(torch.ones(3, 4)), model(torch.ones(3, 4)))


def test_a_trained_model_is_stripped_and_measured(wrap):
    model = CAMClassifier("resnet10t", num_classes=7, model_options={"output_stride": 8}).eval()
    images = torch.rand(2, 3, 32, 32)
    stripped = strip_for_inference(wrap(ImportanceClassifier(model)))
    torch.testing.assert_close(stripped(images), model(images).logits)
    assert cam_exactness(wrap(model), image_size=32).exact


def test_a_wrapped_model_is_saved_and_loaded_without_the_wrapper(wrap, tmp_path):
    model, other = nn.Linear(4, 2), nn.Linear(4, 2)
    save_model(tmp_path, wrap(model), classes=["sad", "glad"], settings={})
    loaded = load_model(tmp_path, nn.Linear(4, 2), classes=["sad", "glad"])
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())
    load_model(tmp_path, wrapped := wrap(other), classes=["sad", "glad"])
    torch.testing.assert_close(unwrapped(wrapped).state_dict(), model.state_dict())
