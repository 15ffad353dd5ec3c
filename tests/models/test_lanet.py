"""LA-Net's whole network: its parts by name, with either landmark space."""

import inspect

import pytest
import torch
from torch import nn

from robustfer.checkpoint import save_model
from robustfer.functional import pseudo_labels
from robustfer.losses import LANetLoss
from robustfer.models import (
    CAMClassifier,
    LandmarkBranch,
    LandmarkClassifier,
    LandmarkCoordinates,
    LANetModel,
    strip_for_inference,
)
from robustfer.state import FeatureQueue, LabelDistributionBank, ModelEMA

TINY = {"channels": (8, 16, 24, 32), "stem_width": 8}
CLASSES, POINTS, SIDE = 7, 5, 64
SWAP = (1, 0, 2, 4, 3)
SPACES = ["shared", "branch", "coordinates"]


def landmarks(batch, seed=2):
    return SIDE * torch.rand(batch, POINTS, 2, generator=torch.Generator().manual_seed(seed))


def images(batch, seed=1):
    return torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def make(space, **options):
    torch.manual_seed(0)
    faces = CAMClassifier("resnet10t", num_classes=CLASSES, model_options=TINY)
    beside = None
    if space == "shared":
        faces = LandmarkClassifier(faces, num_landmarks=POINTS, dim=12)
    elif space == "branch":
        beside = LandmarkBranch("resnet10t", num_landmarks=POINTS, dim=12, model_options=TINY)
    else:
        beside = LandmarkCoordinates(landmarks(20), swap=SWAP)
    return LANetModel(faces, beside, **options)


@pytest.mark.parametrize("space", SPACES)
def test_is_its_parts(space):
    model, index = make(space, dim=16, num_neighbors=3).eval(), torch.tensor([4, 0, 9, 4])
    pixels, points = images(4), landmarks(4)
    points[2, 1] = torch.nan
    output = model(pixels, points, index)

    whole = model.model(pixels)
    assert torch.equal(output.logits, whole.logits)
    assert torch.equal(output.attention, whole.attention)
    assert torch.equal(output.embeddings, whole.embeddings)
    if space == "coordinates":
        expected, heatmaps = model.landmark_space(points), None
        assert output.known.tolist() == [True, True, False, True]
    else:
        made = whole if space == "shared" else model.landmark_space(pixels)
        expected, heatmaps = made[-1], made.heatmaps
        assert output.known is None
    assert torch.equal(output.landmark_embeddings, expected)
    assert output.heatmaps is heatmaps is None or torch.equal(output.heatmaps, heatmaps)
    estimate = model.estimator(whole.embeddings, expected, whole.logits, index)
    assert torch.equal(output.estimate, estimate)
    assert torch.equal(output.expression_query, model.expression_projection(whole.embeddings))
    known = torch.ones(4, dtype=torch.bool) if output.known is None else output.known
    landmark_query = model.landmark_projection(expected) * known[:, None]
    assert torch.equal(output.landmark_query, landmark_query)
    torch.testing.assert_close(output.landmark_query.norm(dim=1), known.float())
    torch.testing.assert_close(output.expression_query.norm(dim=1), torch.ones(4))
    assert output.expression_query.shape == output.landmark_query.shape == (4, 16)
    assert (model.estimator.num_neighbors, model.estimator.gather) == (3, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("space", SPACES)
def test_its_heads_have_the_dtype_of_the_network(space, dtype):
    whole = make(space)
    parts = (
        part if isinstance(part, nn.Module) else None
        for part in (whole.model, whole.landmark_space)
    )
    model = LANetModel(*(None if part is None else part.to(dtype) for part in parts), dim=16)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    output = model(images(4).to(dtype), landmarks(4).to(dtype), torch.arange(4))
    assert output.logits.dtype == dtype
    wide = torch.promote_types(dtype, torch.float32)
    assert output.expression_query.dtype == output.landmark_query.dtype == wide
    assert output.estimate.dtype == wide
    assert output.estimate.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("built", [torch.float32, torch.float64])
@pytest.mark.parametrize("network", [torch.float32, torch.float64])
def test_landmarks_may_have_another_dtype_than_the_network(network, built, dtype):
    model = make("coordinates").eval()
    points, index = landmarks(4), torch.arange(4)
    expected = model(images(4), points, index)
    model.to(network).landmark_space = LandmarkCoordinates(landmarks(20).to(built), swap=SWAP)
    output = model(images(4).to(network), points.to(dtype), index)
    rounding = {"rtol": 0.02, "atol": 0.02} if dtype == torch.float16 else {}
    for name in ("estimate", "landmark_query", "expression_query"):
        found = getattr(output, name)
        assert found.dtype == network
        torch.testing.assert_close(found.float(), getattr(expected, name), **rounding)


@pytest.mark.parametrize("space", SPACES)
def test_its_names_are_those_of_the_loss_and_the_bank(space):
    fields = set(make(space)(images(2), landmarks(2))._fields)
    of_loss = set(inspect.signature(LANetLoss.forward).parameters)
    assert of_loss & fields == {"logits", "heatmaps", "expression_query", "landmark_query"}
    of_bank = set(inspect.signature(LabelDistributionBank.forward).parameters)
    assert of_bank & fields == {"estimate", "known"}


def test_without_an_index_nothing_is_estimated():
    assert make("shared").eval()(images(2)).estimate is None


@pytest.mark.parametrize("space", SPACES)
def test_a_step_trains_all_of_it(space):
    """The loop of the docs, once: a gradient reaches each parameter; the average makes keys."""
    model, index, target = make(space), torch.tensor([0, 1, 2, 3]), torch.tensor([3, 0, 6, 2])
    average = ModelEMA(model, decay=0.9)
    bank = LabelDistributionBank(target, num_classes=CLASSES)
    queue = FeatureQueue(64, capacity=8)
    rows = nn.functional.normalize(torch.randn(2, 8, 64), dim=2)
    queue.update(*rows, torch.arange(8) % CLASSES)
    criterion = LANetLoss(image_size=None if space == "coordinates" else SIDE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    points = landmarks(4)

    output, averaged = model(images(4), points, index), average(images(4), points)
    soft_target = bank(index, output.estimate, known=output.known)
    pseudo_label = pseudo_labels(soft_target, index, threshold=0.7)
    loss = criterion(
        logits=output.logits,
        target=target,
        soft_target=soft_target,
        expression_query=output.expression_query,
        landmark_query=output.landmark_query,
        expression_key=averaged.expression_query,
        landmark_key=averaged.landmark_query,
        pseudo_label=pseudo_label,
        **queue.negatives(),
        heatmaps=output.heatmaps,
        landmarks=points,
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update(model)
    bank.update(index, soft_target)
    queue.update(averaged.expression_query, averaged.landmark_query, pseudo_label)

    assert loss.isfinite()
    assert not averaged.expression_query.requires_grad
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    for name, part in model.named_children():
        reached = [bool(parameter.grad.any()) for parameter in part.parameters()]
        assert any(reached) or not reached, name
    assert int(queue.count) == 8
    assert torch.equal(queue.expression[:4], averaged.expression_query)


@pytest.mark.parametrize("space", SPACES)
def test_inference_needs_only_the_classifier(space):
    model = make(space)
    stripped = strip_for_inference(model)
    assert torch.equal(stripped(images(2)), model.eval()(images(2), landmarks(2)).logits)
    assert type(stripped) is type(model.classifier.backbone)
    assert model.classifier is (model.model.model if space == "shared" else model.model)


def test_is_restored_from_its_state_dict():
    model, other = make("coordinates"), make("coordinates")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1)
    other.load_state_dict(model.state_dict())
    given = images(2), landmarks(2), torch.arange(2)
    for own, again in zip(model.eval()(*given), other.eval()(*given), strict=True):
        assert own is again is None or torch.equal(own, again)


def test_coordinates_need_landmarks():
    with pytest.raises(ValueError, match="landmarks must be given"):
        make("coordinates")(images(2))


def test_refuses_no_landmark_space_or_two_and_other_classes(tmp_path):
    classifier = CAMClassifier("resnet10t", num_classes=CLASSES, model_options=TINY)
    branch = LandmarkBranch("resnet10t", num_landmarks=POINTS, model_options=TINY)
    shared = LandmarkClassifier(classifier, num_landmarks=POINTS)
    for model, space, got in (
        (classifier, None, "got CAMClassifier with NoneType"),
        (shared, branch, "got LandmarkClassifier with LandmarkBranch"),
        (nn.Linear(1, 1), branch, "got Linear with LandmarkBranch"),
        (classifier, nn.Linear(1, 1), "got CAMClassifier with Linear"),
    ):
        with pytest.raises(TypeError, match=f"model must be a LandmarkClassifier .*{got}"):
            LANetModel(model, space)
    with pytest.raises(ValueError, match="the model's 7 outputs, got 1"):
        save_model(tmp_path, LANetModel(shared), classes=["one"], settings={})
