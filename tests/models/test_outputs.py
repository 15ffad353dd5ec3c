"""cam_outputs against the equations written out, and its gradients against autograd on them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustfer.models import CAMOutput, cam_outputs
from robustfer.models.outputs import class_bias
from tests.other_device import OtherDevice


def make(batch=3, channels=6, height=4, width=5, classes=7, *, norm=None, dtype=torch.float64):
    """Features away from zero mean, a classifier, and a layer norm that is not the identity."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    features = draw(batch, channels, height, width) * 3 + 1
    weight, bias = draw(classes, channels), draw(classes)
    layer = None
    if norm:
        layer = nn.LayerNorm(channels, eps=1e-3, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(draw(channels))
            layer.bias.copy_(draw(channels))
    return features.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), layer


def reference_maps(features, weight, norm):
    """The equations with the features centred at each place, as the docstring states them."""
    weight = weight.detach()
    if norm is None:
        return torch.einsum("cd,bdhw->bchw", weight, features)
    pooled = features.mean(dim=(2, 3))
    deviation = (pooled.var(dim=1, unbiased=False) + norm.eps).sqrt().detach()
    centred = features - features.mean(dim=1, keepdim=True)
    normalised = norm.weight.detach()[None, :, None, None] * centred
    normalised = normalised / deviation[:, None, None, None]
    return torch.einsum("cd,bdhw->bchw", weight, normalised)


@pytest.mark.parametrize("norm", [False, True])
@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(2, 5),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    classes=st.integers(1, 9),
)
def test_logits_are_the_mean_of_the_maps_plus_the_bias(
    norm, batch, channels, height, width, classes
):
    features, weight, bias, layer = make(batch, channels, height, width, classes, norm=norm)
    output = cam_outputs(features, weight, bias, norm=layer)
    total = bias if layer is None else bias + weight @ layer.bias
    torch.testing.assert_close(output.attention.mean(dim=(2, 3)) + total, output.logits)


def test_norm_outputs_are_those_of_the_layers_themselves():
    features, weight, bias, layer = make(norm=True)
    output = cam_outputs(features, weight, bias, norm=layer)
    embeddings = layer(features.mean(dim=(2, 3)))
    torch.testing.assert_close(output.embeddings, embeddings)
    torch.testing.assert_close(output.logits, embeddings @ weight.T + bias)
    assert output.features is features


@pytest.mark.parametrize("norm", [False, True])
def test_maps_and_their_gradient_follow_the_equations(norm):
    features, weight, bias, layer = make(norm=norm)
    attention = cam_outputs(features, weight, bias, norm=layer).attention
    expected = reference_maps(features, weight, layer)
    torch.testing.assert_close(attention, expected)

    ours = torch.autograd.grad(attention.square().sum(), features)[0]
    theirs = torch.autograd.grad(expected.square().sum(), features)[0]
    torch.testing.assert_close(ours, theirs)


def test_a_loss_on_the_maps_moves_the_features_alone():
    features, weight, bias, layer = make(norm=True)
    output = cam_outputs(features, weight, bias, norm=layer)
    output.attention.square().sum().backward(retain_graph=True)
    assert features.grad.abs().sum() > 0
    assert weight.grad is None
    assert bias.grad is None
    assert layer.weight.grad is None
    assert layer.bias.grad is None

    output.logits.square().sum().backward()
    for constant in (weight, bias, layer.weight, layer.bias):
        assert constant.grad.abs().sum() > 0


@pytest.mark.parametrize("norm", [False, True])
def test_mirrored_features_give_mirrored_maps(norm):
    features, weight, bias, layer = make(norm=norm)
    plain = cam_outputs(features, weight, bias, norm=layer)
    mirrored = cam_outputs(features.flip(-1), weight, bias, norm=layer)
    torch.testing.assert_close(mirrored.attention, plain.attention.flip(-1))
    torch.testing.assert_close(mirrored.logits, plain.logits)


def test_without_bias_and_with_a_norm_without_scale():
    features, weight, _, _ = make()
    layer = nn.LayerNorm(6, elementwise_affine=False)
    for norm in (None, layer):
        output = cam_outputs(features, weight, norm=norm)
        torch.testing.assert_close(output.attention.mean(dim=(2, 3)), output.logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", [False, True])
def test_half_features_give_float32_maps(dtype, norm):
    features, weight, bias, layer = make(norm=norm, dtype=dtype)
    output = cam_outputs(features, weight, bias, norm=layer)
    assert output.attention.dtype == torch.float32
    assert output.logits.dtype == dtype
    exact = reference_maps(features.double(), weight.double(), layer and layer.double())
    torch.testing.assert_close(output.attention.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [False, True])
def test_autocast_mixes_dtypes(norm):
    features, weight, bias, layer = make(norm=norm, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = cam_outputs(features.bfloat16(), weight, bias, norm=layer)
    exact = cam_outputs(features, weight, bias, norm=layer)
    torch.testing.assert_close(output.attention, exact.attention, rtol=0.05, atol=0.3)
    torch.testing.assert_close(output.logits.float(), exact.logits, rtol=0.05, atol=0.3)


def test_own_module_in_four_lines():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Conv2d(3, 8, 3, stride=2)
            self.classifier = nn.Linear(8, 7)

        def forward(self, images):
            features = self.backbone(images)
            return cam_outputs(features, self.classifier.weight, self.classifier.bias)

    model, images = Own(), torch.rand(2, 3, 17, 33)
    output = model(images)
    assert isinstance(output, CAMOutput)
    assert output.attention.shape == (2, 7, 8, 16)
    torch.testing.assert_close(output.logits, model.classifier(output.features.mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": torch.zeros(2, 6)}, r"features must have shape \(B, D, H, W\), got \(2, 6\)"),
        ({"weight": torch.zeros(7, 5)}, "weight has D=5 but features has D=6"),
        ({"weight": torch.zeros(7, 6, 1, 1)}, r"weight must have shape \(C, D\)"),
        ({"bias": torch.zeros(6)}, "bias has C=6 but weight has C=7"),
        ({"features": torch.zeros(2, 6, 4, 4, dtype=torch.int64)}, "features must have a floating"),
        (
            {"features": torch.zeros(2, 6, 4, 4).half()},
            "weight must have the dtype of features, to",
        ),
        ({"weight": torch.zeros(7, 6).double()}, "float32, outside autocast, got torch.float64"),
        ({"bias": torch.zeros(7).half()}, "bias must have the dtype of features, torch.float32"),
        ({"bias": torch.zeros(7).long()}, "bias must have the dtype of features, torch.float32"),
        ({"norm": nn.LayerNorm(6).half()}, "the scale of norm must have the dtype of features"),
        ({"norm": nn.LayerNorm(5)}, r"norm must be over the 6 channels.*\(5,\)"),
    ],
)
def test_refusals(changed, message):
    good = {
        "features": torch.zeros(2, 6, 4, 4),
        "weight": torch.zeros(7, 6),
        "bias": torch.zeros(7),
    }
    with pytest.raises(ValueError, match=message):
        cam_outputs(**(good | changed))


@pytest.mark.parametrize("device", ["meta", "lazy"])
def test_devices_without_autocast(device):
    """torch raises when it is asked whether autocast is on for one of these."""
    with OtherDevice():
        features = torch.ones(2, 6, 4, 5, device=device)
        weight = torch.ones(7, 6, device=device)
        output = cam_outputs(features, weight, None)
    assert output.logits.shape == (2, 7)
    assert output.attention.shape == (2, 7, 4, 5)
    assert {tensor.device.type for tensor in output} == {device}


def test_a_bias_is_not_rounded_by_autocast():
    weight, norm = torch.randn(7, 16), nn.LayerNorm(16)
    nn.init.normal_(norm.bias)
    expected = class_bias(weight, None, norm)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(class_bias(weight, None, norm), expected)


def test_a_norm_is_a_layer_norm():
    with pytest.raises(TypeError, match="norm must be a torch.nn.LayerNorm, got RMSNorm"):
        cam_outputs(torch.rand(2, 8, 3, 3), torch.rand(7, 8), norm=nn.RMSNorm(8))
