"""A module of one's own that returns a CAMOutput serves wherever a CAMClassifier does."""

import copy

import pytest
import torch
from torch import nn

from robustfer.losses import SCNLoss
from robustfer.models import (
    CAMClassifier,
    ImportanceClassifier,
    LandmarkClassifier,
    cam_exactness,
    cam_outputs,
    strip_for_inference,
)


class Least(nn.Module):
    """What the page "Start" asks for, and no more."""

    def __init__(self, channels=3):
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(channels, 32, 3, stride=4), nn.ReLU())
        self.classifier = nn.Linear(32, 7)

    def forward(self, images):
        return cam_outputs(self.maps(images), self.classifier.weight, self.classifier.bias)


class Own(Least):
    """It tells its width and its classifier too."""

    num_features = 32

    def get_classifier(self):
        return self.classifier


class Normed(Own):
    """A norm before the classifier, whose shift is part of the bias."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(32)

    def forward(self, images):
        weight, bias = self.classifier.weight, self.classifier.bias
        return cam_outputs(self.maps(images), weight, bias, norm=self.norm)


class WrongMaps(Own):
    def forward(self, images):
        output = super().forward(images)
        return output._replace(attention=output.attention * 1.001)


IMAGES = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0))
WRAPPERS = [lambda m: m, nn.DataParallel, lambda m: torch.compile(m, backend="eager")]


def test_an_importance_head_beside_it():
    model = ImportanceClassifier(Own())
    output, plain = model(IMAGES), model.model(IMAGES)
    assert torch.equal(output.logits, plain.logits)
    assert torch.equal(output.importance, model.importance_head(plain.embeddings))
    assert model.bias is model.model.classifier.bias
    target = torch.tensor([0, 1, 2, 6])
    SCNLoss(margin=1.0)(output.logits, target, output.importance, model.bias).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_importance_head_lies_where_the_classifier_does():
    assert ImportanceClassifier(Own().to("meta")).importance_head.linear.weight.is_meta


def test_what_an_importance_head_needs_is_told():
    with pytest.raises(ValueError, match=r"num_features, got None from Least; set self.num_feat"):
        ImportanceClassifier(Least())
    with pytest.raises(ValueError, match="from DataParallel.*out of any wrapper"):
        ImportanceClassifier(nn.DataParallel(Own()))
    without = Least()
    without.num_features = 32
    model = ImportanceClassifier(without)
    assert model(IMAGES).importance.shape == (4,)
    with pytest.raises(TypeError, match=r"Least has none; add a method"):
        _ = model.bias
    model = nn.Linear(48, 7)
    model.num_features = 7
    with pytest.raises(TypeError, match="CAMOutput, got Tensor from Linear.*cam_outputs"):
        ImportanceClassifier(model)(IMAGES)


@pytest.mark.parametrize("kind", [Least, Own, Normed])
def test_its_maps_are_measured(kind):
    measured = cam_exactness(kind(), image_size=(3, 40, 48))
    assert measured.exact
    assert 0 < measured.error <= 1e-5
    assert (measured.name, measured.head) == (kind.__name__, "module")
    assert not cam_exactness(WrongMaps(), image_size=(3, 40, 48)).exact


def test_its_maps_are_measured_on_images_of_its_own():
    model = Own(channels=1)
    with pytest.raises(ValueError, match=r"must be \(channels, height, width\).*got \(64, 64\)"):
        cam_exactness(model, image_size=64)
    with pytest.raises(ValueError, match="image_size must be .* got None"):
        cam_exactness(model)
    model.input_size = (1, 32, 32)
    for size in (None, 24, (24, 32), (1, 24, 32)):
        assert cam_exactness(model, image_size=size).exact


def test_an_untold_bias_needs_two_images():
    with pytest.raises(ValueError, match="batch must be a whole number from 2 on, got 1"):
        cam_exactness(Own(), image_size=(3, 32, 32), batch=1)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_exactness_of_wrapped_models_and_of_those_with_more_heads(wrapper):
    for model in (Own(), CAMClassifier("resnet10t", num_classes=7)):
        assert cam_exactness(wrapper(model), image_size=(3, 64, 64)).exact
    assert cam_exactness(wrapper(ImportanceClassifier(Own())), image_size=(3, 64, 64)).exact
    with pytest.raises(TypeError, match="must return a CAMOutput, got Tensor from Conv2d"):
        cam_exactness(nn.Conv2d(3, 7, 3), image_size=(3, 64, 64))


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", [Least, Normed])
def test_stripped_gives_its_logits(kind, wrapper):
    model = kind().train()
    expected = copy.deepcopy(model).eval()(IMAGES).logits
    stripped = strip_for_inference(wrapper(model))
    assert not any(part.training for part in stripped.modules())
    assert model.training
    assert torch.equal(stripped(IMAGES), expected)
    assert {id(p) for p in model.parameters()}.isdisjoint(map(id, stripped.parameters()))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_stripped_from_within_an_importance_classifier(wrapper):
    model = ImportanceClassifier(Own()).eval()
    stripped = strip_for_inference(wrapper(model))
    assert torch.equal(stripped(IMAGES), model(IMAGES).logits)
    assert not any("importance" in key for key in stripped.state_dict())


def test_stripped_refuses_what_returns_something_else():
    with pytest.raises(TypeError, match="CAMOutput, got Tensor from Linear.*CAMClassifier"):
        strip_for_inference(nn.Linear(48, 7))(IMAGES)
    with pytest.raises(TypeError, match="returns a CAMOutput, got OrderedDict"):
        strip_for_inference(Own().state_dict())


def test_a_landmark_branch_shares_stages_with_a_timm_network_only():
    with pytest.raises(TypeError, match="must be a CAMClassifier .* got Own; .* LandmarkBranch"):
        LandmarkClassifier(Own(), num_landmarks=5)


@pytest.mark.parametrize("head", ["auto", "keep", "replace"])
def test_its_maps_are_not_wrapped_again(head):
    with pytest.raises(ValueError, match="Own already returns class maps.*use it instead of a CAM"):
        CAMClassifier(Own(), num_classes=7, head=head)
