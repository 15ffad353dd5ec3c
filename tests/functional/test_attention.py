import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from robustfer.functional import attention as attention_module
from robustfer.functional import attention_consistency
from robustfer.functional.attention import class_attention
from robustfer.losses import EACLoss
from tests.reference import attention as reference

# Most maps here are small on purpose; what is said of them has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:attention holds maps of 2x2:UserWarning")

# Odd, even and non-square maps, a single location, a single class, more classes than seven.
SHAPES = [(2, 3, 4, 5, 5), (1, 1, 2, 1, 1), (3, 2, 3, 4, 7), (2, 5, 1, 6, 2), (2, 3, 9, 1, 3)]


def maps(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_class_attention_is_the_loop_over_channels(shape):
    batch, depth, classes, height, width = shape
    features, weight = maps(0, batch, depth, height, width), maps(1, classes, depth)
    torch.testing.assert_close(
        class_attention(features, weight), reference.class_attention(features, weight)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_consistency_is_the_loop_over_locations(shape):
    batch, _, classes, height, width = shape
    one, other = maps(0, batch, classes, height, width), maps(1, batch, classes, height, width)
    expected = reference.attention_consistency(one, other)
    torch.testing.assert_close(attention_consistency(one, other, reduction="none"), expected)
    torch.testing.assert_close(attention_consistency(one, other), expected.mean())
    torch.testing.assert_close(attention_consistency(one, other, reduction="sum"), expected.sum())


def test_mean_map_plus_bias_is_the_logit():
    features, weight, bias = maps(0, 4, 6, 5, 3), maps(1, 7, 6), maps(2, 7)
    logits = features.mean((2, 3)) @ weight.T + bias
    torch.testing.assert_close(class_attention(features, weight).mean((2, 3)) + bias, logits)


def test_weight_is_a_constant_and_features_are_not():
    features, weight = maps(0, 2, 3, 4, 4).requires_grad_(), maps(1, 5, 3).requires_grad_()
    class_attention(features, weight).square().sum().backward()
    assert weight.grad is None
    assert features.grad.abs().min() > 0


def test_gradients_of_the_maps():
    features, weight = maps(0, 2, 3, 4, 3).requires_grad_(), maps(1, 4, 3)
    torch.autograd.gradcheck(lambda f: class_attention(f, weight), features)


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99)
)
@settings(deadline=None, max_examples=40)
def test_invariances_of_the_consistency(batch, classes, height, width, seed):
    one, other = (
        maps(seed, batch, classes, height, width),
        maps(-seed - 1, batch, classes, height, width),
    )
    value = attention_consistency(one, other, reduction="none")
    # Symmetric, blind to mirroring both, to the order of classes, and quadratic in scale.
    torch.testing.assert_close(attention_consistency(other, one, reduction="none"), value)
    mirrored = attention_consistency(one.flip(-1), other.flip(-1), reduction="none")
    torch.testing.assert_close(mirrored, value)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        attention_consistency(one[:, order], other[:, order], reduction="none"), value
    )
    torch.testing.assert_close(
        attention_consistency(3 * one, 3 * other, reduction="none"), 9 * value
    )
    assert attention_consistency(one, one.flip(-1)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype):
    features = (100 * maps(0, 2, 2048, 3, 3).abs()).to(dtype)
    weight = maps(1, 7, 2048).abs().to(dtype)
    attention = class_attention(features, weight)  # beyond 65504, the largest float16
    assert attention.dtype == torch.float32
    expected = class_attention(features.double(), weight.double())
    torch.testing.assert_close(attention.double(), expected, rtol=1e-5, atol=1e-3)
    # A difference of 300 squares to more than float16 holds.
    far = torch.full((1, 1, 2, 2), 300.0, dtype=dtype)
    assert attention_consistency(far, torch.zeros_like(far)) == 90000


def test_autocast_does_not_round_the_maps():
    features, weight = (
        maps(0, 2, 64, 3, 3, dtype=torch.float32),
        maps(1, 7, 64, dtype=torch.float32),
    )
    with torch.autocast("cpu", torch.bfloat16):
        attention = class_attention(features, weight)
    torch.testing.assert_close(attention, class_attention(features, weight), rtol=0, atol=0)


def test_compiled_under_autocast_does_not_round_the_maps():
    features, weight = (
        maps(0, 2, 64, 3, 3, dtype=torch.float32),
        maps(1, 7, 64, dtype=torch.float32),
    )
    compiled = torch.compile(class_attention, fullgraph=True, backend="aot_eager")
    for autocast in (False, True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            attention = compiled(features, weight)
        torch.testing.assert_close(attention, class_attention(features, weight))


def test_shapes_can_be_had_of_tensors_without_values():
    features, weight = torch.empty(2, 64, 3, 4, device="meta"), torch.empty(7, 64, device="meta")
    attention = class_attention(features, weight)
    assert attention.shape == (2, 7, 3, 4)
    assert attention_consistency(attention, attention, reduction="none").shape == (2,)


def test_mixed_dtypes_follow_the_features():
    features, weight = maps(0, 2, 4, 3, 3).bfloat16(), maps(1, 7, 4)
    assert class_attention(features, weight).dtype == torch.float32
    assert class_attention(features.double(), weight.half()).dtype == torch.float64


def test_no_product_over_classes_and_channels_is_made():
    features = maps(0, 4, 64, 7, 7, dtype=torch.float32).requires_grad_()
    weight = maps(1, 7, 64, dtype=torch.float32)
    # Without acc_events older torch warns.
    cpu = [ProfilerActivity.CPU]
    with profile(activities=cpu, profile_memory=True, acc_events=True) as record:
        class_attention(features, weight).square().sum().backward()
    largest = max(event.cpu_memory_usage for event in record.events())
    assert largest <= features.nbytes + 1024  # the gradient; the product would be 7 times that


def bad_attention():
    features, weight = maps(0, 2, 3, 4, 4), maps(1, 7, 3)
    yield features[0], weight, r"features must have shape \(B, D, H, W\), got \(3, 4, 4\)"
    yield features, weight[:, :2], "weight has D=2 but features has D=3"
    yield features, weight[0], r"weight must have shape \(C, D\), got \(3\)"
    yield features[:0], weight, "features is empty along B"
    yield features.long(), weight, "features must have a floating-point dtype, got torch.int64"
    yield features, weight.to("meta"), "weight is on meta but features is on cpu"


@pytest.mark.parametrize(("features", "weight", "message"), list(bad_attention()))
def test_class_attention_refuses(features, weight, message):
    with pytest.raises(ValueError, match=message):
        class_attention(features, weight)


def test_consistency_refuses():
    one = maps(0, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="attention_flipped has W=4 but attention has W=5"):
        attention_consistency(one, one[..., :4])
    with pytest.raises(ValueError, match="attention_flipped has B=1 but attention has B=2"):
        attention_consistency(one, one[:1])
    with pytest.raises(ValueError, match="reduction must be 'mean', 'sum' or 'none', got 'avg'"):
        attention_consistency(one, one, reduction="avg")
    with pytest.raises(ValueError, match="attention must have a floating-point dtype"):
        attention_consistency(one.int(), one)
    with pytest.raises(TypeError, match="attention must be a torch.Tensor, got list"):
        attention_consistency([1.0], one)


@pytest.fixture
def not_yet_warned():
    attention_module._warn_of_few_places.cache_clear()


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 2)])
def test_maps_of_few_places_warn_once(not_yet_warned, size):
    attention = torch.rand(2, 7, *size)
    with pytest.warns(UserWarning, match="2x2 places or fewer.*output_stride"):
        attention_consistency(attention, attention.flip(-1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention_consistency(attention, attention.flip(-1))
        EACLoss()(torch.zeros(2, 7), torch.tensor([0, 6]), attention, attention)


def test_maps_of_few_places_compile_without_a_warning(not_yet_warned):
    torch._dynamo.reset()
    compiled = torch.compile(attention_consistency, backend="eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in (2, 3):
            attention = torch.rand(batch, 7, 2, 2)
            assert compiled(attention, attention.flip(-1)) == 0


@pytest.mark.parametrize("size", [(3, 3), (2, 3), (1, 3), (7, 7)])
def test_maps_of_more_places_do_not_warn(not_yet_warned, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention_consistency(torch.rand(2, 7, *size), torch.rand(2, 7, *size))
