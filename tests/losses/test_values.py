"""What every loss of the core does with values that cannot be, and with torch's -100."""

import pytest
import torch

from robustfer.functional import adaptive_wing, pseudo_labels, rank_regularization
from robustfer.functional.attention import class_attention
from robustfer.functional.neighbors import cosine_neighbors, neighbor_distribution
from robustfer.functional.ranking import importance_weighted_cross_entropy
from robustfer.losses import (
    CompositeLoss,
    ExpressionLandmarkContrastiveLoss,
    LANetLoss,
    RankRegularizationLoss,
    SCNLoss,
    check_values,
)
from robustfer.models.label_distribution import LabelDistributionEstimator
from robustfer.testing import LossConformance
from tests.losses import test_conformance

UNKNOWN = "landmarks"  # NaN there means: not known
KITS = [
    kit
    for name, kit in vars(test_conformance).items()
    if name.startswith("Test") and issubclass(kit, LossConformance)
]
# The cross entropy in the composition is torch's own, and keeps its ways.
OURS = [kit for kit in KITS if not isinstance(kit().make_loss(), CompositeLoss)]
OF_CLASSES = [kit for kit in OURS if kit()._inputs().get("target", torch.zeros(0, 0)).ndim == 1]
WITHOUT_PARAMETERS = [kit for kit in KITS if not list(kit().make_loss().parameters())]


def floating():
    for kit in OURS:
        for name, tensor in kit()._inputs().items():
            if tensor.is_floating_point() and name != UNKNOWN:
                yield pytest.param(kit, name, id=f"{kit.__name__}-{name}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("kit", "name"), list(floating()))
def test_each_tensor_is_looked_at_when_asked_for(kit, name, value):
    loss, inputs = kit().make_loss(), kit()._inputs()
    with check_values():
        loss(**inputs)
    inputs[name].flatten()[-1] = value
    assert inputs[name].flatten()[-1] != 0
    with check_values(), pytest.raises(ValueError, match=name):
        loss(**inputs)


@pytest.mark.parametrize("kit", OF_CLASSES)
@pytest.mark.parametrize("label", [-100, -1, 7])
def test_no_label_is_left_out(kit, label):
    """-100 is torch's word for a sample to ignore: every loss refuses it, as any other outside."""
    loss, inputs = kit().make_loss(), kit()._inputs()
    inputs["target"][1] = label
    with (
        check_values(False),
        pytest.raises(IndexError, match=f"target must .* got {label} at position 1. If your"),
    ):
        loss(**inputs)
    with check_values(), pytest.raises(ValueError, match=f"target .* got {label} at position 1"):
        loss(**inputs)


@pytest.mark.parametrize("kit", WITHOUT_PARAMETERS)
def test_torchs_defaults_change_no_loss(kit):
    """Parameters follow torch's defaults, as those of its own layers do; nothing else does."""
    expected, inputs = kit().make_loss(), kit()._inputs()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            loss = kit().make_loss()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(loss(**inputs), expected(**inputs))
    assert loss(**inputs).dtype == torch.float32


NAN, EYE = float("nan"), torch.eye(3)
MAPS = EYE[None, None]
INDEX, LONE = torch.arange(3), torch.ones(3, 1)
CALLS = {
    "class_attention, features": lambda: class_attention(EYE[:, :, None, None] / 0, EYE),
    "class_attention, weight": lambda: class_attention(EYE[:, :, None, None], EYE / 0),
    "importance_weighted_cross_entropy, logits": lambda: importance_weighted_cross_entropy(
        EYE / 0, INDEX, EYE[0]
    ),
    "importance_weighted_cross_entropy, importance": lambda: importance_weighted_cross_entropy(
        EYE, INDEX, -EYE[0]
    ),
    "rank_regularization, margin": lambda: rank_regularization(EYE[0], margin=torch.tensor(NAN)),
    "pseudo_labels, soft_target": lambda: pseudo_labels(EYE + 1, INDEX),
    "pseudo_labels, index": lambda: pseudo_labels(EYE, INDEX - 1),
    "adaptive_wing, heatmap_target": lambda: adaptive_wing(MAPS, MAPS * 2),
    "adaptive_wing, heatmap_weights": lambda: adaptive_wing(
        *[EYE[None, None]] * 2, -EYE[None, None]
    ),
    "cosine_neighbors, embeddings": lambda: cosine_neighbors(EYE / 0, INDEX, num_neighbors=1),
    "cosine_neighbors, rows": lambda: cosine_neighbors(EYE, INDEX, num_neighbors=1, rows=INDEX + 1),
    "neighbor_distribution, probabilities": lambda: neighbor_distribution(
        EYE + 1, LONE, INDEX[:, None], LONE > 0
    ),
    "neighbor_distribution, scores": lambda: neighbor_distribution(
        EYE, -LONE, INDEX[:, None], LONE > 0
    ),
    "neighbor_distribution, neighbors": lambda: neighbor_distribution(
        EYE, LONE, INDEX[:, None] - 1, LONE > 0
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_functions_look_too(call):
    with check_values(), pytest.raises(ValueError, match=f"{call.split(', ')[1]} .*must "):
        CALLS[call]()


SWITCHES = {
    "learnable_margin": (RankRegularizationLoss, SCNLoss),
    "gather": (
        *(RankRegularizationLoss, SCNLoss, ExpressionLandmarkContrastiveLoss),
        lambda gather: LANetLoss(image_size=None, gather=gather),
        lambda gather: LabelDistributionEstimator(4, 4, gather=gather),
    ),
    "detach_neighbor_probabilities": (
        lambda **options: LabelDistributionEstimator(4, 4, **options),
    ),
}


@pytest.mark.parametrize("word", ["false", "no", 0, None])
@pytest.mark.parametrize(
    ("option", "make"), [(option, make) for option in SWITCHES for make in SWITCHES[option]]
)
def test_a_switch_is_no_word(option, make, word):
    with pytest.raises(TypeError, match=f"{option} must be True or False, got {word!r}"):
        make(**{option: word})
    for switch in (True, False):
        make(**{option: switch})
