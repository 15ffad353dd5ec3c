"""cam_exactness: exact for every family by name, not fooled by a wrong map, and without traces."""

import pytest
import torch
from torch import nn

from robustfer.functional.attention import class_attention
from robustfer.models import CAMClassifier, cam_exactness

SMALL_VIT = {"img_size": 64}
AVERAGED = {"img_size": 64, "global_pool": "avg"}

LINEAR = [
    ("resnet10t", {}),
    ("regnetx_002", {}),
    ("densenet121", {}),
    ("mobilenetv2_050", {}),
    ("efficientnet_b0", {"drop_rate": 0.5}),
    ("dla34", {}),  # a 1x1 convolution classifies
    ("swin_tiny_patch4_window7_224", {"img_size": 64}),  # channels last
    ("mixer_s32_224", {}),  # tokens without prefix
]
NORM_LINEAR = [
    ("convnext_atto", {}),
    ("convnextv2_atto", {}),
    ("edgenext_xx_small", {}),
    ("poolformer_s12", {}),
    ("vit_tiny_patch16_224", AVERAGED),
    ("deit_tiny_patch16_224", AVERAGED),
]
CLASS_TOKEN = [
    ("vit_tiny_patch16_224", SMALL_VIT),
    ("deit_tiny_patch16_224", SMALL_VIT),
    ("xcit_nano_12_p16_224", {}),
]
HIDDEN_LAYER = [
    ("mobilenetv3_small_050", {}),
    ("mobilenetv4_conv_small", {}),
    ("ghostnet_050", {}),
    ("mambaout_femto", {}),  # channels last
    ("inception_next_atto", {}),
]
SEVERAL_CLASSIFIERS = [
    ("levit_128s", {}),
    ("efficientformer_l1", {}),
    ("deit_tiny_distilled_patch16_224", SMALL_VIT),  # two prefix tokens
]


@pytest.mark.parametrize(
    ("name", "options", "head_kind"),
    [(*case, "linear") for case in LINEAR]
    + [(*case, "norm_linear") for case in NORM_LINEAR]
    + [(*case, "replaced") for case in CLASS_TOKEN + HIDDEN_LAYER + SEVERAL_CLASSIFIERS],
)
def test_exact_by_name(name, options, head_kind):
    model = CAMClassifier(name, num_classes=7, model_options=options)
    measured = cam_exactness(model)
    assert measured.exact, measured
    assert 0.0 < measured.error <= 1e-5
    assert (measured.name, measured.head) == (name, head_kind)
    assert model.head_kind == head_kind


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
@pytest.mark.parametrize("image_size", [96, (64, 160)])
def test_exact_at_other_sizes(name, image_size):
    model = CAMClassifier(name, num_classes=3)
    assert cam_exactness(model, image_size=image_size, batch=3, seed=5).exact


class PlainMaps(CAMClassifier):
    """Overlooks the norm before the classifier."""

    def forward(self, images):
        output = super().forward(images)
        weight = self.get_classifier().weight
        return output._replace(attention=class_attention(output.features, weight))


class SlightlyOff(CAMClassifier):
    def forward(self, images):
        output = super().forward(images)
        return output._replace(attention=output.attention * 1.0001)


class WithoutShift(CAMClassifier):
    """Takes the norm's shift for zero, which it is before training."""

    def class_bias(self):
        return self.get_classifier().bias


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (PlainMaps, "convnext_atto"),
        (SlightlyOff, "resnet10t"),
        (SlightlyOff, "mobilenetv3_small_050"),
        (WithoutShift, "convnext_atto"),
    ],
)
def test_wrong_maps_are_reported(kind, name):
    measured = cam_exactness(kind(name, num_classes=7))
    assert not measured.exact
    assert measured.error > 2e-5


def test_a_pooling_changed_later_is_reported():
    model = CAMClassifier("vit_tiny_patch16_224", num_classes=7, model_options=AVERAGED)
    model.backbone.global_pool = "token"
    assert not cam_exactness(model).exact


def test_maps_that_are_not_finite_are_not_exact():
    class Broken(CAMClassifier):
        def forward(self, images):
            output = super().forward(images)
            return output._replace(attention=output.attention * float("nan"))

    assert not cam_exactness(Broken("resnet10t", num_classes=7)).exact


def test_neither_model_nor_random_state_is_touched():
    model = CAMClassifier("convnext_atto", num_classes=7).to(torch.bfloat16).train()
    model.backbone.stem.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        first = cam_exactness(model, seed=3)
    assert first == cam_exactness(model, seed=3)
    assert first.exact
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype
    assert all(parameter.grad is None for parameter in model.parameters())


def test_own_backbone_and_refusal():
    model = CAMClassifier(nn.Conv2d(3, 8, 3), num_classes=7)
    assert cam_exactness(model, image_size=(5, 9)).exact
    with pytest.raises(ValueError, match="batch must be a whole number from 1 on, got 0"):
        cam_exactness(model, batch=0)
