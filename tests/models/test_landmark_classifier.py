import copy
import io

import pytest
import timm
import torch
from torch import nn

from robustfer.models import CAMClassifier, LandmarkBranch, LandmarkClassifier, strip_for_inference
from robustfer.models.landmark_branch import LandmarkHead

SMALL_SWIN = {"img_size": 64, "depths": (1, 1), "embed_dim": 24, "num_heads": (1, 2)}
FAMILIES = [
    ("resnet10t", {"output_stride": 8}),
    ("convnext_atto", {}),
    ("mobilenetv3_small_050", {}),  # timm has no list of its stages, nor of the next one's
    ("swin_tiny_patch4_window7_224", SMALL_SWIN),  # maps with channels last
]


def make(name="resnet10t", options=None, **given):
    torch.manual_seed(0)
    classifier = CAMClassifier(name, num_classes=7, model_options=options)
    return LandmarkClassifier(classifier, **{"num_landmarks": 5, "dim": 8, **given})


def images(batch=2):
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def by_hand(model, pixels):
    """The maps of both sets of stages of a ResNet, its layers called one by one."""
    network = model.model.backbone
    stem = (network.conv1, network.bn1, network.act1, network.maxpool, network.layer1)
    shared = nn.Sequential(*stem)(pixels)
    own, theirs = [shared], shared
    for name in ("layer2", "layer3", "layer4"):
        own.append(model.later[name](own[-1]))
        theirs = network.get_submodule(name)(theirs)
    return own, theirs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_head_has_the_dtype_of_the_classifier(dtype):
    classifier = CAMClassifier("resnet10t", num_classes=7).to(dtype)
    output = LandmarkClassifier(classifier, num_landmarks=5)(images().to(dtype))
    assert {output.logits.dtype, output.heatmaps.dtype, output.landmark_embeddings.dtype} == {dtype}


def test_is_two_networks_on_one_first_stage():
    model = make().eval()
    for parameter in model.later.parameters():
        nn.init.normal_(parameter, std=0.1)
    maps, features = by_hand(model, images())
    heatmaps, embeddings = model.head(maps)
    output = model(images())
    assert torch.equal(output.heatmaps, heatmaps)
    assert torch.equal(output.landmark_embeddings, embeddings)
    assert torch.equal(output.features, features)
    for ours, alone in zip(output[:4], model.model(images()), strict=True):
        assert torch.equal(ours, alone)


@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_goes_on_from_the_first_stage_which_runs_once(name, options):
    model = make(name, options)
    backbone = model.model.backbone
    shared = backbone.get_submodule(model.shared)
    runs = []
    shared.register_forward_hook(lambda *_: runs.append(1))
    output = model(images())
    assert len(runs) == 1
    assert output.heatmaps.shape == (2, 5, 16, 16)
    assert output.landmark_embeddings.shape == (2, model.dim)

    (output.heatmaps.square().sum() + output.landmark_embeddings.sum()).backward()
    assert all(p.grad is not None for p in shared.parameters())
    trained = [p.grad is not None for p in (*model.later.parameters(), *model.head.parameters())]
    assert sum(trained) > 0.9 * len(trained)
    assert all(p.grad is None for p in model.model.get_classifier().parameters())
    # Each parameter belongs to one of the two.
    own = {p.data_ptr() for p in model.later.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in model.model.parameters())


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_stages_begin_as_copies_or_as_given(name):
    copied = make(name).eval()
    # The network's own last maps, from the branch.
    shared = []
    hook = copied.model.backbone.get_submodule(copied.shared).register_forward_hook(
        lambda _, __, maps: shared.append(maps)
    )
    features = copied.model(images()).features
    hook.remove()
    assert torch.equal(copied.later(shared[0])[-1], features)

    pyramid = timm.create_model(name, features_only=True)
    given = make(name, pyramid=pyramid)
    assert given.later is pyramid
    ours, theirs = given.later.state_dict(), copied.later.state_dict()
    assert {key: v.shape for key, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_head_alone_is_drawn_and_the_classifier_stays_as_it_is():
    torch.manual_seed(0)
    classifier = CAMClassifier("resnet10t", num_classes=7)
    before, state = copy.deepcopy(classifier.state_dict()), torch.get_rng_state()
    model = LandmarkClassifier(classifier, num_landmarks=5)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    head = LandmarkHead([64, 128, 256, 512], [4, 8, 16, 32], num_landmarks=5)
    assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(head.heatmaps.weight, model.head.heatmaps.weight)
    assert model.model is classifier
    assert classifier.training
    for key, value in classifier.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_inference_needs_the_classifier_alone():
    model = make()
    loss = sum(each.square().mean() for each in model(images()))
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    model.eval()
    stripped = strip_for_inference(model)
    assert type(stripped).__name__ == "ResNet"
    assert torch.equal(stripped(images()), model(images()).logits)


def test_copies_are_their_own():
    """As ModelEMA makes them: after calls, and without maps."""
    model = make().eval()
    first = model(images())
    twin = copy.deepcopy(model)
    assert twin.model.backbone.get_submodule(twin.shared)._robustfer_outputs is None
    for ours, theirs in zip(twin(images()), first, strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        model.model.backbone.conv1[0].weight.zero_()
    assert torch.equal(twin(images()).heatmaps, first.heatmaps)
    assert not torch.equal(model(images()).heatmaps, first.heatmaps)


def test_saves_and_loads():
    model, file = make().eval(), io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = make()
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.eval()(images()).heatmaps, model(images()).heatmaps)


def test_channels_last_changes_nothing_but_the_layout():
    model = make().eval()
    plain = model(images())
    model.to(memory_format=torch.channels_last)
    output = model(images().to(memory_format=torch.channels_last))
    assert output.features.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(output, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_compiles_whole_for_any_images():
    model = make().eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for pixels in (images(), 1 - images()):
        for ours, theirs in zip(compiled(pixels), model(pixels), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_two_steps_under_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model = make()
        parallel = nn.parallel.DistributedDataParallel(model)
        for _ in range(2):  # the second refuses if a parameter got no gradient in the first
            output = parallel(images())
            (output.logits.square().mean() + output.heatmaps.square().mean()).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        torch.distributed.destroy_process_group()


class OneAfterOther(nn.Module):
    """As timm describes a network, but a factor stands between its stages."""

    num_features = 6
    feature_info = (
        {"num_chs": 4, "reduction": 4, "module": "first"},
        {"num_chs": 6, "reduction": 8, "module": "second"},
    )

    def __init__(self, factor):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 4, stride=4)
        self.second = nn.Conv2d(4, 6, 2, stride=2)
        self.factor = factor

    def forward_features(self, pixels):
        return self.second(self.factor * self.first(pixels))


class Split(OneAfterOther):
    """Its stages are called with more than maps."""

    def __init__(self):
        super().__init__(1)
        self.second = nn.Bilinear(4, 4, 6)

    def forward_features(self, pixels):
        maps = self.first(pixels).movedim(1, -1)
        return self.second(maps, maps).movedim(-1, 1)


class GoneAround(OneAfterOther):
    def forward_features(self, pixels):
        maps = nn.functional.conv2d(pixels, self.first.weight, self.first.bias, stride=4)
        return self.second(maps)


def test_stages_are_tried_not_believed():
    assert LandmarkClassifier(CAMClassifier(OneAfterOther(1), num_classes=7), num_landmarks=5)
    for network in (OneAfterOther(2), Split(), GoneAround(1)):
        classifier = CAMClassifier(network, num_classes=7)
        with pytest.raises(ValueError, match=f"first of stride 4.*, got {type(network).__name__};"):
            LandmarkClassifier(classifier, num_landmarks=5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "global_pool": "avg"}),
        ("hrnet_w18_small", {}),
    ],
)
def test_refuses_networks_without_such_stages(name, options):
    with pytest.raises(ValueError, match=f"got {name}; use a LandmarkBranch"):
        make(name, options)


def test_refuses_a_module_that_tells_of_no_stages():
    classifier = CAMClassifier(nn.Conv2d(3, 4, 4, stride=4), num_classes=7)
    with pytest.raises(ValueError, match="model must wrap a timm network .* got Conv2d"):
        LandmarkClassifier(classifier, num_landmarks=5)


def test_refuses_gradient_checkpointing():
    model = make()
    model.model.backbone.set_grad_checkpointing(True)
    with pytest.raises(RuntimeError, match="layer1 of resnet10t must run .* gradient check"):
        model(images())


def test_refuses_options():
    with pytest.raises(ValueError, match="pyramid must be a timm network .* got LandmarkBranch"):
        make(pyramid=LandmarkBranch("resnet10t", num_landmarks=5))
    with pytest.raises(ValueError, match=r"stride 4 with 64 channels, like resnet10t, got str"):
        make(pyramid=timm.create_model("convnext_atto", features_only=True))
    with pytest.raises(ValueError, match=r"got strides \[8, 16\] with channels \[128, 256\]"):
        make(pyramid=timm.create_model("resnet10t", features_only=True, out_indices=(2, 3)))
    with pytest.raises(ValueError, match="num_landmarks must be a whole number from 1 on, got 0"):
        make(num_landmarks=0)
    with pytest.raises(ValueError, match="dim must be a whole number from 1 on, got 0"):
        make(dim=0)
