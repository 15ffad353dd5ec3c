import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.functional import adjust_logits
from robustfer.losses import check_values
from robustfer.metrics import adjust_to_shares


def drawn(batch=4, classes=5, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, generator=generator, dtype=torch.float64)
    shares = torch.rand(classes, generator=generator, dtype=torch.float64).mul(4).softmax(0)
    return logits.to(dtype), shares.to(dtype)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(2, 200), st.floats(0, 3), st.integers(0, 99))
def test_it_is_the_equation_and_undone_by_its_sibling(batch, classes, strength, seed):
    logits, shares = drawn(batch, classes, seed=seed)
    adjusted = adjust_logits(logits, shares, strength=strength)
    for row in range(batch):
        for k in range(0, classes, 7):
            expected = float(logits[row, k]) + strength * math.log(float(shares[k]))
            assert float(adjusted[row, k]) == pytest.approx(expected, abs=1e-12)
    even = torch.full((classes,), 1 / classes, dtype=torch.float64)
    back = adjust_to_shares(
        adjusted.softmax(1), given_shares=shares, true_shares=even, strength=strength
    )
    torch.testing.assert_close(back, logits.softmax(1))


def test_a_step_towards_a_rare_class_is_larger():
    # The gradient of cross entropy is p - y; p of the adjusted logits holds the share.
    logits = torch.zeros(1, 2, requires_grad=True)
    shares = torch.tensor([0.9, 0.1])
    for target in (0, 1):
        (gradient,) = torch.autograd.grad(
            torch.nn.functional.cross_entropy(
                adjust_logits(logits, shares), torch.tensor([target])
            ),
            logits,
        )
        assert float(gradient[0, target]) == pytest.approx(float(shares[target]) - 1)


def test_gradients():
    logits, shares = drawn()
    assert torch.autograd.gradcheck(adjust_logits, (logits.requires_grad_(), shares))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_logits_are_adjusted_in_float32(dtype):
    logits, shares = drawn(dtype=dtype)
    adjusted = adjust_logits(logits, shares.float())
    assert adjusted.dtype == torch.float32
    torch.testing.assert_close(adjusted, adjust_logits(logits.float(), shares.float()))


def test_a_class_without_a_label_stays_finite():
    logits = torch.zeros(1, 3, requires_grad=True)
    adjusted = adjust_logits(logits, torch.tensor([0.5, 0.5, 0.0]))
    torch.nn.functional.cross_entropy(adjusted, torch.tensor([2])).backward()
    assert bool(logits.grad.isfinite().all())
    assert adjusted.softmax(1)[0].tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_compiles_whole():
    torch.compiler.reset()
    compiled = torch.compile(adjust_logits, fullgraph=True, backend="aot_eager")
    logits, shares = drawn(dtype=torch.float32)
    torch.testing.assert_close(compiled(logits, shares), adjust_logits(logits, shares))


def test_what_does_not_fit_is_refused():
    logits, shares = drawn()
    with pytest.raises(ValueError, match="shares has C=4 but logits has C=5"):
        adjust_logits(logits, shares[:4])
    with pytest.raises(ValueError, match="shares must have a floating-point dtype"):
        adjust_logits(logits, torch.ones(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"strength must lie in \[0, inf\), got -1"):
        adjust_logits(logits, shares, strength=-1)
    adjust_logits(logits, 2 * shares)
    with check_values(), pytest.raises(ValueError, match="shares must be probabilities"):
        adjust_logits(logits, 2 * shares)
