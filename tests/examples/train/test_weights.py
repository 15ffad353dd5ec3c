"""Start weights: what of a file is taken, counted and named."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from examples.train.data import load_faces
from examples.train.engine import Training
from examples.train.options import ModelOptions, Refused
from examples.train.weights import make_classifier, pixels_of
from robustfer.checkpoint import save_model
from robustfer.models import strip_for_inference
from tests.examples.train.runs import settings_of

CLASSES = ("anger", "fear", "happiness")
NAME = "resnet10t"
SMALL = {"channels": (8, 8, 16, 16), "stem_width": 8}
OPTIONS = {"backbone": NAME, "backbone_options": SMALL}


def network(num_classes=1000, **options):
    torch.manual_seed(1)
    made = timm.create_model(NAME, num_classes=num_classes, **{**SMALL, **options})
    with torch.no_grad():
        for buffer in made.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return made


def load(path, classes=CLASSES, **options):
    torch.manual_seed(2)
    return make_classifier(ModelOptions(**{**OPTIONS, "weights": str(path), **options}), classes)


def of_backbone(model):
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


def assert_loaded(classifier, model):
    found = classifier.backbone.state_dict()
    for name, value in of_backbone(model).items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize(
    "wrap",
    {
        "plain": lambda state: state,
        "nested": lambda state: {"epoch": 3, "model": {"state_dict": state}, "lr": [0.1]},
        "of data-parallel": lambda state: {
            "state_dict": {f"module.{k}": v for k, v in state.items()}
        },
        "deep inside": lambda state: {f"net.0.encoder.{k}": v for k, v in state.items()},
    }.items(),
    ids=lambda item: item[0],
)
def test_every_way_of_writing_a_state_dict(wrap, tmp_path):
    model = network()
    torch.save(wrap[1](model.state_dict()), tmp_path / "weights.pt")
    classifier, report = load(tmp_path / "weights.pt")
    assert_loaded(classifier, model)
    assert (report.loaded, report.share) == (len(of_backbone(model)), 1.0)
    assert (report.missing, report.other_shape, report.head) == ((), (), "new")
    assert report.unexpected == ()


def test_safetensors_and_half_precision(tmp_path):
    model = network()
    state = {name: value.half() if value.is_floating_point() else value
             for name, value in model.state_dict().items()}  # fmt: skip
    save_file(state, tmp_path / "weights.safetensors")
    classifier, report = load(tmp_path / "weights.safetensors")
    assert report.share == 1.0
    found = classifier.backbone.state_dict()["layer1.0.conv1.weight"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model.layer1[0].conv1.weight, rtol=1e-3, atol=1e-4)


def test_the_folder_of_a_run_gives_its_classifier_too(tmp_path):
    first, _ = make_classifier(ModelOptions(**OPTIONS), CLASSES)
    save_model(tmp_path, first, classes=CLASSES, settings={})
    for path in (tmp_path, tmp_path / "model.safetensors"):
        classifier, report = load(path)
        assert report.head == "loaded"
        for name, value in first.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(classifier.state_dict()[name], value), name
    fresh, report = load(tmp_path, new_head=True)
    assert report.head == "new"
    assert_loaded(fresh, first.backbone)
    assert not torch.equal(fresh.get_classifier().weight, first.get_classifier().weight)


@pytest.mark.parametrize("kind", ["run", "strip"])
def test_images_are_normalised_as_in_the_run_that_the_weights_are_from(kind, tmp_path):
    first, _ = make_classifier(ModelOptions(**OPTIONS), CLASSES)
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.5, 0.25, 0.5]}
    if kind == "run":
        path = save_model(tmp_path, first, classes=CLASSES, settings=pixels)
    else:
        path = tmp_path / "timm.safetensors"
        metadata = {name: json.dumps(value) for name, value in pixels.items()}
        save_file(strip_for_inference(first).state_dict(), path, metadata)
    classifier, report = load(path)
    assert report.pixels == pixels_of(classifier, report) == tuple(map(tuple, pixels.values()))
    assert str(report).endswith("mean 0.4, 0.5, 0.6, std 0.5, 0.25, 0.5")


@pytest.mark.parametrize(
    "pixels",
    [{}, {"mean": [0.5] * 3}, {"mean": [0.5], "std": [0.5]}, {"mean": [0.5] * 3, "std": [0] * 3}],
)
def test_weights_without_a_usable_normalisation_take_that_of_the_backbone(pixels, tmp_path):
    first, _ = make_classifier(ModelOptions(**OPTIONS), CLASSES)
    save_model(tmp_path, first, classes=CLASSES, settings=pixels)
    classifier, report = load(tmp_path)
    assert report.pixels is None
    assert "std" not in str(report)
    assert pixels_of(classifier, report) == pixels_of(classifier)


def test_a_run_takes_the_normalisation_of_its_weights_unless_another_is_set(tmp_path):
    faces, judged = load_faces(settings_of("ce"))
    first, _ = make_classifier(settings_of("ce").model, faces.classes)
    pixels = {"mean": [0.4, 0.5, 0.6], "std": [0.5, 0.25, 0.5]}
    save_model(tmp_path, first, classes=faces.classes, settings=pixels)
    for options, mean in (([], [0.4, 0.5, 0.6]), (["--mean=[0, 0.1, 0.2]"], [0, 0.1, 0.2])):
        training = Training(settings_of("ce", f"--weights={tmp_path}", *options), (faces, judged))
        assert list(training.method.views.normalize.mean) == mean
        assert list(training.method.views.normalize.std) == pixels["std"]


@pytest.mark.parametrize("classes", [CLASSES[::-1], (*CLASSES[:2], "sadness"), CLASSES[:2]])
def test_a_run_of_other_classes_is_refused_unless_its_head_is_not_wanted(classes, tmp_path):
    first, _ = make_classifier(ModelOptions(**OPTIONS), CLASSES)
    save_model(tmp_path, first, classes=CLASSES, settings={})
    with pytest.raises(Refused, match=r"(?s)anger, fear, happiness.*--new-head"):
        load(tmp_path, classes=classes)
    classifier, report = load(tmp_path, classes=classes, new_head=True)
    assert report.head == "new"
    assert_loaded(classifier, first.backbone)


def test_a_half_loaded_backbone_is_an_error_that_names_the_tensors(tmp_path):
    model = network()
    state = model.state_dict()
    first = next(iter(of_backbone(model)))
    kept = {name: value for name, value in state.items() if not name.startswith("layer4")}
    kept[first] = torch.zeros(3)
    kept["extra.weight"] = torch.zeros(2)
    torch.save(kept, tmp_path / "weights.pt")
    with pytest.raises(Refused) as caught:
        load(tmp_path / "weights.pt")
    message = str(caught.value)
    wanted = len(of_backbone(model))
    missing = sum(name.startswith("layer4") for name in of_backbone(model))
    for fact in (
        f"{wanted - missing - 1} of {wanted} tensors", f"{missing} missing", "1 unexpected",
        "1 of another shape", "missing: layer4.0", f"and {missing - 4} more",
        f"of another shape: {first} (3,), here", "unexpected: extra.weight", "--allow-partial",
    ):  # fmt: skip
        assert fact in message
    classifier, report = load(tmp_path / "weights.pt", allow_partial=True)
    assert report.share < 0.9
    assert torch.equal(classifier.backbone.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])


def test_a_few_large_tensors_count_by_their_numbers(tmp_path):
    model = network()
    largest = sorted(of_backbone(model), key=lambda name: model.state_dict()[name].numel())[-3:]
    kept = {name: value for name, value in model.state_dict().items() if name not in largest}
    torch.save(kept, tmp_path / "weights.pt")
    # Nine of ten tensors are there, but not nine of ten weights.
    with pytest.raises(Refused, match=largest[0].replace(".", r"\.")):
        load(tmp_path / "weights.pt")


def test_the_same_names_in_other_shapes_are_another_network(tmp_path):
    torch.save(network(channels=(8, 16, 16, 16)).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(Refused, match="of another shape"):
        load(tmp_path / "weights.pt")


def test_values_that_are_not_finite_are_refused(tmp_path):
    state = network().state_dict()
    state["layer2.0.conv1.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(Refused, match=r"layer2\.0\.conv1\.weight.*not finite"):
        load(tmp_path / "weights.pt")


def test_pixels_are_those_the_backbone_was_made_for():
    resnet, _ = make_classifier(ModelOptions(**OPTIONS), CLASSES)
    assert pixels_of(resnet)[0] == pytest.approx((0.485, 0.456, 0.406))
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2,
               "global_pool": "avg"}  # fmt: skip
    vit, _ = make_classifier(
        ModelOptions(backbone="vit_tiny_patch16_224", backbone_options=options), CLASSES
    )
    assert pixels_of(vit) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
