import pytest
import torch

from robustfer.functional import adaptive_wing, landmark_adaptive_wing
from robustfer.losses import AdaptiveWingLoss, LandmarkAdaptiveWingLoss

WING = {"alpha": 2.5, "omega": 7.0, "epsilon": 0.5, "theta": 0.25, "reduction": "none"}
DRAWING = {"sigma": 1.0, "truncate": 2.0, "near_weight": 5.0, "far_weight": 2.0,
           "near_threshold": 0.4, "variant": "official"}  # fmt: skip


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, WING])
def test_is_the_function(options):
    heatmaps, target, weights = draw(3, 2, 3, 5, 4)
    criterion = AdaptiveWingLoss(**options)
    expected = adaptive_wing(heatmaps, target, weights, **options)
    assert torch.equal(criterion(heatmaps, target, weights), expected)
    assert torch.equal(criterion(heatmaps, target), adaptive_wing(heatmaps, target, **options))


@pytest.mark.parametrize("options", [{}, {**WING, **DRAWING}])
def test_is_the_function_from_landmarks(options):
    heatmaps, landmarks = draw(2, 3, 7, 7), 28 * draw(2, 3, 2, seed=1)
    visible = draw(2, 3, seed=2) > 0.4
    criterion = LandmarkAdaptiveWingLoss(image_size=28, **options)
    expected = landmark_adaptive_wing(heatmaps, landmarks, visible, image_size=28, **options)
    assert torch.equal(criterion(heatmaps, landmarks, visible), expected)


def test_nothing_is_kept():
    for criterion in (AdaptiveWingLoss(), LandmarkAdaptiveWingLoss(image_size=224)):
        assert not criterion.state_dict()
    assert repr(AdaptiveWingLoss()) == (
        "AdaptiveWingLoss(alpha=2.1, omega=14.0, epsilon=1.0, theta=0.5, reduction='mean')"
    )
    assert repr(LandmarkAdaptiveWingLoss(image_size=224)) == (
        "LandmarkAdaptiveWingLoss(image_size=(224, 224), alpha=2.1, omega=14.0, epsilon=1.0, "
        "theta=0.5, sigma=1.5, truncate=3.0, near_weight=10.0, far_weight=1.0, "
        "near_threshold=0.2, variant='paper', reduction='mean')"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.9}, r"alpha must lie in \[2, inf\), got 1.9"),
        ({"omega": -1.0}, r"omega must lie in \(0, inf\), got -1.0"),
        ({"epsilon": 0.0}, r"epsilon must lie in \(0, inf\), got 0.0"),
        ({"theta": 0.0}, r"theta must lie in \(0, inf\), got 0.0"),
        ({"reduction": "batch"}, "reduction must be 'mean', 'sum' or 'none', got 'batch'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveWingLoss(**options)
    with pytest.raises(ValueError, match=message):
        LandmarkAdaptiveWingLoss(image_size=224, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be a positive whole number"),
        ({"sigma": 0.0}, r"sigma must lie in \(0, inf\), got 0.0"),
        ({"truncate": -1.0}, r"truncate must lie in \(0, inf\), got -1.0"),
        ({"near_weight": -1.0}, r"near_weight must lie in \[0, inf\), got -1.0"),
        ({"far_weight": -1.0}, r"far_weight must lie in \[0, inf\), got -1.0"),
        ({"near_threshold": 1.0}, r"near_threshold must lie in \(0, 1\), got 1.0"),
        ({"variant": "public"}, "variant must be 'paper' or 'official', got 'public'"),
    ],
)
def test_refuses_options_of_the_drawing(options, message):
    with pytest.raises(ValueError, match=message):
        LandmarkAdaptiveWingLoss(**{"image_size": 224, **options})
