"""CAMClassifier: what it keeps of a network, what it replaces, and what it refuses."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm
from torch import nn

from robustfer.models import CAMClassifier, LandmarkBranch, cam_exactness, strip_for_inference

AVERAGED = {"img_size": 64, "global_pool": "avg"}
ONE_OF_EACH = [
    ("resnet10t", {}),
    ("convnext_atto", {}),
    ("vit_tiny_patch16_224", {"img_size": 64}),
    ("mobilenetv3_small_050", {}),
    ("levit_128s", {}),
]


def build(name, options=None, **others):
    torch.manual_seed(0)
    return CAMClassifier(name, num_classes=7, model_options=options, **others)


def images_for(model, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *model.input_size, generator=generator)


@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet10t", {}), ("convnext_atto", {}), ("vit_tiny_patch16_224", AVERAGED)],
)
def test_a_kept_head_gives_timms_own_logits(name, options):
    model = build(name, options).eval()
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=7, **options).eval()
    images = images_for(model)
    output = model(images)
    torch.testing.assert_close(output.logits, theirs(images), rtol=0, atol=0)
    assert {f"backbone.{key}" for key in theirs.state_dict()} == model.state_dict().keys()
    linear = F.linear(output.embeddings, model.get_classifier().weight, model.get_classifier().bias)
    torch.testing.assert_close(linear, output.logits)


@pytest.mark.parametrize(("name", "options"), ONE_OF_EACH)
def test_one_backward_reaches_every_parameter_and_the_maps_alone_spare_the_head(name, options):
    model = build(name, options).train()
    # Layer scales of 1e-6 and zeroed classifiers would leave gradients too small to see.
    for parameter in model.get_classifier().parameters():
        nn.init.normal_(parameter)
    output = model(images_for(model))
    output.attention.square().mean().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.get_classifier().parameters())
    trunk = [p for p in model.backbone.parameters() if p.grad is not None]
    assert sum(float(p.grad.abs().sum()) for p in trunk) > 0

    F.cross_entropy(output.logits, torch.tensor([0, 6])).backward()
    missing = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@pytest.mark.parametrize(("name", "options"), ONE_OF_EACH)
def test_the_identity_holds_while_training_too(name, options):
    model = build(name, options).train()
    output = model(images_for(model))
    pooled = output.attention.mean(dim=(2, 3)) + model.class_bias()
    torch.testing.assert_close(pooled, output.logits, rtol=1e-4, atol=1e-5)
    batch, channels = output.embeddings.shape
    assert output.features.shape == (batch, channels, *output.attention.shape[2:])
    assert channels == model.num_features


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_drop_out_reaches_the_logits_and_nothing_else(name):
    model = build(name, {"drop_rate": 0.5}).eval()
    nn.init.normal_(model.get_classifier().weight)
    images = images_for(model)
    still = model(images)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    model.backbone.training = True  # resnet drops out in its forward_head
    moved = model(images)
    assert not torch.allclose(moved.logits, still.logits)
    torch.testing.assert_close(moved.attention, still.attention)
    torch.testing.assert_close(moved.embeddings, still.embeddings)


def test_our_own_head_keeps_the_drop_rate_of_the_one_it_replaces():
    assert build("ghostnet_050").dropout.p == 0.2
    assert build("ghostnet_050", {"drop_rate": 0.4}).dropout.p == 0.4
    assert build("vit_tiny_patch16_224", {"img_size": 64, "drop_rate": 0.3}).dropout.p == 0.3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hiera_tiny_224", {"embed_dim": 16}),
        ("mixer_s32_224", {}),
        ("xcit_nano_12_p16_224", {}),
        (
            "vit_tiny_patch16_224",
            {"img_size": (64, 32), "global_pool": "avg", "class_token": False},
        ),
        ("vit_tiny_patch16_224", {"img_size": (32, 64), "reg_tokens": 3}),
        ("levit_128s", {}),
    ],
)
def test_tokens_lie_where_timm_puts_them(name, options):
    model = build(name, options).eval()
    images = images_for(model)
    final = model.backbone.forward_intermediates(
        images, indices=1, output_fmt="NCHW", intermediates_only=True
    )[-1]
    with_norm = isinstance(getattr(model.backbone, "norm", None), nn.LayerNorm)
    if with_norm:
        final = model.backbone.norm(final.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(model(images).features, final, rtol=1e-4, atol=1e-4)


def test_oblong_images_on_tokens_of_flexible_size():
    model = build("vit_tiny_patch16_224", {"dynamic_img_size": True}, input_size=(3, 64, 64)).eval()
    assert model(torch.rand(1, 3, 48, 96)).attention.shape == (1, 7, 3, 6)


def test_small_images_with_a_lowered_stride_and_one_channel():
    model = build("resnet10t", {"output_stride": 8, "in_chans": 1})
    assert model.input_size == (1, 128, 128)
    assert model(torch.rand(2, 1, 48, 48)).attention.shape == (2, 7, 6, 6)


def test_keep_refuses_with_the_reason_and_what_to_do():
    with pytest.raises(ValueError, match=r"class token.*head='auto' or 'replace', or .*'avg'"):
        build("vit_tiny_patch16_224", {"img_size": 64}, head="keep")
    with pytest.raises(ValueError, match=r"other layers.*conv_head \(Conv2d\).*'replace'$"):
        build("mobilenetv3_small_050", head="keep")
    with pytest.raises(ValueError, match="another pooling"):
        build("resnet10t", {"global_pool": "max"}, head="keep")
    with pytest.raises(ValueError, match="classifies 1024 numbers pooled from 512 channels"):
        build("resnet10t", {"global_pool": "catavgmax"}, head="keep")
    assert build("resnet10t", head="keep").head_kind == "linear"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", {"global_pool": ""}),  # its head cannot run at all
        ("resnet10t", {"global_pool": "max"}),
        ("dla34", {"global_pool": ""}),  # its head gives a map of logits
        ("convnext_atto", {"global_pool": ""}),
        ("vit_tiny_patch16_224", {"img_size": 64, "global_pool": ""}),
        ("vit_tiny_patch16_224", {"img_size": 64, "global_pool": "map"}),
    ],
)
def test_other_poolings_get_our_own_head(name, options):
    model = build(name, options).eval()
    assert model.head_kind == "replaced"
    output = model(images_for(model))
    pooled = output.attention.mean(dim=(2, 3)) + model.class_bias()
    torch.testing.assert_close(pooled, output.logits)
    with pytest.raises(ValueError, match="gives no exact class maps.*'auto' or 'replace'"):
        build(name, options, head="keep")


def test_options_that_timm_refuses_are_named():
    with pytest.raises(ValueError, match=r"cannot build resnet10t with .*'bogus'.*: Invalid pool"):
        build("resnet10t", {"global_pool": "bogus"})


# --- what shows only in training ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.75}),  # 49 of 196 are a square too
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.02, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.5, "dynamic_img_size": True}),
        ("hiera_tiny_224", {"patch_drop_rate": 0.5, "embed_dim": 16}),
    ],
)
def test_what_drops_places_in_training_is_refused(name, options):
    with pytest.raises(ValueError, match=rf"{name} .* in eval mode and .* in training.*patch_drop"):
        build(name, {"depth": 2, **options} if "vit" in name else options)


def test_no_grid_is_guessed_where_the_network_tells_another():
    model = build("vit_tiny_patch16_224", {"img_size": 128, "depth": 1})
    model.backbone.patch_drop = timm.layers.PatchDropout(0.75)
    images = images_for(model)
    assert model.eval()(images).attention.shape == (2, 7, 8, 8)
    with pytest.raises(ValueError, match="16 tokens .* declares a grid of 8x8; build it"):
        model.train()(images)


class ByMode(nn.Module):
    """Gives in training what it is told to."""

    def __init__(self, in_training):
        super().__init__()
        self.stem, self.in_training = nn.Conv2d(3, 8, 3, stride=8), in_training

    def forward(self, images):
        maps = self.stem(images)
        return self.in_training(maps) if self.training else maps


@pytest.mark.parametrize(
    ("in_training", "got"),
    [
        (lambda maps: maps[..., ::2], r"\(2, 8, 16, 8\) in training"),
        (lambda maps: (maps, maps), "tuple in training"),
    ],
)
def test_a_module_that_returns_something_else_in_training_is_refused(in_training, got):
    with pytest.raises(ValueError, match=rf"ByMode gives .* in eval mode and {got} mode"):
        CAMClassifier(ByMode(in_training), num_classes=7)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", {"drop_block_rate": 0.5, "drop_path_rate": 0.9, "drop_rate": 0.5}),
        ("convnext_atto", {"drop_path_rate": 0.9}),
        ("vit_tiny_patch16_224", {"img_size": 64, "drop_path_rate": 0.9, "pos_drop_rate": 0.5}),
    ],
)
def test_what_drops_values_in_training_is_taken(name, options):
    model = build(name, options).train()
    images = images_for(model)
    assert model(images).attention.shape == model.eval()(images).attention.shape


def test_a_head_with_two_results_in_training_is_not_kept():
    class Distilled(Scaled):
        def forward_head(self, features):
            logits = self.fc(features.mean(dim=(2, 3)))
            return (logits, logits) if self.training else logits

        def forward(self, images):
            return self.forward_head(self.forward_features(images))

    with pytest.raises(ValueError, match="its own head gives a tuple, not logits in training"):
        CAMClassifier(Distilled(), num_classes=7, head="keep")
    model = CAMClassifier(Distilled(), num_classes=7, head="replace").train()
    assert model(torch.rand(2, 3, 64, 64)).logits.shape == (2, 7)


def test_synchronised_batch_norm_is_examined_without_the_other_processes(tmp_path):
    network = timm.create_model("mobilenetv3_small_050", num_classes=7)
    network = convert_sync_batchnorm(network)
    before = copy.deepcopy(network.state_dict())
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = CAMClassifier(network, num_classes=7, head="replace")
    finally:
        torch.distributed.destroy_process_group()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet10t"])
def test_the_batch_norm_of_several_gpus_keeps_the_logits(name):
    """timm's function knows norms with an activation inside; torch's drops the activation."""
    model = CAMClassifier(name, num_classes=7).eval()
    images = torch.rand(2, 3, 64, 64)
    expected = model(images).logits
    synchronised = convert_sync_batchnorm(model)
    assert any(isinstance(part, nn.SyncBatchNorm) for part in synchronised.modules())
    torch.testing.assert_close(synchronised(images).logits, expected)
    assert cam_exactness(synchronised, image_size=64).exact


# --- the program's modes and defaults -------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), ONE_OF_EACH)
def test_built_where_no_gradients_are_kept(name, options):
    expected = build(name, options)
    with torch.inference_mode():
        model = build(name, options)
        assert not torch.is_grad_enabled()
        assert model.state_dict().keys() == expected.state_dict().keys()
        assert model.head_kind == expected.head_kind
        images = images_for(model)
        torch.testing.assert_close(model.eval()(images), expected.eval()(images))


def test_a_network_built_under_no_grad_can_be_trained():
    with torch.no_grad():
        model = build("mobilenetv3_small_050")
    model(images_for(model)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.fixture
def other_defaults():
    """Nothing can be computed on the meta device, and most of ours is float32."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


def test_a_network_is_examined_whatever_the_default_dtype_and_device(request):
    networks = [timm.create_model(name, num_classes=7) for name in ("resnet10t", "ghostnet_050")]
    images = torch.rand(2, 3, 64, 64)
    request.getfixturevalue("other_defaults")
    for network, kind in zip(networks, ["linear", "replaced"], strict=True):
        model = CAMClassifier(
            network, num_classes=7, head="keep" if kind == "linear" else "replace"
        )
        assert model.head_kind == kind
        assert cam_exactness(model).exact
        output = model(images)
        assert {each.dtype for each in output} == {torch.float32}
        assert {each.device for each in output} == {images.device}
        assert strip_for_inference(model)(images).device == images.device


def test_own_head_on_request():
    model = build("resnet10t", head="replace")
    assert model.head_kind == "replaced"
    assert "head_kind='replaced'" in repr(model)
    assert not any(key.startswith("backbone.fc") for key in model.state_dict())
    assert {"own_head.weight", "own_head.bias"} <= model.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "dropped"),
    [("mobilenetv3_small_050", "conv_head, classifier"), ("vit_tiny_patch16_224", "head")],
)
def test_dropping_a_pretrained_head_warns(tmp_path, name, dropped):
    weights = tmp_path / "weights.pth"
    torch.manual_seed(1)
    trained = timm.create_model(name, num_classes=7)
    torch.save(trained.state_dict(), weights)
    # Older timm takes any file for this ViT for one from JAX, unless told otherwise.
    overlay = {"file": str(weights), "num_classes": 7, "custom_load": False}
    options = {"pretrained_cfg_overlay": overlay}
    with pytest.warns(UserWarning, match=f"{name} gives no exact.* and {dropped} with any trained"):
        model = build(name, options, pretrained=True)
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key])
    assert (
        build(name, options, pretrained=True, head="replace").head_kind == "replaced"
    )  # no warning


def test_keeping_a_pretrained_head_does_not_warn(tmp_path):
    weights = tmp_path / "weights.pth"
    trained = timm.create_model("resnet10t", num_classes=7)
    torch.save(trained.state_dict(), weights)
    options = {"pretrained_cfg_overlay": {"file": str(weights), "num_classes": 7}}
    model = build("resnet10t", options, pretrained=True)
    assert torch.equal(model.get_classifier().weight, trained.fc.weight)


def test_a_built_timm_model():
    network = timm.create_model("convnext_atto", num_classes=7)
    model = CAMClassifier(network, num_classes=7)
    assert model.backbone is network
    assert model.head_kind == "norm_linear"
    with pytest.raises(ValueError, match="num_classes is 8, but the head of this ConvNeXt has 7"):
        CAMClassifier(network, num_classes=8)
    assert CAMClassifier(network, num_classes=8, head="replace").get_classifier().out_features == 8


def test_a_built_timm_model_without_maps_warns_for_its_head():
    network = timm.create_model("mobilenetv3_small_050", num_classes=1000)
    with pytest.warns(UserWarning, match="conv_head, classifier"):
        model = CAMClassifier(network, num_classes=7)
    assert model.head_kind == "replaced"
    headless = timm.create_model("resnet10t", num_classes=0, global_pool="")
    assert CAMClassifier(headless, num_classes=7).head_kind == "replaced"  # nothing to warn of


def test_a_module_that_returns_maps():
    network = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU()).double()
    model = CAMClassifier(network, num_classes=7, input_size=(1, 32, 32))
    output = model(torch.rand(2, 1, 6, 9, dtype=torch.float64))
    assert output.attention.shape == (2, 7, 4, 7)
    assert output.attention.dtype == torch.float64
    with pytest.raises(ValueError, match="no exact class maps: its own head cannot be found"):
        CAMClassifier(network, num_classes=7, input_size=(1, 32, 32), head="keep")


def test_a_classifier_without_bias():
    network = timm.create_model("resnet10t", num_classes=7)
    network.fc = nn.Linear(512, 7, bias=False)
    model = CAMClassifier(network, num_classes=7).eval()
    assert model.head_kind == "linear"
    assert torch.equal(model.class_bias(), torch.zeros(7))
    output = model(images_for(model))
    torch.testing.assert_close(output.attention.mean(dim=(2, 3)), output.logits)


class Scaled(nn.Module):
    """A timm-like network whose forward does more than its head."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 3, stride=8), nn.Linear(8, 7)

    def forward_features(self, images):
        return self.stem(images)

    def forward_head(self, features):
        return self.fc(features.mean(dim=(2, 3)))

    def forward(self, images):
        return 2 * self.forward_head(self.forward_features(images))


def test_a_forward_beyond_the_head_is_noticed():
    with pytest.raises(ValueError, match="does not do all that its forward does"):
        CAMClassifier(Scaled(), num_classes=7, head="keep")


def test_parameters_read_without_a_call_of_their_module_are_kept():
    class Borrowing(Scaled):
        def forward_features(self, images):
            return self.stem(images) * self.fc.weight.mean()

    model = CAMClassifier(Borrowing(), num_classes=7, head="replace")
    assert isinstance(model.backbone.fc, nn.Linear)


def test_a_frozen_backbone_trains_its_head_alone():
    model = build("resnet10t")
    model.backbone.requires_grad_(False)
    model.get_classifier().requires_grad_(True)
    output = model(images_for(model))
    assert not output.attention.requires_grad
    output.logits.sum().backward()
    assert model.get_classifier().weight.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a whole number from 1 on, got 0"),
        ({"num_classes": "7"}, "num_classes must be a whole number from 1 on, got '7'"),
        ({"head": "mine"}, "head must be 'auto', 'keep' or 'replace', got 'mine'"),
        ({"model_options": {"num_classes": 3}}, "model_options must not hold num_classes"),
        ({"input_size": (1, 64, 64)}, "raised for images of 1x64x64.*input_size"),
        ({"input_size": (3, 32, 32)}, "maps of a single place for images of 3x32x32"),
        ({"backbone": nn.Identity(), "pretrained": True}, "need the name of a timm model"),
        ({"backbone": nn.Identity(), "model_options": {"a": 1}}, "got the built network Identity"),
        ({"backbone": nn.Conv2d(3, 8, 3, device="meta")}, "backbone must hold values.* meta"),
        ({"backbone": nn.Flatten()}, r"Flatten must return maps .*got \(2, 49152\)"),
        ({"backbone": "crossvit_tiny_240"}, "gives a list as features.*cam_outputs"),
        ({"backbone": "pit_ti_224"}, "pit_ti_224 gives maps of a single place"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        CAMClassifier(**({"backbone": "resnet10t", "num_classes": 7} | arguments))


class Tokens(nn.Module):
    """Gives whatever features it is told."""

    def __init__(self, features, num_features=8):
        super().__init__()
        self.features, self.num_features = features, num_features

    def forward_features(self, images):
        return self.features


def test_features_whose_layout_cannot_be_told_are_refused():
    for shape in [(2, 9, 5), (2, 8, 8, 8), (2, 5, 5, 5), (2, 8)]:
        with pytest.raises(ValueError, match="cannot be told from places.*cam_outputs"):
            CAMClassifier(Tokens(torch.zeros(shape)), num_classes=7)
    with pytest.raises(ValueError, match="has forward_features but no num_features.*set self"):
        CAMClassifier(Tokens(torch.zeros(2, 8, 4, 4), num_features=None), num_classes=7)
    for size, advice in [((3, 64, 64), "choose another"), ((3, 64, 32), "use square images")]:
        with pytest.raises(ValueError, match=f"10 tokens .*not declare their grid; {advice}"):
            CAMClassifier(Tokens(torch.zeros(2, 10, 8)), num_classes=7, input_size=size)


def test_ambiguous_shapes_follow_the_declared_layout():
    for declared, expected in [("NCHW", (0, 1, 2)), ("NHWC", (2, 0, 1))]:
        network = Tokens(torch.rand(2, 8, 8, 8))
        network.output_fmt = declared
        features = CAMClassifier(network, num_classes=7)(torch.rand(2, 3, 9, 9)).features
        torch.testing.assert_close(features[0], network.features[0].permute(expected))


def test_building_draws_no_random_numbers_of_its_own():
    torch.manual_seed(3)
    timm.create_model("resnet10t", num_classes=7)
    expected = torch.rand(3)
    torch.manual_seed(3)
    CAMClassifier("resnet10t", num_classes=7)
    assert torch.equal(torch.rand(3), expected)


def test_copies_and_state_dicts_carry_over():
    model = build("mobilenetv3_small_050").eval()
    torch.manual_seed(9)
    other = CAMClassifier("mobilenetv3_small_050", num_classes=7).eval()
    other.load_state_dict(model.state_dict())
    images = images_for(model)
    for twin in (other, copy.deepcopy(model)):
        for ours, theirs in zip(model(images), twin(images), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("name", "options"), ONE_OF_EACH[1:3])
def test_compiles_in_one_graph_and_keeps_float32_maps_under_autocast(name, options):
    model = build(name, options).train()
    images = images_for(model)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for ours, theirs in zip(compiled(images), model(images), strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images)
    assert output.logits.dtype == torch.bfloat16
    assert output.attention.dtype == torch.float32


def test_two_steps_under_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = build("mobilenetv3_small_050")
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):  # the second refuses if a parameter got no gradient in the first
            output = parallel(images_for(model))
            (output.logits.square().mean() + output.attention.square().mean()).backward()
        assert model.get_classifier().weight.grad is not None
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("make", [CAMClassifier, LandmarkBranch])
def test_a_network_that_is_neither_name_nor_module_is_named(make):
    argument = "backbone" if make is CAMClassifier else "pyramid"
    number = "num_classes" if make is CAMClassifier else "num_landmarks"
    with pytest.raises(
        TypeError, match=f"{argument} must be the name of a timm model or an nn.Module"
    ):
        make(nn.ModuleList, **{number: 7})
