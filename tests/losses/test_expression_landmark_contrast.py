import pytest
import torch

from robustfer.functional import expression_landmark_contrast
from robustfer.losses import ExpressionLandmarkContrastiveLoss
from tests.functional.test_contrast import inputs


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_is_the_functional_form(variant):
    made = inputs(unfilled=4)
    criterion = ExpressionLandmarkContrastiveLoss(temperature=0.2, variant=variant)
    expected = expression_landmark_contrast(**made, temperature=0.2, variant=variant)
    assert criterion(**made) == expected


def test_nothing_is_kept():
    criterion = ExpressionLandmarkContrastiveLoss()
    assert not criterion.state_dict()
    assert repr(criterion) == (
        "ExpressionLandmarkContrastiveLoss(temperature=0.1, gather=True, variant='paper')"
    )


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="landmark_query has B=2 but expression_query has B=5"):
        ExpressionLandmarkContrastiveLoss()(**inputs() | {"landmark_query": torch.ones(2, 4)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature must lie in \(0, inf\), got 0.0"),
        ({"temperature": float("nan")}, "temperature must lie in"),
        ({"variant": "code"}, "variant must be 'paper' or 'official', got 'code'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        ExpressionLandmarkContrastiveLoss(**options)
