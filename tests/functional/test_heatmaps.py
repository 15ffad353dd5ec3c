import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from robustfer.functional import landmark_adaptive_wing, render_heatmaps
from robustfer.losses import check_values
from tests.reference import heatmaps as reference

SIZES = {"image_size": 32, "heatmap_size": 8}


def points(seed, *shape, low=-8.0, high=40.0):
    """Points within and around an image of 32 pixels."""
    random = torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * random.double()


@pytest.mark.parametrize(
    ("image_size", "heatmap_size", "sigma", "truncate"),
    [
        ((32, 32), (8, 8), 1.5, 3.0),
        ((20, 33), (10, 11), 0.7, 4.0),
        ((16, 16), (16, 16), 2.0, 1.0),
        ((24, 40), (7, 1), 1.0, 3.0),
        ((9, 9), (12, 15), 1.5, 10.0),
    ],
)
def test_paper_is_the_equation(image_size, heatmap_size, sigma, truncate):
    height, width = image_size
    landmarks = points(0, 3, 5, low=-4.0, high=max(image_size) + 4.0)
    visible = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) > 0.2
    x, y = landmarks.unbind(-1)
    seen = visible & (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    assert 0 < seen.sum() < visible.sum()
    expected = reference.equation(
        landmarks, seen, image_size, heatmap_size,
        sigma=sigma, truncate=truncate, near=7.0, far=0.5, threshold=0.3,
    )  # fmt: skip
    found = render_heatmaps(
        landmarks, image_size=image_size, heatmap_size=heatmap_size, visible=visible, sigma=sigma,
        truncate=truncate, near_weight=7.0, far_weight=0.5, near_threshold=0.3,
    )  # fmt: skip
    torch.testing.assert_close(found.heatmaps, expected[0])
    torch.testing.assert_close(found.weights, expected[1], rtol=0, atol=0)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 1.3])
@pytest.mark.parametrize("image_size", [40, 48, 21])
def test_official_pastes_patches(image_size, sigma):
    size = 12
    # Every whole pixel along a diagonal well beyond the frame, and points in between.
    diagonal = torch.arange(-30, 70).double()
    landmarks = torch.cat([torch.stack([diagonal, diagonal.flip(0)], -1), points(0, 40)])
    found = render_heatmaps(
        landmarks[None], image_size=image_size, heatmap_size=size, sigma=sigma, variant="official"
    )
    for k, landmark in enumerate(landmarks.tolist()):
        expected = reference.pasted(landmark, image_size, size, sigma=sigma)
        torch.testing.assert_close(found.heatmaps[0, k], expected)
        torch.testing.assert_close(found.weights[0, k], reference.weigh(expected), rtol=0, atol=0)


def test_official_is_one_cell_off_near_the_upper_left_border():
    landmarks = torch.stack([torch.arange(56) * 4.0, torch.full((56,), 100.0)], -1)[None]
    maps = render_heatmaps(landmarks, image_size=224, heatmap_size=56, variant="official").heatmaps
    offsets = maps[0].amax(1).argmax(1) - torch.arange(56)
    assert offsets.tolist() == [1] * 5 + [0] * 51
    exact = render_heatmaps(landmarks, image_size=224, heatmap_size=56).heatmaps
    assert (exact[0].amax(1).argmax(1) - torch.arange(56)).tolist() == [0] * 56


@given(st.floats(10.0, 53.0), st.floats(10.0, 41.0))
@settings(deadline=None, max_examples=25)
@example(30.0, 20.0)
def test_the_exact_place_can_be_read_from_the_map(x, y):
    # The logarithm of a Gaussian is a parabola: three cells tell its top.
    landmark = torch.tensor([[[x, y]]], dtype=torch.float64)
    image_size, heatmap_size = (52, 64), (26, 16)
    maps = render_heatmaps(landmark, image_size=image_size, heatmap_size=heatmap_size).heatmaps
    for value, axis, pixels, cells in ((x, 1, 64, 16), (y, 0, 52, 26)):
        profile = maps[0, 0].sum(1 - axis)
        top = min(max(int(profile.argmax()), 1), cells - 2)
        before, here, after = profile[top - 1 : top + 2].log()
        place = top + (before - after) / (2 * (before - 2 * here + after))
        assert (place + 0.5) * pixels / cells - 0.5 == pytest.approx(value, abs=1e-9)


@given(
    st.integers(0, 999), st.sampled_from([(32, 32), (24, 48)]), st.sampled_from([(8, 8), (6, 12)])
)
@settings(deadline=None, max_examples=25)
def test_invariances(seed, image_size, heatmap_size):
    # Multiples of 1/16 pixel, so that the window's border is met exactly in both images.
    landmarks = (points(seed, 2, 6) * 16).round() / 16
    sizes = {"image_size": image_size, "heatmap_size": heatmap_size}
    maps, weights = render_heatmaps(landmarks, **sizes)
    width = image_size[1]
    mirrored = torch.stack([width - 1 - landmarks[..., 0], landmarks[..., 1]], -1)
    for found, expected in zip(render_heatmaps(mirrored, **sizes), (maps, weights), strict=True):
        torch.testing.assert_close(found, expected.flip(-1))
    # x and y exchanged.
    turned = {"image_size": image_size[::-1], "heatmap_size": heatmap_size[::-1]}
    for found, expected in zip(
        render_heatmaps(landmarks.flip(-1), **turned), (maps, weights), strict=True
    ):
        torch.testing.assert_close(found, expected.transpose(-1, -2))
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert set(weights.unique().tolist()) <= {0.0, 1.0, 10.0}


def test_pixels_of_an_image_twice_as_fine_give_the_same_maps():
    landmarks = points(0, 2, 5, low=2.0, high=29.0)
    finer = (landmarks + 0.5) * 2 - 0.5
    expected = render_heatmaps(landmarks, **SIZES)
    found = render_heatmaps(finer, image_size=64, heatmap_size=8)
    torch.testing.assert_close(found.heatmaps, expected.heatmaps)
    torch.testing.assert_close(found.weights, expected.weights)


NAN, INF = float("nan"), float("inf")
UNSEEN = [(NAN, 5.0), (5.0, NAN), (NAN, NAN), (INF, 5.0), (5.0, -INF)]


@pytest.mark.parametrize("unseen", [*UNSEEN, (-0.51, 5.0), (5.0, 31.51), (32.0, -1.0)])
def test_unseen_points_ask_nothing(unseen):
    maps, weights = render_heatmaps(torch.tensor([[unseen, (5.0, 5.0)]]), **SIZES)
    assert maps[0, 0].count_nonzero() == weights[0, 0].count_nonzero() == 0
    assert maps[0, 1].max() > 0.8
    assert weights[0, 1].min() == 1


@pytest.mark.parametrize("seen", [(-0.5, -0.5), (31.5, 31.5), (-0.5, 31.5), (0.0, 31.0)])
def test_points_on_the_frame_are_seen(seen):
    maps, weights = render_heatmaps(torch.tensor([[seen]]), **SIZES)
    assert maps.max() > 0.5
    assert weights.max() == 10


@pytest.mark.parametrize("unseen", [*UNSEEN, (-1000.0, 5.0), (5.0, 10000.0)])
def test_official_weighs_maps_of_unseen_points(unseen):
    maps, weights = render_heatmaps(torch.tensor([[unseen]]), **SIZES, variant="official")
    assert maps.count_nonzero() == 0
    assert bool((weights == 1).all())


@pytest.mark.parametrize(("variant", "weight"), [("paper", 0.0), ("official", 1.0)])
def test_hidden_points(variant, weight):
    landmarks = points(0, 2, 3, low=4.0, high=28.0)
    visible = torch.tensor([[True, False, True], [False, False, True]])
    maps, weights = render_heatmaps(landmarks, **SIZES, visible=visible, variant=variant)
    everything = render_heatmaps(landmarks, **SIZES, variant=variant)
    assert maps[~visible].count_nonzero() == 0
    assert bool((weights[~visible] == weight).all())
    torch.testing.assert_close(maps[visible], everything.heatmaps[visible])
    torch.testing.assert_close(weights[visible], everything.weights[visible])


def test_shares_of_the_image_given_as_pixels_are_warned_of():
    shares = points(0, 2, 5, low=0.05, high=0.95)
    shares[0, 0] = NAN
    message = "landmarks must be in pixels, got values from 0.* multiply x by the image's wid"
    with check_values(), pytest.warns(UserWarning, match=message):
        render_heatmaps(shares.requires_grad_(), **SIZES)
    with check_values(), pytest.warns(UserWarning, match=message):
        landmark_adaptive_wing(torch.rand(2, 5, 8, 8), shares.detach(), image_size=32)
    render_heatmaps(shares, **SIZES)  # values are looked at only when asked for
    tiny = {"image_size": 4, "heatmap_size": 4}
    for landmarks, sizes in ((shares * 32, SIZES), (shares.round(), SIZES), (shares, tiny)):
        with check_values():
            render_heatmaps(landmarks, **sizes)


def test_gradients_reach_the_landmarks():
    # Far enough from the window's border for the finite differences.
    landmarks = torch.tensor([[[10.3, 12.7], [20.2, 5.1]]], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda p: render_heatmaps(p, **SIZES).heatmaps, landmarks)
    maps, weights = render_heatmaps(landmarks, **SIZES)
    assert maps.requires_grad
    assert not weights.requires_grad


def test_unseen_points_have_no_gradient():
    landmarks = torch.tensor([[[NAN, 5.0], [INF, 5.0], [90.0, 5.0], [9.0, 9.0], [9.0, 9.0]]])
    landmarks.requires_grad_()
    visible = torch.tensor([[True, True, True, False, True]])
    render_heatmaps(landmarks, **SIZES, visible=visible).heatmaps.square().sum().backward()
    assert landmarks.grad[0, :4].count_nonzero() == 0
    assert landmarks.grad[0, 4].abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_drawn_in_single(dtype):
    landmarks = points(0, 2, 4).to(dtype)
    found = render_heatmaps(landmarks, **SIZES)
    expected = render_heatmaps(landmarks.float(), **SIZES)
    assert found.heatmaps.dtype == found.weights.dtype == torch.float32
    assert torch.equal(found.heatmaps, expected.heatmaps)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = render_heatmaps(landmarks.float(), **SIZES)
    assert torch.equal(under_autocast.heatmaps, expected.heatmaps)


def test_double_precision_stays():
    landmarks = points(0, 2, 4)
    found, single = render_heatmaps(landmarks, **SIZES), render_heatmaps(landmarks.float(), **SIZES)
    assert found.heatmaps.dtype == found.weights.dtype == torch.float64
    torch.testing.assert_close(single.heatmaps.double(), found.heatmaps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_compiles_whole(variant):
    def render(landmarks, visible):
        return render_heatmaps(landmarks, **SIZES, visible=visible, variant=variant)

    landmarks, visible = points(0, 2, 4).requires_grad_(), torch.rand(2, 4) > 0.3
    compiled = torch.compile(render, fullgraph=True, backend="aot_eager")
    found, expected = compiled(landmarks, visible), render(landmarks, visible)
    torch.testing.assert_close(found.heatmaps, expected.heatmaps)
    torch.testing.assert_close(found.weights, expected.weights)
    (gradient,) = torch.autograd.grad(found.heatmaps.square().sum(), landmarks)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(expected.heatmaps.square().sum(), landmarks)[0]
    )


def test_memory_is_that_of_the_two_results():
    landmarks = points(0, 16, 19, low=0.0, high=223.0).float()
    # Without acc_events older torch warns.
    cpu = [ProfilerActivity.CPU]
    with profile(activities=cpu, profile_memory=True, acc_events=True) as record:
        maps, weights = render_heatmaps(landmarks, image_size=224, heatmap_size=56)
    sizes = [event.cpu_memory_usage for event in record.events() if not event.cpu_parent]
    large = [size for size in sizes if size > 0.2 * maps.nbytes]
    assert sorted(large) == [maps.nbytes, weights.nbytes]


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_samples_do_not_depend_on_their_batch(variant):
    # More than are drawn at once.
    landmarks = points(0, 20, 19, low=-20.0, high=250.0).float()
    sizes = {"image_size": 224, "heatmap_size": 56, "variant": variant}
    alone = [render_heatmaps(sample[None], **sizes) for sample in landmarks]
    together = render_heatmaps(landmarks, **sizes)
    maps, weights = (torch.cat(each) for each in zip(*alone, strict=True))
    torch.testing.assert_close(together.heatmaps, maps)
    # A pixel whose value is that of the threshold, but for rounding, may weigh one or the other.
    widened = F.max_pool2d(maps, 3, stride=1, padding=1)
    clear = (widened - 0.2).abs() > 1e-6
    assert torch.equal(together.weights[clear], weights[clear])


def test_the_tensors_device_is_asked_nothing():
    # On the meta device any look at a value raises.
    landmarks = torch.zeros(2, 5, 2, device="meta")
    for variant in ("paper", "official"):
        maps, weights = render_heatmaps(landmarks, **SIZES, variant=variant)
        assert maps.shape == weights.shape == (2, 5, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"landmarks": torch.zeros(5, 2)}, r"landmarks must have shape \(B, K, 2\), got \(5, 2\)"),
        ({"landmarks": torch.zeros(1, 5, 3)}, r"landmarks must have shape \(B, K, 2\)"),
        ({"landmarks": torch.zeros(0, 5, 2)}, "landmarks is empty along B"),
        ({"landmarks": torch.zeros(1, 5, 2).long()}, "landmarks must have a floating-point dtype"),
        ({"visible": torch.ones(1, 4, dtype=torch.bool)}, "visible has K=4 but landmarks has K=5"),
        ({"visible": torch.ones(1, 5)}, "visible must be bool, got torch.float32"),
        ({"image_size": 0}, r"image_size must be a positive .* or \(height, width\), got 0"),
        ({"image_size": (32, 32, 3)}, "image_size must be a positive whole number"),
        ({"image_size": True}, "image_size must be a positive whole number .*, got True"),
        ({"heatmap_size": (8, True)}, "heatmap_size must be a positive whole number"),
        ({"heatmap_size": (8, -1)}, r"heatmap_size must be .* got \(8, -1\)"),
        ({"heatmap_size": (8.0, 8)}, "heatmap_size must be a positive whole number"),
        ({"sigma": 0.0}, r"sigma must lie in \(0, inf\), got 0.0"),
        ({"truncate": -1.0}, r"truncate must lie in \(0, inf\), got -1.0"),
        ({"near_weight": -1.0}, r"near_weight must lie in \[0, inf\), got -1.0"),
        ({"far_weight": NAN}, r"far_weight must lie in \[0, inf\), got nan"),
        ({"near_threshold": 1.0}, r"near_threshold must lie in \(0, 1\), got 1.0"),
        ({"variant": "public"}, "variant must be 'paper' or 'official', got 'public'"),
    ],
)  # fmt: skip
def test_refuses(change, message):
    arguments = dict(landmarks=torch.zeros(1, 5, 2), **SIZES) | change
    with pytest.raises(ValueError, match=message):
        render_heatmaps(**arguments)
