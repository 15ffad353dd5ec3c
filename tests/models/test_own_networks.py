"""CAMClassifier and LandmarkBranch around networks of one's own, of many forms."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from robustfer.models import (
    CAMClassifier,
    LandmarkBranch,
    LandmarkClassifier,
    cam_exactness,
    strip_for_inference,
)

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def body(channels=12):
    return nn.Sequential(nn.Conv2d(3, channels, 3, stride=8), nn.ReLU())


class Own(nn.Module):
    """Features, a pooling, and a head that subclasses write."""

    def __init__(self):
        super().__init__()
        self.body = body()
        self.fc = nn.Linear(12, 7)

    def forward(self, images):
        return self.head(F.adaptive_max_pool2d(self.body(images), 1).flatten(1))


class Cosine(Own):
    def head(self, pooled):
        return 16 * F.linear(F.normalize(pooled), F.normalize(self.fc.weight))


class Margin(nn.Linear):
    def forward(self, vectors, labels=None):
        return super().forward(vectors)


class MarginHead(Own):
    def __init__(self):
        super().__init__()
        self.fc = Margin(12, 7)

    def head(self, pooled):
        return self.fc(pooled, None)


class Viewed(Own):
    def __init__(self):
        super().__init__()
        self.fc, self.fc2 = nn.Linear(12, 5), nn.Linear(5, 7)

    def head(self, pooled):
        return self.fc2(F.relu(self.fc(pooled))).view(-1, 7)


class Scaled(Own):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(7))

    def head(self, pooled):
        return self.fc(pooled) * self.scale


class Checkpointed(Own):
    def forward(self, images):
        if self.training:
            maps = checkpoint(self.body, images.requires_grad_(), use_reentrant=True)
        else:
            maps = self.body(images)
        return self.fc(maps.amax(dim=(2, 3)))


def assert_every_learning_parameter_learns(model):
    """DistributedDataParallel refuses any other."""
    output = model.train()(IMAGES.clone())
    (output.logits.sum() + output.attention.square().sum()).backward()
    learning = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    assert [name for name, each in learning if each.grad is None] == []
    assert len(learning) >= 4


@pytest.mark.parametrize("kind", [Cosine, MarginHead, Viewed, Scaled, Checkpointed])
def test_a_replaced_head_may_be_needed_by_the_forward(kind):
    model = CAMClassifier(kind(), num_classes=5, head="replace")
    assert model(IMAGES).logits.shape == (2, 5)
    assert_every_learning_parameter_learns(model)
    stripped = strip_for_inference(model)
    torch.testing.assert_close(stripped(IMAGES), model.eval()(IMAGES).logits)


def test_the_maps_before_a_head_without_modules_are_the_last_ones():
    network = Cosine()
    block = nn.Sequential(nn.Conv2d(12, 12, 3), nn.BatchNorm2d(12), nn.ReLU())
    network.body = nn.Sequential(network.body, block)
    model = CAMClassifier(network, num_classes=5, head="replace").eval()
    assert torch.equal(model(IMAGES).features, network.body(IMAGES))
    assert block[1].weight.requires_grad


def test_a_replaced_head_goes_where_it_is_not_needed():
    network = Own()
    network.head = lambda pooled: network.fc(pooled)
    model = CAMClassifier(network, num_classes=5, head="replace")
    assert isinstance(model.backbone.fc, nn.Identity)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.mask, self.fc = body(), nn.Conv2d(12, 1, 1), nn.Linear(12, 7)

    def forward(self, images):
        maps = self.body(images)
        return self.fc((maps * self.mask(maps).sigmoid()).mean(dim=(2, 3)))


def test_the_maps_are_not_those_of_an_attention_mask():
    with pytest.warns(
        UserWarning, match="replace it, and mask, fc with any trained weights are not"
    ):
        model = CAMClassifier(Gated(), num_classes=7)
    assert model.num_features == 12


class Convolutional(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.body, self.classes, self.last = body(), nn.Conv2d(12, 7, 1), last

    def forward(self, images):
        return self.last(self.classes(self.body(images))).mean(dim=(2, 3))


def test_a_classifier_that_is_a_convolution_is_kept():
    network = Convolutional(nn.Identity())
    expected = network(IMAGES)
    model = CAMClassifier(network, num_classes=7)
    assert (model.head_kind, model.num_features) == ("linear", 12)
    torch.testing.assert_close(model(IMAGES).logits, expected)
    assert cam_exactness(model).exact
    assert model.get_classifier() is network.classes


def test_a_convolution_before_a_function_is_replaced_with_a_warning():
    with pytest.warns(UserWarning, match="does not classify the mean over the maps"):
        model = CAMClassifier(Convolutional(nn.ReLU()), num_classes=7)
    assert (model.head_kind, model.num_features) == ("replaced", 12)


class Auxiliary(Own):
    def __init__(self):
        super().__init__()
        self.aux = nn.Linear(12, 7)

    def forward(self, images):
        pooled = self.body(images).mean(dim=(2, 3))
        logits = self.fc(pooled)
        return (logits, self.aux(pooled))[0] if self.training else logits


@pytest.mark.parametrize("head", ["auto", "replace"])
def test_auxiliary_classifiers_are_frozen(head):
    model = CAMClassifier(Auxiliary(), num_classes=7, head=head)
    assert model.head_kind == ("linear" if head == "auto" else "replaced")
    assert not any(parameter.requires_grad for parameter in model.backbone.aux.parameters())
    assert_every_learning_parameter_learns(model)


class Skipping(Own):
    """A layer that is skipped at random in training still learns."""

    def __init__(self):
        super().__init__()
        self.deeper, self.last = nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()

    def forward(self, images):
        maps = self.body(images)
        maps = maps if self.training else maps + self.deeper(maps)
        return self.fc(self.last(maps).mean(dim=(2, 3)))


def test_maps_that_training_skips_are_refused():
    with pytest.raises(RuntimeError, match="deeper of Unsteady, .* did not run in this forward"):
        CAMClassifier(Unsteady(), num_classes=7)


class Unsteady(Skipping):
    def forward(self, images):
        maps = self.body(images)
        return self.fc((maps if self.training else self.deeper(maps)).mean(dim=(2, 3)))


@pytest.mark.parametrize("head", ["auto", "replace"])
def test_a_layer_that_training_skips_at_times_is_kept(head):
    model = CAMClassifier(Skipping(), num_classes=7, head=head)
    assert all(parameter.requires_grad for parameter in model.backbone.deeper.parameters())


@pytest.mark.parametrize("bias", [True, False])
def test_a_parametrized_classifier_is_kept(bias):
    own = Own()
    own.fc = nn.utils.parametrizations.weight_norm(nn.Linear(12, 7, bias=bias))
    network = Pooled(own)
    expected = network(IMAGES)
    model = CAMClassifier(network, num_classes=7)
    assert model.head_kind == "linear"
    torch.testing.assert_close(model(IMAGES).logits, expected)


class Pooled(nn.Module):
    def __init__(self, own):
        super().__init__()
        self.body, self.fc = own.body, own.fc

    def forward(self, images):
        return self.fc(self.body(images).mean(dim=(2, 3)))


def in_threads(function, right):
    """Call the function with 0, 1, 2 in three threads, many times, and compare the results."""
    wrong = []

    def work(k):
        try:
            for _ in range(40):
                if not torch.equal(function(k), right[k]):
                    wrong.append(k)
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("form", ["kept", "replaced", "stripped", "landmarks"])
def test_threads_do_not_see_each_others_maps(form):
    images = [torch.rand(1, 3, 64, 64) for _ in range(3)]
    if form == "landmarks":
        options = {"channels": (8, 8, 8, 8), "layers": (1, 1, 1, 1)}
        model = CAMClassifier("resnet10t", num_classes=7, model_options=options)
        model = LandmarkClassifier(model, num_landmarks=5)
    else:
        head = "keep" if form == "kept" else "replace"
        model = CAMClassifier(Pooled(Own()), num_classes=7, head=head)
        if form == "stripped":
            model = strip_for_inference(model)
    model.eval()

    def run(k):
        with torch.no_grad():
            output = model(images[k])
        if form == "stripped":
            return output
        return output.heatmaps if form == "landmarks" else output.attention

    in_threads(run, [run(k) for k in range(3)])


class Inception(Own):
    """Its auxiliary classifier needs larger images."""

    def head(self, pooled):
        return self.fc(pooled)

    def forward(self, images):
        if self.training:
            F.conv2d(self.body(images), torch.ones(1, 12, 20, 20))
        return super().forward(images)


@pytest.mark.parametrize("head", ["auto", "replace"])
def test_images_that_are_too_small_in_training(head):
    message = "Inception raised for images of 3x128x128 .* in training mode: .* pass an input_size"
    with pytest.raises(ValueError, match=message):
        CAMClassifier(Inception(), num_classes=7, head=head)


class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 4, stride=4), nn.Conv2d(8, 16, 2, stride=2)

    def forward(self, images):
        first = self.first(images)
        return [first, self.second(first)]


def test_a_landmark_branch_on_grey_images():
    branch = LandmarkBranch(Grey(), num_landmarks=5, input_size=(1, 48, 48))
    assert branch(torch.rand(2, 1, 48, 48)).heatmaps.shape == (2, 5, 12, 12)
    message = "Grey raised for images of 3x128x128 .* pass an input_size that it takes"
    with pytest.raises(ValueError, match=message):
        LandmarkBranch(Grey(), num_landmarks=5)


@pytest.mark.parametrize("size", [112, (3, 112), (3, 0, 112), (3, 112.0, 112)])
def test_an_input_size_has_three_numbers(size):
    for make in (
        lambda: CAMClassifier("resnet18", num_classes=7, input_size=size),
        lambda: LandmarkBranch(Grey(), num_landmarks=5, input_size=size),
    ):
        with pytest.raises(ValueError, match=r"input_size must be \(channels, height, width\)"):
            make()


def test_a_compiled_network_is_wrapped_first():
    with pytest.raises(ValueError, match="must not be compiled yet.*compile the model"):
        CAMClassifier(torch.compile(Cosine()), num_classes=7)


class BothPoolings(Own):
    """A layer inside has as many channels as the head has inputs."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(12, 24, 1), nn.Conv2d(24, 12, 1)
        self.fc = nn.Linear(24, 7)

    def forward(self, images):
        maps = self.narrow(self.wide(self.body(images)))
        return self.fc(torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1))


def test_the_maps_are_the_last_of_those_that_fit():
    assert CAMClassifier(BothPoolings(), num_classes=7, head="replace").num_features == 12
