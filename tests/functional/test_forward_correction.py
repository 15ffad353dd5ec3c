import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.functional import forward_correction
from robustfer.losses import ForwardCorrectionLoss, check_values
from tests.reference import forward_correction as reference

# Rows with zeros, one that is even, one that is the identity's.
TRANSITION = torch.tensor(
    [
        [0.7, 0.1, 0.1, 0.1, 0.0],
        [0.0, 1.0, 0.0, 0.0, 0.0],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.0, 0.0, 0.5, 0.5, 0.0],
        [0.25, 0.0, 0.0, 0.0, 0.75],
    ],
    dtype=torch.float64,
)
CLASSES = len(TRANSITION)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_transition(seed, classes):
    return (2 * draw(seed, classes, classes)).softmax(dim=1)


def expected(logits, distributions, transition=TRANSITION, verified=None, q=0.0):
    known = [False] * len(logits) if verified is None else verified.tolist()
    found = reference.forward_correction(
        logits.tolist(), distributions.tolist(), transition.tolist(), known, q
    )
    return (torch.tensor(part, dtype=torch.float64) for part in found)


@pytest.mark.parametrize("q", [0.0, 1e-6, 0.5, 1.0])
@pytest.mark.parametrize("some_verified", [False, True])
@pytest.mark.parametrize("kind", ["classes", "probabilities"])
def test_is_the_loop(kind, some_verified, q):
    logits, target = 3 * draw(0, 10, CLASSES), torch.arange(10) % CLASSES
    verified = torch.arange(10) % 3 == 0 if some_verified else None
    distributions = F.one_hot(target, CLASSES).double()
    if kind == "probabilities":
        target = distributions = draw(1, 10, CLASSES).softmax(dim=1)
    values, gradients = expected(logits, distributions, verified=verified, q=q)
    logits.requires_grad_()
    for reduction, value, share in (
        ("none", values, 1.0),
        ("sum", values.sum(), 1.0),
        ("mean", values.mean(), 1 / 10),
    ):
        loss = forward_correction(
            logits, target, TRANSITION, verified=verified, q=q, reduction=reduction
        )
        torch.testing.assert_close(loss, value, rtol=1e-9, atol=1e-9)
        (found,) = torch.autograd.grad(loss.sum(), logits)
        torch.testing.assert_close(found, share * gradients, rtol=1e-9, atol=1e-9)


GAP = 1e4


@pytest.mark.parametrize("q", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_whatever_the_gap(dtype, q):
    """Where a product of probabilities rounds to 0 and its logarithm would be infinite."""
    row = torch.tensor([GAP, 0.0, -GAP, 3.0, 0.0], dtype=dtype)
    logits, target = row.expand(CLASSES, -1).clone().requires_grad_(), torch.arange(CLASSES)
    distributions = F.one_hot(target, CLASSES)
    values, gradients = expected(logits.detach().double(), distributions, q=q)
    for labels in (target, distributions.to(dtype)):
        loss = forward_correction(logits, labels, TRANSITION.to(dtype), q=q, reduction="none")
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(loss.double(), values, rtol=1e-2, atol=1e-2)
        (found,) = torch.autograd.grad(loss.sum(), logits)
        torch.testing.assert_close(found.double(), gradients, rtol=2e-2, atol=1e-2)


@given(
    classes=st.integers(2, 20),
    scale=st.floats(0.0, 30.0),
    seed=st.integers(0, 9999),
    q=st.floats(0.0, 1.0),
)
@settings(deadline=None, max_examples=25)
def test_invariances(classes, scale, seed, q):
    logits, transition = scale * draw(seed, 3, classes), random_transition(seed, classes)
    target = torch.arange(3) % classes

    def loss(logits, target, transition, q=q, **options):
        return forward_correction(logits, target, transition, q=q, reduction="none", **options)

    value = loss(logits, target, transition)
    assert (value >= -1e-9).all()
    # Blind to the level of the logits and to the order of the classes.
    torch.testing.assert_close(loss(logits + 5, target, transition), value)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    moved = loss(logits[:, order], order.argsort()[target], transition[order][:, order])
    torch.testing.assert_close(moved, value)
    # A class is the distribution that is sure of it.
    torch.testing.assert_close(loss(logits, F.one_hot(target, classes).double(), transition), value)
    # Verified labels, and the identity, are cross entropy (or its robust form).
    identity = loss(logits, target, torch.eye(classes, dtype=torch.float64))
    everyone = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(loss(logits, target, transition, verified=everyone), identity)
    plain = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(loss(logits, target, torch.eye(classes).double(), q=0.0), plain)
    # What is right in the mean has no slope: the true classes are learnt from the given labels.
    row = logits[:1].clone().requires_grad_()
    given_labels = (row.detach().softmax(dim=1) @ transition).expand(1, -1)
    (slope,) = torch.autograd.grad(loss(row, given_labels, transition, q=0.0).sum(), row)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)


def test_a_label_that_only_an_unlikely_class_is_given():
    transition = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    loss = forward_correction(torch.tensor([[1e4, 0.0]]), torch.tensor([1]), transition)
    torch.testing.assert_close(loss, torch.tensor(1e4 + 0.6931472))


def test_a_verified_label_that_no_class_is_given_has_a_finite_gradient():
    transition = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    logits = torch.zeros(2, 2, requires_grad=True)
    verified = torch.tensor([True, False])
    for target in (torch.tensor([1, 0]), torch.tensor([[0.5, 0.5], [1.0, 0.0]])):
        loss = forward_correction(logits, target, transition, verified=verified, reduction="none")
        loss.sum().backward()
        assert logits.grad.isfinite().all()
        assert loss.isfinite().all()


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["classes", "probabilities"])
def test_a_label_that_no_class_is_given(kind, q):
    """Class 2 is never given. Its loss is that of s = 0, and all other losses are not touched."""
    transition = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0]]).double()
    rows = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.25, 0.0, 0.75]])
    target = rows.argmax(dim=1) if kind == "classes" else rows.double()
    weights = F.one_hot(target, 3) if kind == "classes" else target
    for verified in (None, torch.tensor([True, False, False, False]), torch.ones(4).bool()):
        logits = draw(3, 4, 3).requires_grad_()
        loss = forward_correction(
            logits, target, transition, verified=verified, q=q, reduction="none"
        )
        s = logits.softmax(dim=1) @ transition
        if verified is not None:
            s = logits.softmax(dim=1).where(verified[:, None], s)
        each = -s.log() if q == 0 else (1 - s**q) / q
        worst = float("inf") if q == 0 else 1 / q
        each = torch.where(s > 0, each, torch.where(weights > 0, worst, 0.0))
        torch.testing.assert_close(loss, (weights * each).sum(dim=1))
        loss.nan_to_num(posinf=0.0).sum().backward()
        assert logits.grad.isfinite().all()
        copy = logits.detach().requires_grad_()
        single = forward_correction(
            copy[:2], target[:2], transition, q=q, reduction="sum",
            verified=None if verified is None else verified[:2],
        )  # fmt: skip
        (slope,) = torch.autograd.grad(single, copy)
        torch.testing.assert_close(logits.grad[:2], slope[:2])


def test_the_transition_is_a_constant():
    transition = TRANSITION.clone().requires_grad_()
    logits = draw(0, 2, CLASSES).requires_grad_()
    forward_correction(logits, torch.tensor([0, 1]), transition).backward()
    assert transition.grad is None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("label", [-100, -1, 5])
def test_no_label_is_left_out(label):
    logits, target = draw(0, 2, CLASSES), torch.tensor([0, label])
    with pytest.raises(IndexError, match=f"got {label} at position 1. If your labels count"):
        forward_correction(logits, target, TRANSITION)
    with check_values(), pytest.raises(ValueError, match=f"0 to 4, got {label} at position 1"):
        forward_correction(logits, target, TRANSITION)


def bad_arguments():
    logits, target = torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)
    matrix, mask = torch.eye(5), torch.ones(4, dtype=torch.bool)
    yield logits[:3], target, matrix, {}, "target has B=4 but logits has B=3"
    yield logits, target, matrix[:3, :3], {}, "transition has C=3 but logits has C=5"
    yield logits, target, matrix.long(), {}, "transition must have a floating-point dtype"
    yield logits.long(), target, matrix, {}, "logits must have a floating-point dtype"
    yield logits, target.int(), matrix, {}, "target must be int64 class indices"
    yield logits, target, matrix, {"verified": mask[:3]}, "verified has B=3 but logits has B=4"
    yield (
        logits,
        target,
        matrix,
        {"verified": mask.long()},
        "verified must be bool, got torch.int64",
    )
    yield logits, target, matrix, {"q": 1.5}, r"q must lie in \[0, 1\], got 1.5"
    yield logits, target, matrix, {"reduction": "avg"}, "reduction must be 'mean', 'sum' or 'none'"


@pytest.mark.parametrize(
    ("logits", "target", "matrix", "options", "message"), list(bad_arguments())
)
def test_refuses(logits, target, matrix, options, message):
    with pytest.raises(ValueError, match=message):
        forward_correction(logits, target, matrix, **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5])
def test_a_transition_is_looked_at_where_asked_for(value):
    transition = torch.eye(5)
    transition[2, 3] = value
    with check_values(), pytest.raises(ValueError, match="transition must"):
        forward_correction(torch.zeros(1, 5), torch.tensor([0]), transition)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_module_is_the_function(reduction):
    logits, target, verified = draw(0, 4, CLASSES), torch.arange(4), torch.arange(4) > 2
    loss = ForwardCorrectionLoss(transition=TRANSITION, q=0.5, reduction=reduction)
    value = forward_correction(
        logits, target, TRANSITION, verified=verified, q=0.5, reduction=reduction
    )
    assert torch.equal(loss(logits, target, verified), value)
    assert torch.equal(loss(logits=logits, target=target, verified=verified), value)
    assert repr(loss) == f"ForwardCorrectionLoss(num_classes=5, q=0.5, reduction={reduction!r})"


def test_the_transition_is_a_copy_that_moves_with_the_module():
    transition = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    criterion = ForwardCorrectionLoss(transition=transition)
    transition.zero_()
    assert criterion.transition.tolist() == [[0.9, 0.1], [0.2, 0.8]]
    assert criterion.to(torch.float32).transition.dtype == torch.float32
    assert criterion.state_dict() == {}


@pytest.mark.parametrize(
    ("transition", "error", "message"),
    [
        (torch.eye(3)[:2], ValueError, r"transition has C=3 but transition has C=2"),
        (torch.ones(3), ValueError, r"transition must have shape \(C, C\), got \(3\)"),
        (torch.eye(3).long(), ValueError, "transition must have a floating-point dtype"),
        (torch.full((2, 2), 0.4), ValueError, "rows of transition must be .* row 0 sums to 0.8"),
        (torch.tensor([[1.0, 0.0], [-0.5, 1.5]]), ValueError, "row 1 .* least value is -0.5"),
        (torch.tensor([[1.0, 0.0], [float("nan"), 1.0]]), ValueError, "row 1 sums to nan"),
        (torch.tensor([[1.0, 0.0], [1.0, 0.0]]), ValueError, "got zeros in column 1"),
        ([[1.0, 0.0]], TypeError, r"transition must be a torch\.Tensor, got list"),
    ],
)
def test_a_transition_that_is_refused(transition, error, message):
    with pytest.raises(error, match=message):
        ForwardCorrectionLoss(transition=transition)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"q": -0.1}, r"q must lie in \[0, 1\]"), ({"reduction": "avg"}, "reduction must be")],
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        ForwardCorrectionLoss(transition=TRANSITION, **options)
