"""Copies run their own weights, also of a model with compiled or replaced methods."""

import copy
import functools
from types import MethodType

import pytest
import torch
from torch import nn

from robustfer._copying import independent_copy
from robustfer.models import CAMClassifier, strip_for_inference
from robustfer.state import ModelEMA


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4))

    def features(self, inputs):
        return self.inner(inputs)

    def forward(self, inputs):
        return self.features(inputs)


def compiled(function):
    return torch.compile(function, backend="eager")


def swapped(model):
    model.forward = compiled(MethodType(lambda self, inputs: -self.inner(inputs), model))


def replace(path):
    def change(model):
        path_of_module, _, name = path.rpartition(".")
        part = model.get_submodule(path_of_module)
        setattr(part, name, compiled(getattr(part, name)))

    return change


CHANGES = {
    "forward": replace("forward"),
    "of torch's own module": replace("inner.forward"),
    "another method": replace("features"),
    "compiled twice": lambda model: [replace("forward")(model), replace("forward")(model)],
    "disabled": lambda model: setattr(model, "forward", torch.compiler.disable(model.forward)),
    "swapped": swapped,
    "whole": lambda model: model.compile(backend="eager"),
    "a part": lambda model: setattr(model, "inner", compiled(model.inner)),
    "a function of nothing": lambda model: setattr(model, "forward", torch.relu),
    "a partial": lambda model: setattr(model, "forward", functools.partial(Network.forward, model)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("run", [False, True])
def test_a_copy_runs_its_own_weights(change, run):
    model, inputs = Network(), torch.randn(3, 4)
    change(model)
    expected = model(inputs).detach() if run else None
    copied = independent_copy(model)
    expected = model(inputs).detach() if expected is None else expected
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for each in (copied, copy.deepcopy(copied), independent_copy(copied)):
        torch.testing.assert_close(each(inputs), expected)


def test_the_model_stays_compiled():
    model = Network()
    replace("forward")(model)
    before = model.forward
    independent_copy(model)
    assert model.forward is before


def around(function):
    @functools.wraps(function)
    def forward(inputs):
        return function(inputs)

    return forward


@pytest.mark.parametrize(
    "replacement",
    [
        lambda model: around(model.forward),
        lambda model: compiled(around(model.forward)),
        lambda model: around(around(model.inner)),
        lambda model: lambda inputs: inputs @ model.inner[0].weight,
        lambda model: lambda inputs, inner=model.inner: inner(inputs),
    ],
)
def test_refuses_a_function_that_runs_the_original(replacement):
    model = Network()
    model.forward = replacement(model)
    with pytest.raises(ValueError, match=r"forward of the Network .* original.* model.compile\(\)"):
        independent_copy(model)


def test_a_function_of_another_module_is_shared():
    model, other = Network(), nn.Linear(4, 4)
    model.forward = around(other.forward)
    assert independent_copy(model).forward is model.forward


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_copied():
    model = torch.jit.trace(Network(), torch.ones(1, 4))
    torch.testing.assert_close(independent_copy(model)(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_teachers_and_stripped_models_do_not_follow_a_compiled_one():
    model = CAMClassifier("resnet10t", num_classes=7).eval()
    images = torch.rand(2, 3, 32, 32)
    expected = model(images).logits.detach()
    model.forward = compiled(model.forward)
    model.backbone.forward = compiled(model.backbone.forward)
    teacher, stripped = ModelEMA(model), strip_for_inference(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(teacher(images).logits, expected)
    torch.testing.assert_close(stripped(images), expected)
