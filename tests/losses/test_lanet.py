import pytest
import torch

from robustfer.functional import adaptive_wing, expression_landmark_contrast, render_heatmaps
from robustfer.losses import LANetLoss, check_values

CONTRAST = ("expression_query", "landmark_query", "expression_key", "landmark_key",
            "pseudo_label", "expression_queue", "landmark_queue", "queue_label")  # fmt: skip


def inputs(batch=4, classes=7, *, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

    def unit(rows):
        return torch.nn.functional.normalize(normal(rows, 6), dim=1)

    return {
        "logits": normal(batch, classes),
        "target": torch.randint(classes, (batch,), generator=draw),
        "soft_target": normal(batch, classes).softmax(1),
        **{name: unit(batch) for name in CONTRAST[:4]},
        "pseudo_label": torch.randint(classes, (batch,), generator=draw),
        "expression_queue": unit(11),
        "landmark_queue": unit(11),
        "queue_label": torch.randint(classes, (11,), generator=draw),
        "heatmaps": normal(batch, 3, 8, 8),
        "landmarks": 31 * normal(batch, 3, 2).sigmoid(),
        "visible": torch.rand(batch, 3, generator=draw) > 0.2,
    }


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_is_the_equation(variant):
    given = inputs()
    options = {"distribution_weight": 2.0, "landmark_weight": 3.0, "contrast_weight": 5.0}
    criterion = LANetLoss(image_size=32, temperature=0.5, variant=variant, **options)
    terms = criterion.terms(**given)
    probabilities, soft = given["logits"].softmax(1), given["soft_target"]
    picked = probabilities[torch.arange(4), given["target"]]
    drawn = render_heatmaps(
        given["landmarks"], image_size=32, heatmap_size=8, visible=given["visible"], variant=variant
    )
    contrast = expression_landmark_contrast(
        **{name: given[name] for name in CONTRAST}, temperature=0.5, variant=variant
    )
    expected = {
        "cross_entropy": -picked.log().mean(),
        "label_distribution": 2 * (soft * (soft.log() - probabilities.log())).sum(1).mean(),
        "landmark_adaptive_wing": 3 * adaptive_wing(given["heatmaps"], *drawn),
        "expression_landmark_contrast": 5 * contrast,
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    torch.testing.assert_close(criterion(**given), sum(expected.values()))


def test_weights_are_the_papers():
    given = inputs()
    ours = LANetLoss(image_size=32).terms(**given)
    ones = LANetLoss(
        image_size=32, distribution_weight=1, landmark_weight=1, contrast_weight=1
    ).terms(**given)
    ratios = [float(ours[name] / ones[name]) for name in ours]
    assert ratios == pytest.approx([1.0, 1.0, 1.0, 0.1])


def test_without_a_branch():
    whole = LANetLoss(image_size=32).terms(**inputs())
    del whole["landmark_adaptive_wing"]
    for unused in (("heatmaps",), ("heatmaps", "landmarks", "visible")):
        given = {name: tensor for name, tensor in inputs().items() if name not in unused}
        terms = LANetLoss(image_size=None).terms(**given)
        assert list(terms) == list(whole)
        for name, value in whole.items():
            assert torch.equal(terms[name], value)


def test_the_distribution_is_no_constant():
    given = inputs()
    for name in ("logits", "soft_target"):
        given[name].requires_grad_()
    terms = LANetLoss(image_size=32).terms(**given)
    terms["label_distribution"].backward()
    soft, logits = given["soft_target"], given["logits"]
    expected = (soft.log() + 1 - logits.log_softmax(1)) / 4
    torch.testing.assert_close(soft.grad, expected.detach())
    torch.testing.assert_close(logits.grad, ((logits.softmax(1) - soft) / 4).detach())


def test_a_class_ruled_out_leaves_gradients_finite():
    given = inputs(dtype=torch.float32)
    given["soft_target"] = torch.eye(7)[:4].requires_grad_()
    given["logits"].requires_grad_()
    loss = LANetLoss(image_size=32)(**given)
    loss.backward()
    assert loss.isfinite()
    assert given["soft_target"].grad.isfinite().all()
    assert given["logits"].grad.isfinite().all()


def test_nothing_is_kept():
    criterion = LANetLoss(image_size=224)
    assert not criterion.state_dict()
    assert "distribution_weight=1.0, landmark_weight=1.0, contrast_weight=0.1" in repr(criterion)


def test_refuses_a_branch_that_is_not_there():
    given = inputs()
    for name in ("heatmaps", "landmarks"):
        lacking = {key: tensor for key, tensor in given.items() if key != name}
        with pytest.raises(ValueError, match="heatmaps and landmarks must be tensors .*image_size"):
            LANetLoss(image_size=32)(**lacking)
    with pytest.raises(ValueError, match="heatmaps must be left out with image_size=None"):
        LANetLoss(image_size=None)(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(3, 7)}, "target has B=4 but logits has B=3"),
        ({"soft_target": torch.zeros(4, 6)}, "soft_target has C=6 but logits has C=7"),
        ({"soft_target": torch.zeros(4, 7).long()}, "soft_target must have a floating-point dtype"),
        ({"heatmaps": torch.zeros(3, 3, 8, 8)}, "heatmaps has B=3 but logits has B=4"),
        ({"landmarks": torch.zeros(4, 2, 2)}, "landmarks has K=2 but heatmaps has K=3"),
        ({"expression_query": torch.zeros(3, 6)}, "expression_query has B=3 but logits has B=4"),
        ({"landmark_key": torch.zeros(4, 5)}, "landmark_key has d=5 but expression_query has d=6"),
        ({"pseudo_label": torch.zeros(4)}, "pseudo_label must be int64"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        LANetLoss(image_size=32)(**{**inputs(), **change})


def test_values_are_looked_at_where_asked_for():
    given = inputs()
    given["soft_target"] = 2 * given["soft_target"]
    with check_values(), pytest.raises(ValueError, match="rows of soft_target must be probabil"):
        LANetLoss(image_size=32)(**given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be a positive whole number"),
        ({"distribution_weight": -1.0}, r"distribution_weight must lie in \[0, inf\), got -1.0"),
        ({"landmark_weight": -1.0}, r"landmark_weight must lie in \[0, inf\), got -1.0"),
        ({"contrast_weight": -1.0}, r"contrast_weight must lie in \[0, inf\), got -1.0"),
        ({"temperature": 0.0}, r"temperature must lie in \(0, inf\), got 0.0"),
        ({"variant": "public"}, "variant must be 'paper' or 'official', got 'public'"),
    ],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        LANetLoss(**{"image_size": 32, **options})
