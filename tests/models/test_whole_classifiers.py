"""CAMClassifier around whole classifiers of torchvision and of Hugging Face.

Stand-ins return what many kinds of models do; test_transformers.py has some of the real ones.
"""

import copy
import pickle
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import BasicBlock

from robustfer.models import (
    CAMClassifier,
    LandmarkBranch,
    LANetModel,
    cam_exactness,
    strip_for_inference,
)

IMAGES = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def resnet(num_classes=7):
    return models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


def vgg():
    network = models.VGG(nn.Sequential(nn.Conv2d(3, 12, 3, stride=8), nn.ReLU()), num_classes=7)
    network.classifier = nn.Sequential(
        nn.Linear(12 * 49, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 7)
    )
    return network


def convnext():
    blocks = [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]
    return models.ConvNeXt(blocks, num_classes=7)


def swin():
    return models.SwinTransformer(
        [4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=7, stochastic_depth_prob=0.1
    )


def vit():
    return models.VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=7)


EXACT = {
    "resnet": (resnet, "linear"),
    "densenet": (
        lambda: models.DenseNet(8, (2, 2), 16, num_classes=7),
        "linear",
    ),
    "mobilenet_v2": (lambda: models.mobilenet_v2(num_classes=7, width_mult=0.25), "linear"),
    "efficientnet": (lambda: models.efficientnet_b0(num_classes=7), "linear"),
    "regnet": (lambda: models.regnet_y_400mf(num_classes=7), "linear"),
    "shufflenet": (lambda: models.shufflenet_v2_x0_5(num_classes=7), "linear"),
    "mnasnet": (lambda: models.mnasnet0_5(num_classes=7), "linear"),
    "convnext": (convnext, "norm_linear"),
    "swin": (swin, "linear"),
}


def drawn_anew(network):
    """Zeros and ones in a new network would hide that something is read wrongly."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.0) if "weight" in name else nn.init.normal_(
                parameter
            )
    return network


@pytest.mark.parametrize("name", EXACT)
def test_a_torchvision_classifier_is_kept_whole(name):
    make, kind = EXACT[name]
    network = drawn_anew(make())
    expected = copy.deepcopy(network).eval()(IMAGES)
    model = CAMClassifier(network, num_classes=7, head="keep").eval()
    assert model.backbone is network
    assert model.head_kind == kind
    assert cam_exactness(model).exact
    output = model(IMAGES)
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(
        output.attention.mean(dim=(2, 3)) + model.class_bias(), expected, rtol=1e-4, atol=1e-4
    )
    assert output.features.shape[2] > 1
    assert output.embeddings.shape == (2, model.num_features)
    stripped = strip_for_inference(model)
    assert type(stripped) is type(network)
    torch.testing.assert_close(stripped(IMAGES), expected)


@pytest.mark.parametrize("name", ["resnet", "densenet", "convnext", "swin"])
def test_one_backward_reaches_all_of_it(name):
    model = CAMClassifier(EXACT[name][0](), num_classes=7).train()
    output = model(IMAGES)
    output.attention.square().mean().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.get_classifier().parameters())
    F.cross_entropy(output.logits, torch.tensor([0, 6])).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("make", "reason", "dropped", "places"),
    [
        (vgg, "other layers before the classifier", "classifier", (16, 16)),
        (
            lambda: models.mobilenet_v3_small(num_classes=7, width_mult=0.25),
            "other layers before the classifier",
            "classifier",
            (4, 4),
        ),
        (vit, "a class token, another pooling", "heads", (4, 4)),
    ],
)
def test_a_head_without_exact_maps_is_replaced(make, reason, dropped, places):
    with pytest.raises(ValueError, match=f"no exact class maps: .*{reason}.*'replace'"):
        CAMClassifier(make(), num_classes=7, head="keep")
    with pytest.warns(UserWarning, match=f"{reason}.* and {dropped} with any trained"):
        model = CAMClassifier(make(), num_classes=7)
    assert model.head_kind == "replaced"
    assert cam_exactness(model).exact
    images = torch.rand(2, *model.input_size)
    output = model.train()(images)
    assert output.attention.shape == (2, 7, *places)
    output.logits.sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    torch.testing.assert_close(
        strip_for_inference(model)(images), model.eval()(images).logits, rtol=1e-4, atol=1e-5
    )


class ReluAsAFunction(nn.Module):
    """Its pooling reads what no module returns."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4)
        self.fc = nn.Linear(8, 7)

    def forward(self, images):
        return self.fc(F.relu(self.conv(images)).mean(dim=(2, 3)))


def test_a_function_before_the_pooling_is_named_as_a_cause():
    with pytest.raises(ValueError, match=r"maps that conv returns: .*nn\.ReLU"):
        CAMClassifier(ReluAsAFunction(), num_classes=7, head="keep")
    with pytest.warns(UserWarning, match=r"maps that conv returns: .*nn\.ReLU"):
        model = CAMClassifier(ReluAsAFunction(), num_classes=7)
    assert model.head_kind == "replaced"
    assert cam_exactness(model).exact
    # As the guide says: the new head reads the maps before the ReLU.
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images).features, model.backbone.conv(images))


def test_a_function_that_works_in_place_is_seen():
    class InPlace(ReluAsAFunction):
        def forward(self, images):
            return self.fc(F.relu(self.conv(images), inplace=True).mean(dim=(2, 3)))

    model = CAMClassifier(InPlace(), num_classes=7)
    assert model.head_kind == "linear"
    assert cam_exactness(model).exact
    assert float(model(torch.randn(2, 3, 32, 32)).features.detach().min()) == 0


def test_the_new_head_has_the_drop_rate_of_the_old_one():
    assert CAMClassifier(vgg(), num_classes=7, head="replace").dropout.p == 0.4
    network = models.mobilenet_v2(num_classes=1000, width_mult=0.25, dropout=0.3)
    model = CAMClassifier(network, num_classes=7, head="replace")
    assert model.dropout.p == 0.3
    assert model.get_classifier().out_features == 7


def test_the_number_of_classes_of_a_trained_head():
    with pytest.raises(ValueError, match="num_classes is 7, but the head of this ResNet has 1000"):
        CAMClassifier(resnet(1000), num_classes=7)


def test_the_maps_are_those_before_the_pooling():
    network = resnet().eval()
    stages = create_feature_extractor(network, ["layer4"])
    model = CAMClassifier(network, num_classes=7).eval()
    torch.testing.assert_close(model(IMAGES).features, stages(IMAGES)["layer4"])


def test_copies_carry_over_and_keep_no_maps():
    model = CAMClassifier(resnet(), num_classes=7).eval()
    first, tap = model(IMAGES), model.backbone.layer4
    # The network runs without its classifier too.
    model.backbone(IMAGES)
    assert tap._robustfer_outputs is None
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for ours, theirs in zip(twin(IMAGES), first, strict=True):
            assert torch.equal(ours, theirs)
    assert sum(len(part._forward_hooks) for part in model.modules()) == 1
    assert CAMClassifier(model.backbone, num_classes=7).backbone is model.backbone
    assert sum(len(part._forward_hooks) for part in model.modules()) == 1


def test_a_stripped_network_has_no_hook():
    for head in ("auto", "replace"):
        model = CAMClassifier(resnet(), num_classes=7, head=head).eval()
        stripped = strip_for_inference(model)
        torch.testing.assert_close(stripped(IMAGES), model(IMAGES).logits)
        torch.testing.assert_close(model(IMAGES).logits, stripped(IMAGES))
        hooks = sum(len(part._forward_hooks) for part in stripped.modules())
        # A replaced head reads the maps.
        assert hooks == (head == "replace")


def test_replicas_of_data_parallel_do_not_share_outputs():
    model = CAMClassifier(resnet(), num_classes=7).eval()
    tap = model.backbone.layer4
    replica = tap._replicate_for_data_parallel()
    replica._robustfer_outputs = []
    assert tap._robustfer_outputs is None


def test_a_tap_that_is_replaced_later_is_read():
    model = CAMClassifier(resnet(), num_classes=7).eval()
    model.backbone.layer4 = copy.deepcopy(resnet().layer4).eval()
    assert model(IMAGES).features.shape == (2, 512, 4, 4)
    assert not model.backbone.layer4._forward_hooks


@pytest.mark.parametrize("head", ["auto", "replace"])
def test_it_compiles_whole(head):
    model = CAMClassifier(resnet(), num_classes=7, head=head).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(2):
        for ours, theirs in zip(compiled(IMAGES), model(IMAGES), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_what_only_ends_in_a_vector_is_no_classifier_of_maps():
    with pytest.raises(ValueError, match=r"Sequential must return maps .*got \(2, 4\)"):
        CAMClassifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 4)), num_classes=4)


# --- a landmark branch beside it ------------------------------------------------------------------


def test_a_landmark_branch_on_torchvisions_stages():
    stages = create_feature_extractor(resnet(), ["layer1", "layer2", "layer3", "layer4"])
    branch = LandmarkBranch(stages, num_landmarks=19)
    output = branch(torch.rand(2, 3, 64, 96))
    assert output.heatmaps.shape == (2, 19, 16, 24)
    assert output.embeddings.shape == (2, 64)
    model = LANetModel(CAMClassifier(resnet(), num_classes=7), branch)
    found = model(torch.rand(4, 3, 64, 64), index=torch.arange(4))
    assert found.estimate.shape == (4, 7)
    assert found.heatmaps.shape == (4, 19, 16, 16)
    losses = [found.logits, found.heatmaps, found.expression_query, found.landmark_query]
    (sum(each.square().mean() for each in losses) + found.estimate[:, 0].sum()).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_a_landmark_branch_on_a_hugging_face_backbone():
    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 16, 2, stride=2)

        def forward(self, pixel_values):
            maps = self.first(pixel_values)
            return SimpleNamespace(feature_maps=(maps, self.second(maps)))

    output = LandmarkBranch(Backbone(), num_landmarks=5)(torch.rand(2, 3, 64, 64))
    assert output.heatmaps.shape == (2, 5, 16, 16)


# --- stand-ins for Hugging Face -------------------------------------------------------------------


class Output(OrderedDict):
    """As transformers.utils.ModelOutput: a mapping whose items are attributes too."""

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        return self[name]


class Base(nn.Module):
    def __init__(self, body, norm=None):
        super().__init__()
        self.body, self.layernorm = body, norm

    def forward(self, pixel_values):
        maps = self.body(pixel_values)
        if self.layernorm is not None and maps.ndim == 3:
            maps = self.layernorm(maps)
        return Output(last_hidden_state=maps)


class Tokens(nn.Module):
    """Patches of 16 pixels as tokens, after a class token."""

    def __init__(self, dim, prefix):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, stride=16)
        self.mix = nn.Linear(dim, dim)
        self.first = nn.Parameter(torch.randn(1, prefix, dim)) if prefix else None

    def forward(self, images):
        if images.shape[-1] != 64:
            raise ValueError("Input image size doesn't match model (64*64).")
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        if self.first is not None:
            tokens = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], dim=1)
            tokens = tokens + self.mix(tokens.mean(dim=1, keepdim=True))
        else:
            tokens = self.mix(tokens)
        return tokens


class ForImageClassification(nn.Module):
    """As ``...ForImageClassification`` of transformers: ``config``, and ``logits`` by name."""

    def __init__(self, base, pool, classifier, **config):
        super().__init__()
        self.config = SimpleNamespace(num_channels=3, num_labels=7, **config)
        self.base_model, self.classifier, self.pool = base, classifier, pool

    def forward(self, pixel_values=None, labels=None):
        base = self.base_model(pixel_values)
        pooled = base.pooler_output if self.pool is None else self.pool(base.last_hidden_state)
        return Output(loss=None, logits=self.classifier(pooled))


class NormedBase(nn.Module):
    """As ConvNextModel: the norm of the pooled maps is part of the base model."""

    def __init__(self, body, dim):
        super().__init__()
        self.encoder, self.layernorm = Base(body), nn.LayerNorm(dim)

    def forward(self, pixel_values):
        maps = self.encoder(pixel_values).last_hidden_state
        return Output(last_hidden_state=maps, pooler_output=self.layernorm(maps.mean([-2, -1])))


def hf_resnet():
    body = nn.Sequential(nn.Conv2d(3, 12, 3, stride=8), nn.BatchNorm2d(12), nn.ReLU())
    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 7))
    return ForImageClassification(Base(body), nn.AdaptiveAvgPool2d(1), head)


def hf_convnext():
    body = nn.Sequential(nn.Conv2d(3, 12, 3, stride=8), nn.GELU())
    return ForImageClassification(NormedBase(body, 12), None, nn.Linear(12, 7), image_size=64)


def hf_swin():
    base = Base(Tokens(12, 0), nn.LayerNorm(12))
    return ForImageClassification(
        base, lambda tokens: tokens.mean(dim=1), nn.Linear(12, 7), image_size=64, patch_size=4
    )


def hf_vit():
    base = Base(Tokens(12, 1), nn.LayerNorm(12))
    return ForImageClassification(
        base, lambda tokens: tokens[:, 0], nn.Linear(12, 7), image_size=64, patch_size=16
    )


@pytest.mark.parametrize(
    ("make", "kind"),
    [(hf_resnet, "linear"), (hf_convnext, "norm_linear"), (hf_swin, "linear")],
)
def test_a_hugging_face_classifier_is_kept_whole(make, kind):
    network = drawn_anew(make())
    model = CAMClassifier(network, num_classes=7, head="keep").eval()
    assert model.head_kind == kind
    images = torch.rand(2, *model.input_size)
    expected = network.eval()(images).logits
    output = model(images)
    torch.testing.assert_close(output.logits, expected)
    pooled = output.attention.mean(dim=(2, 3)) + model.class_bias()
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(strip_for_inference(model)(images), expected)
    output.logits.sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("make", [hf_resnet, hf_convnext, hf_swin])
def test_nothing_of_a_replaced_head_stays(make):
    model = CAMClassifier(make(), num_classes=3, head="replace").train()
    output = model(torch.rand(2, *model.input_size))
    assert output.logits.shape == (2, 3)
    (output.logits.sum() + output.attention.sum()).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_a_hugging_face_vit_gets_a_new_head_on_its_patches():
    with pytest.warns(UserWarning, match="a class token.* classifier with any trained"):
        model = CAMClassifier(hf_vit(), num_classes=7)
    assert model.input_size == (3, 64, 64)
    images = torch.rand(2, 3, 64, 64)
    output = model.eval()(images)
    hidden = model.backbone.base_model(images).last_hidden_state
    assert output.features.shape == (2, 12, 4, 4)
    assert torch.equal(output.features[0, :, 1, 2], hidden[0, 1 + 4 + 2])
    assert torch.equal(strip_for_inference(model)(images), output.logits)


def test_a_hugging_face_model_without_a_head():
    for make, places in [(hf_resnet, (16, 16)), (hf_vit, (4, 4))]:
        whole = make()
        base = whole.base_model
        base.config = whole.config
        model = CAMClassifier(base, num_classes=7, head="replace")
        assert model(torch.rand(2, *model.input_size)).attention.shape == (2, 7, *places)
