import math
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from robustfer.functional import adaptive_wing, landmark_adaptive_wing, render_heatmaps
from tests.reference import adaptive_wing as reference

NAN = float("nan")


def maps(batch=2, points=3, height=5, width=4, *, seed=0, dtype=torch.float64):
    """Predictions around targets in [0, 1], and weights; some cells exactly right."""
    draw = torch.Generator().manual_seed(seed)
    target = torch.rand(batch, points, height, width, generator=draw).double()
    away = torch.randn(target.shape, generator=draw).double()
    away[torch.rand(target.shape, generator=draw) < 0.1] = 0.0
    weights = torch.randint(0, 11, target.shape, generator=draw).double()
    target = target.to(dtype)
    return (target + away.to(dtype)).requires_grad_(), target, weights.to(dtype)


def scene(batch=3, points=4, height=14, width=12, *, seed=0, dtype=torch.float64):
    """Predictions, landmarks in and around an image of 56 x 48 pixels, and what is visible."""
    draw = torch.Generator().manual_seed(seed)
    heatmaps = torch.randn(batch, points, height, width, generator=draw).to(dtype)
    landmarks = 70 * torch.rand(batch, points, 2, generator=draw).to(dtype) - 10
    visible = torch.rand(batch, points, generator=draw) > 0.3
    return heatmaps.requires_grad_(), landmarks, visible


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 3.0, "omega": 2.0, "epsilon": 0.5, "theta": 0.2},
        {"alpha": 2.0, "omega": 5.0, "epsilon": 2.0, "theta": 3.0},
    ],
)
def test_is_the_loop(options):
    heatmaps, target, weights = maps()
    values, gradients = reference.adaptive_wing(heatmaps, target, weights, **options)
    for reduction, expected, share in (
        ("none", values, 1.0),
        ("sum", values.sum(), 1.0),
        ("mean", values.mean(), 1 / len(values)),
    ):
        loss = adaptive_wing(heatmaps, target, weights, reduction=reduction, **options)
        torch.testing.assert_close(loss, expected)
        (found,) = torch.autograd.grad(loss.sum(), heatmaps)
        torch.testing.assert_close(found, share * gradients)


def test_without_weights_all_weigh_one():
    heatmaps, target, weights = maps()
    expected = adaptive_wing(heatmaps, target, torch.ones_like(weights))
    torch.testing.assert_close(adaptive_wing(heatmaps, target), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.float64])
def test_weights_of_any_dtype(dtype):
    heatmaps, target, weights = maps(dtype=torch.float32)
    weights = weights.to(dtype)
    expected = adaptive_wing(heatmaps, target, weights.float())
    torch.testing.assert_close(adaptive_wing(heatmaps, target, weights), expected, rtol=0, atol=0)


def test_a_right_prediction_costs_nothing_and_stays():
    _, target, weights = maps(dtype=torch.float32)
    heatmaps = target.clone().requires_grad_()
    loss = adaptive_wing(heatmaps, target, weights)
    loss.backward()
    assert 0 <= loss < 1e-9
    assert heatmaps.grad.count_nonzero() == 0


@pytest.mark.parametrize("truth", [0.0, 0.4, 1.0])
def test_value_and_slope_have_no_step_where_the_curve_turns_straight(truth):
    target = torch.full((1, 1, 1, 1), truth, dtype=torch.float64)
    beside = [(target + 0.5 + step).requires_grad_() for step in (-1e-9, 1e-9)]
    losses = [adaptive_wing(prediction, target) for prediction in beside]
    slopes = [torch.autograd.grad(*pair)[0] for pair in zip(losses, beside, strict=True)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-7)
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-7)


@given(st.integers(0, 999), st.sampled_from([0.3, 1.0, 7.0]), st.floats(2.0, 4.0))
@settings(deadline=None, max_examples=25)
def test_invariances(seed, scale, alpha):
    heatmaps, target, weights = maps(seed=seed)

    def loss(heatmaps, target, weights, **options):
        return adaptive_wing(heatmaps, target, weights, alpha=alpha, reduction="none", **options)

    value = loss(heatmaps, target, weights)
    assert (value >= 0).all()
    # Mirrored: the curve knows how far a prediction is off, not to which side.
    torch.testing.assert_close(loss(2 * target - heatmaps, target, weights), value)
    torch.testing.assert_close(loss(heatmaps, target, scale * weights), scale * value)
    stretched = loss(heatmaps, target, weights, omega=14 * scale)
    torch.testing.assert_close(stretched, scale * value)
    order = torch.randperm(heatmaps[0].numel(), generator=torch.Generator().manual_seed(seed))
    shuffled = (each.flatten(1)[:, order].view_as(each) for each in (heatmaps, target, weights))
    torch.testing.assert_close(loss(*shuffled), value)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sigma": 0.4, "truncate": 2.0, "alpha": 2.5, "theta": 0.3},
        {"sigma": 1.3, "truncate": 2.1, "near_threshold": 0.01, "far_weight": 0.5},
        {"sigma": 4.0, "truncate": 3.0, "near_weight": 3.0, "near_threshold": 0.9},
    ],
)
@pytest.mark.parametrize("sees", [False, True])
@pytest.mark.parametrize("size", [(14, 12), (42, 36)])  # mostly window, and mostly background
def test_from_landmarks_is_against_their_maps(variant, options, sees, size):
    wing = {name: options[name] for name in ("alpha", "theta") if name in options}
    drawing = {name: value for name, value in options.items() if name not in wing}
    for seed in range(8):
        heatmaps, landmarks, visible = scene(3, 9, *size, seed=seed)
        visible = visible if sees else None
        drawn = render_heatmaps(
            landmarks, image_size=(56, 48), heatmap_size=size, visible=visible, variant=variant,
            **drawing,
        )  # fmt: skip
        expected = adaptive_wing(heatmaps, *drawn, reduction="none", **wing)
        found = landmark_adaptive_wing(
            heatmaps, landmarks, visible, image_size=(56, 48), variant=variant, reduction="none",
            **options,
        )  # fmt: skip
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            *(torch.autograd.grad(loss.sum(), heatmaps)[0] for loss in (found, expected))
        )


@pytest.mark.parametrize("unseen", [(NAN, 5.0), (5.0, float("inf")), (-1.0, 5.0), (5.0, 900.0)])
def test_unseen_points_ask_nothing(unseen):
    heatmaps, landmarks, _ = scene()
    landmarks[1, 2] = torch.tensor(unseen, dtype=torch.float64)
    hidden = torch.ones(3, 4, dtype=torch.bool)
    hidden[1, 2] = False
    loss = landmark_adaptive_wing(heatmaps, landmarks, image_size=(56, 48))
    expected = landmark_adaptive_wing(heatmaps, landmarks, hidden, image_size=(56, 48))
    torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(loss, heatmaps)
    assert gradient[1, 2].count_nonzero() == 0
    in_frame = landmark_adaptive_wing(
        heatmaps, torch.full_like(landmarks, 20.0), hidden, image_size=(56, 48)
    )
    (gradient,) = torch.autograd.grad(in_frame, heatmaps)
    assert (gradient.flatten(2).abs().amax(2) > 0).equal(hidden)


def test_official_learns_that_hidden_points_are_nowhere():
    heatmaps, landmarks, _ = scene()
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    loss = landmark_adaptive_wing(
        heatmaps, landmarks, hidden, image_size=(56, 48), variant="official"
    )
    torch.testing.assert_close(loss, adaptive_wing(heatmaps, torch.zeros_like(heatmaps)))


def dense(shape):
    """The loss as a function of heat maps of that shape alone."""
    _, target, weights = maps(*shape, dtype=torch.float32)
    return lambda heatmaps: adaptive_wing(heatmaps, target, weights, reduction="none")


def from_landmarks(shape):
    _, landmarks, visible = scene(*shape[:2], dtype=torch.float32)
    return lambda heatmaps: landmark_adaptive_wing(
        heatmaps, landmarks, visible, image_size=(56, 48), reduction="none"
    )


FORMS = pytest.mark.parametrize("form", [dense, from_landmarks])


@FORMS
def test_the_functional_gradient_is_the_same(form):
    heatmaps, _, _ = scene(2, 2, 7, 6)
    loss = form(heatmaps.shape)
    (gradient,) = torch.autograd.grad(loss(heatmaps).sum(), heatmaps)
    functional = torch.func.grad(lambda maps: loss(maps).sum())(heatmaps)
    torch.testing.assert_close(functional, gradient, rtol=0, atol=0)


@FORMS
def test_a_second_derivative_is_refused(form):
    """As in a gradient penalty: the gradient by the weights of a network before the loss."""
    heatmaps, _, _ = scene()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = form(heatmaps.shape)(heatmaps * scale).sum()
    (gradient,) = torch.autograd.grad(loss, scale, create_graph=True)
    with pytest.raises(RuntimeError, match="adaptive wing loss has no second derivative"):
        torch.autograd.grad(gradient, scale)


def test_targets_are_constants():
    heatmaps, target, weights = (each.detach().requires_grad_() for each in maps())
    adaptive_wing(heatmaps, target, weights).backward()
    assert target.grad is weights.grad is None
    heatmaps, landmarks, _ = scene()
    landmarks.requires_grad_()
    landmark_adaptive_wing(heatmaps, landmarks, image_size=56).backward()
    assert landmarks.grad is None


@FORMS
@pytest.mark.parametrize("layout", ["channels_last", "cut"])
def test_any_layout(form, layout):
    plain, _, _ = scene(4, 5)
    heatmaps = plain.detach()
    if layout == "channels_last":
        heatmaps = heatmaps.to(memory_format=torch.channels_last)
    else:
        heatmaps = torch.cat([heatmaps, heatmaps], -1)[..., :12]
    assert not heatmaps.is_contiguous()
    heatmaps.requires_grad_()
    loss = form(heatmaps.shape)
    torch.testing.assert_close(loss(heatmaps), loss(plain))
    torch.testing.assert_close(
        torch.autograd.grad(loss(heatmaps).sum(), heatmaps)[0],
        torch.autograd.grad(loss(plain).sum(), plain)[0],
    )


@FORMS
def test_far_predictions_stay_finite(form):
    heatmaps = torch.full((1, 2, 6, 6), 1e30, requires_grad=True)
    loss = form(heatmaps.shape)(heatmaps)
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), heatmaps)[0].isfinite().all()


def test_samples_do_not_depend_on_their_batch():
    # More than are computed at once.
    heatmaps, landmarks, visible = scene(12, 19, 56, 56, dtype=torch.float32)
    _, target, weights = maps(12, 19, 56, 56, dtype=torch.float32)

    def from_landmarks(*given):
        return landmark_adaptive_wing(*given, image_size=56, reduction="none")

    def dense(*given):
        return adaptive_wing(*given, reduction="none")

    for loss, tensors in (
        (dense, (heatmaps, target, weights)),
        (from_landmarks, (heatmaps, landmarks, visible)),
    ):
        alone = [loss(*(each[n : n + 1] for each in tensors)) for n in range(12)]
        torch.testing.assert_close(loss(*tensors), torch.cat(alone))


@FORMS
def test_memory_is_that_of_slope_and_gradient(form):
    heatmaps = torch.zeros(48, 19, 56, 56, requires_grad=True)
    loss = form(heatmaps.shape)
    # Without acc_events older torch warns.
    cpu = [ProfilerActivity.CPU]
    with profile(activities=cpu, profile_memory=True, acc_events=True) as record:
        torch.autograd.grad(loss(heatmaps).sum(), heatmaps)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())]
    assert max(accumulate(changes)) < 2.1 * heatmaps.nbytes


def test_the_tensors_device_is_asked_nothing():
    # On the meta device any look at a value raises.
    landmarks = torch.zeros(2, 3, 2, device="meta")
    for side in (8, 40):
        heatmaps = torch.zeros(2, 3, side, side, device="meta", requires_grad=True)
        for loss in (
            adaptive_wing(heatmaps, torch.zeros_like(heatmaps), torch.zeros_like(heatmaps)),
            landmark_adaptive_wing(heatmaps, landmarks, image_size=32),
        ):
            assert torch.autograd.grad(loss, heatmaps)[0].shape == heatmaps.shape


GOOD = torch.zeros(2, 3, 8, 8)
POINTS = torch.zeros(2, 3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmaps": GOOD[0]}, r"heatmaps must have shape \(B, K, h, w\), got \(3, 8, 8\)"),
        ({"heatmaps": GOOD[:0]}, "heatmaps is empty along B"),
        ({"heatmaps": GOOD.long()}, "heatmaps must have a floating-point dtype"),
        ({"heatmap_target": GOOD[:, :2]}, "heatmap_target has K=2 but heatmaps has K=3"),
        ({"heatmap_target": GOOD.long()}, "heatmap_target must have a floating-point dtype"),
        ({"heatmap_weights": GOOD[..., :7]}, "heatmap_weights has w=7 but heatmaps has w=8"),
        ({"heatmap_weights": GOOD.to("meta")}, "heatmap_weights is on meta but heatmaps is on cpu"),
        ({"alpha": 1.9}, r"alpha must lie in \[2, inf\), got 1.9"),
        ({"omega": 0.0}, r"omega must lie in \(0, inf\), got 0.0"),
        ({"epsilon": -1.0}, r"epsilon must lie in \(0, inf\), got -1.0"),
        ({"theta": NAN}, r"theta must lie in \(0, inf\), got nan"),
        ({"reduction": "batch"}, "reduction must be 'mean', 'sum' or 'none', got 'batch'"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        adaptive_wing(**{"heatmaps": GOOD, "heatmap_target": GOOD, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmaps": GOOD[0]}, r"heatmaps must have shape \(B, K, h, w\), got \(3, 8, 8\)"),
        ({"heatmaps": GOOD.long()}, "heatmaps must have a floating-point dtype"),
        ({"landmarks": POINTS[:1]}, "landmarks has B=1 but heatmaps has B=2"),
        ({"landmarks": POINTS.long()}, "landmarks must have a floating-point dtype"),
        ({"landmarks": POINTS.to("meta")}, "landmarks is on meta but heatmaps is on cpu"),
        ({"visible": torch.ones(2, 3)}, "visible must be bool, got torch.float32"),
        ({"visible": torch.ones(2, 2, dtype=torch.bool)}, "visible has K=2 but landmarks has K=3"),
        ({"image_size": 0}, "image_size must be a positive whole number"),
        ({"alpha": 0.5}, r"alpha must lie in \[2, inf\), got 0.5"),
        ({"sigma": 0.0}, r"sigma must lie in \(0, inf\), got 0.0"),
        ({"variant": "public"}, "variant must be 'paper' or 'official', got 'public'"),
        ({"reduction": "batch"}, "reduction must be 'mean', 'sum' or 'none', got 'batch'"),
    ],
)
def test_refuses_from_landmarks(change, message):
    good = {"heatmaps": GOOD, "landmarks": POINTS, "image_size": 32}
    with pytest.raises(ValueError, match=message):
        landmark_adaptive_wing(**{**good, **change})


def test_tiny_distances_keep_their_digits():
    """The logarithm of one plus a tiny number is not that of one."""
    distance = torch.logspace(-9, -0.4, 87)
    maps_ = distance.view(-1, 1, 1, 1)
    found = adaptive_wing(maps_, torch.zeros_like(maps_), reduction="none")
    expected = [14 * math.log1p(float(d) ** 2.1) for d in distance]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=0)
