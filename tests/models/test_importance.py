import copy

import pytest
import timm
import torch

from robustfer.losses import SCNLoss
from robustfer.models import CAMClassifier, ImportanceClassifier, strip_for_inference
from robustfer.models.importance import ImportanceHead

SMALL = {"output_stride": 8}


def classifier(name="resnet18", head="auto", **options):
    torch.manual_seed(0)
    return CAMClassifier(name, num_classes=7, head=head, model_options=options)


@pytest.fixture(scope="module")
def model():
    return ImportanceClassifier(classifier(**SMALL))


def test_the_head_is_a_sigmoid_of_a_linear_layer():
    head, embeddings = ImportanceHead(16).double(), torch.randn(5, 16).double()
    weight, bias = head.linear.weight[0], head.linear.bias[0]
    expected = torch.stack([1 / (1 + (-(row @ weight) - bias).exp()) for row in embeddings])
    torch.testing.assert_close(head(embeddings), expected)
    assert head(embeddings[:1]).shape == (1,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_saturate_the_head(dtype):
    """Exactly 1 in half precision, with no gradient; in single there is some left."""
    head = ImportanceHead(4)
    torch.nn.init.ones_(head.linear.weight)
    embeddings = torch.full((3, 4), 3.0, dtype=dtype)
    assert torch.sigmoid(embeddings.sum(1)).eq(1).all()
    with torch.autocast("cpu", torch.bfloat16):
        importance = head(embeddings)
    assert importance.dtype == torch.float32
    assert (importance < 1).all()
    importance.sum().backward()
    assert head.linear.weight.grad.abs().min() > 0
    assert copy.deepcopy(head).to(dtype)(embeddings).dtype == torch.float32


def test_the_whole_model_gives_logits_maps_and_importance(model):
    images = torch.rand(2, 3, 48, 48)
    model.eval()
    output = model(images)
    assert output.importance.shape == (2,)
    torch.testing.assert_close(output.importance, model.importance_head(output.embeddings))
    plain = model.model(images)
    for name in ("logits", "attention", "features", "embeddings"):
        torch.testing.assert_close(getattr(output, name), getattr(plain, name))


def test_the_loss_reaches_backbone_head_and_bias(model):
    model.train()
    output = model(torch.rand(4, 3, 48, 48))
    assert model.bias is model.model.backbone.fc.bias
    loss = SCNLoss(margin=1.0)(
        output.logits, torch.tensor([0, 1, 2, 6]), output.importance, model.bias
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert model.importance_head.linear.weight.grad.any()
    model.zero_grad()


def test_a_classifier_without_bias_has_none():
    network = timm.create_model("resnet18", num_classes=7)
    network.fc = torch.nn.Linear(512, 7, bias=False)
    wrapped = ImportanceClassifier(CAMClassifier(network, num_classes=7))
    assert wrapped.bias is None


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("resnet18", "auto", "linear"),
        ("convnext_atto", "auto", "norm_linear"),
        ("resnet18", "replace", "replaced"),
        ("mobilenetv3_small_050", "replace", "replaced"),
    ],
)
def test_stripped_is_a_plain_model_of_the_same_logits(name, head, kind):
    wrapped = ImportanceClassifier(classifier(name, head, drop_rate=0.5))
    assert wrapped.model.head_kind == kind
    stripped = strip_for_inference(wrapped.train())
    assert not any(module.training for module in stripped.modules())
    assert wrapped.training
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = stripped(images)
        expected = copy.deepcopy(wrapped).eval()(images).logits
    torch.testing.assert_close(logits, expected)
    assert not any("importance" in key for key in stripped.state_dict())
    without = strip_for_inference(wrapped.model)
    torch.testing.assert_close(without(images), logits)


def test_stripped_of_the_networks_own_head_is_timms():
    wrapped = ImportanceClassifier(classifier())
    other = timm.create_model("resnet18", num_classes=7)
    other.load_state_dict(strip_for_inference(wrapped).state_dict())


def test_refusals():
    with pytest.raises(ValueError, match="dim must be a whole number from 1 on, got 0"):
        ImportanceHead(0)
    with pytest.raises(ValueError, match="dim must be a whole number from 1 on, got 16.0"):
        ImportanceHead(16.0)
    with pytest.raises(ValueError, match=r"embeddings must have shape \(B, 16\), got \(2, 8\)"):
        ImportanceHead(16)(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="embeddings must have a floating-point dtype"):
        ImportanceHead(16)(torch.zeros(2, 16, dtype=torch.int64))
