"""Networks of Hugging Face's transformers themselves, built from a config: no download."""

import pytest
import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from robustfer.models import CAMClassifier, cam_exactness

NETWORKS = {
    "resnet": lambda: ResNetForImageClassification(
        ResNetConfig(
            num_labels=7,
            embedding_size=16,
            hidden_sizes=[16, 32],
            depths=[1, 1],
            layer_type="basic",
        )
    ),
    "convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(num_labels=7, hidden_sizes=[16, 32], depths=[1, 1], num_stages=2)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_whole_classifier_keeps_its_head_and_gives_exact_maps(name):
    torch.manual_seed(0)
    network, images = NETWORKS[name]().eval(), torch.rand(2, 3, 64, 64)
    expected = network(images).logits
    model = CAMClassifier(network, num_classes=7).eval()
    output = model(images)
    torch.testing.assert_close(output.logits, expected)
    means = output.attention.mean(dim=(2, 3)) + model.class_bias()
    torch.testing.assert_close(means, expected, rtol=1e-4, atol=1e-5)
    assert cam_exactness(model).exact


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_lead_gradients_into_the_network(name):
    model = CAMClassifier(NETWORKS[name](), num_classes=7)
    model(torch.rand(2, 3, 64, 64)).attention.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
