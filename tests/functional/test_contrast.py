import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.functional import UNFILLED, expression_landmark_contrast, pseudo_labels
from robustfer.functional import _contrast_kernel as kernel
from robustfer.losses import check_values
from tests.reference import landmark_contrast as reference

QUERIES = ("expression_query", "landmark_query")
KEYS = ("expression_key", "landmark_key")
QUEUES = ("expression_queue", "landmark_queue")


def inputs(batch=5, capacity=11, dim=4, *, classes=3, unfilled=0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def unit(rows):
        drawn = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
        return F.normalize(drawn, dim=1).to(dtype)

    made = {name: unit(batch).requires_grad_() for name in (*QUERIES, *KEYS)}
    made["pseudo_label"] = torch.randint(classes, (batch,), generator=generator)
    made |= {name: unit(capacity) for name in QUEUES}
    made["queue_label"] = torch.randint(classes, (capacity,), generator=generator)
    made["queue_label"][capacity - unfilled :] = UNFILLED
    return made


def gradients(value, made):
    return torch.autograd.grad(value, [made[name] for name in (*QUERIES, *KEYS)])


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize(
    ("batch", "capacity", "unfilled"), [(1, 1, 0), (5, 11, 0), (5, 11, 4), (4, 3, 3), (6, 2, 1)]
)
def test_is_the_equation(batch, capacity, unfilled, variant):
    made = inputs(batch, capacity, unfilled=unfilled)
    ours = expression_landmark_contrast(**made, temperature=0.3, variant=variant)
    expected = reference.contrast(**made, temperature=0.3, official=variant == "official")
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)
    for own, slow in zip(gradients(ours, made), gradients(expected, made), strict=True):
        torch.testing.assert_close(own, slow, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("budget", [1, 900, 5000])
def test_chunks_change_nothing(monkeypatch, budget):
    """From one row and one column at a time to almost all at once."""
    made = inputs(9, 40, unfilled=3)
    whole = expression_landmark_contrast(**made)
    expected = gradients(whole, made)

    def block(like):
        rows = max(1, min(len(like), budget // (32 * len(like))))
        return rows, max(1, budget // (rows * 17))

    monkeypatch.setattr(kernel, "_block", block)
    found = expression_landmark_contrast(**made)
    torch.testing.assert_close(found, whole, rtol=1e-13, atol=0)
    for own, other in zip(gradients(found, made), expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("batch", [1, 128, 3000, 10**6])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_blocks_keep_to_the_budget(batch, device):
    like = torch.empty(batch, 1, device=device)
    rows, columns = kernel._block(like)
    assert 1 <= rows <= batch
    assert columns >= 1
    budget = 2 * 2**20 if device == "cpu" else 256 * 2**20
    assert rows == 1 or rows * batch * 16 <= budget
    assert rows * columns * 9 <= budget


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_a_queue_of_the_own_label_alone_gives_zero(variant):
    made = inputs(4, 6, classes=1)
    loss = expression_landmark_contrast(**made, variant=variant)
    assert loss == 0
    for gradient in gradients(loss, made):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_an_empty_queue_gives_zero_and_official_negatives():
    made = inputs(4, 6, unfilled=6)
    assert expression_landmark_contrast(**made) == 0
    assert expression_landmark_contrast(**made, variant="official") > 1


def test_the_queue_receives_no_gradient():
    made = inputs()
    for name in QUEUES:
        made[name].requires_grad_()
    expression_landmark_contrast(**made).backward()
    assert made["expression_queue"].grad is None
    assert made["landmark_queue"].grad is None
    assert made["expression_query"].grad.abs().sum() > 0


def test_a_second_derivative_is_refused():
    """As in a gradient penalty: the gradient by the weights of a network before the loss."""
    made = inputs()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    made["expression_query"] = made["expression_query"] * scale
    loss = expression_landmark_contrast(**made)
    (first,) = torch.autograd.grad(loss, scale, create_graph=True)
    with pytest.raises(RuntimeError, match="contrast of expressions .* no second derivative"):
        torch.autograd.grad(first, scale)


def test_without_gradient_none_is_made(monkeypatch):
    made = inputs()
    expected = expression_landmark_contrast(**made).detach()
    seen = []
    absorb = kernel._absorb

    def watched(*arguments):
        seen.append(arguments[-1])
        return absorb(*arguments)

    monkeypatch.setattr(kernel, "_absorb", watched)
    with torch.no_grad():
        torch.testing.assert_close(expression_landmark_contrast(**made), expected)
    constants = {name: tensor.detach() for name, tensor in made.items()}
    assert not expression_landmark_contrast(**constants).requires_grad
    assert seen
    assert not any(seen)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 7), capacity=st.integers(1, 9))
def test_order_of_batch_and_queue_do_not_matter(seed, batch, capacity):
    made = inputs(batch, capacity, unfilled=capacity // 3, seed=seed)
    expected = expression_landmark_contrast(**made)
    generator = torch.Generator().manual_seed(seed)
    rows, slots = (torch.randperm(size, generator=generator) for size in (batch, capacity))
    shuffled = {n: t[slots] if "queue" in n else t[rows] for n, t in made.items()}
    torch.testing.assert_close(expression_landmark_contrast(**shuffled), expected)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_turn_of_the_space_changes_nothing(seed):
    made = inputs(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    turned = {n: t @ turn if t.is_floating_point() else t for n, t in made.items()}
    torch.testing.assert_close(
        expression_landmark_contrast(**turned), expression_landmark_contrast(**made)
    )


def test_low_temperature_in_single_precision():
    """Masked entries of cosine 1 do not push the others below the least float."""
    made = inputs(6, 30, dtype=torch.float32)
    double = {n: t.double() if t.is_floating_point() else t for n, t in made.items()}
    found = expression_landmark_contrast(**made, temperature=0.002)
    expected = expression_landmark_contrast(**double, temperature=0.002)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert all(gradient.isfinite().all() for gradient in gradients(found, made))


def test_precisions_may_differ():
    made = inputs(dtype=torch.float32)
    mixed = {n: t.double() if n == "expression_query" else t for n, t in made.items()}
    loss = expression_landmark_contrast(**mixed)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss.float(), expression_landmark_contrast(**made))
    half = {n: t.half() if "queue" in n and t.is_floating_point() else t for n, t in made.items()}
    torch.testing.assert_close(
        expression_landmark_contrast(**half),
        expression_landmark_contrast(**made),
        rtol=1e-2,
        atol=1e-2,
    )


def test_compiles_whole_whatever_the_length_of_the_queue():
    made = inputs(64, 5000, dtype=torch.float32)  # more than one chunk
    compiled = torch.compile(expression_landmark_contrast, fullgraph=True, backend="aot_eager")
    found, expected = compiled(**made), expression_landmark_contrast(**made)
    torch.testing.assert_close(found, expected)
    for own, other in zip(gradients(found, made), gradients(expected, made), strict=True):
        torch.testing.assert_close(own, other)


def test_pseudo_labels():
    soft = torch.tensor([[0.7, 0.3], [0.69, 0.31], [0.1, 0.9], [0.5, 0.5]], dtype=torch.float64)
    index = torch.tensor([4, 0, 0, 2**40])
    labels = pseudo_labels(soft, index, threshold=0.7)
    assert labels.tolist() == [0, -1, 1, -1 - 2**40]
    assert labels.dtype == torch.int64


def test_ambiguous_ids_beyond_single_precision_are_told_apart():
    soft = torch.full((2, 4), 0.25)
    one, other = pseudo_labels(soft, torch.tensor([2**24, 2**24 + 1])).tolist()
    assert one != other


def bad_inputs():
    good = {n: t.detach() for n, t in inputs().items()}
    rows, queue = good["expression_query"], good["expression_queue"]
    yield {"landmark_query": rows[:3]}, "landmark_query has B=3 but expression_query has B=5"
    yield {"landmark_key": rows[:, :2]}, "landmark_key has d=2 but expression_query has d=4"
    yield {"landmark_queue": queue[:2]}, "landmark_queue has M=2 but expression_queue has M=11"
    yield {"queue_label": torch.zeros(3).long()}, "queue_label has M=3 but expression_queue"
    yield {"pseudo_label": torch.zeros(5)}, "pseudo_label must be int64, got torch.float32"
    yield {"queue_label": torch.zeros(11).int()}, "queue_label must be int64, got torch.int32"
    yield {"expression_query": rows.long()}, "expression_query must have a floating-point dtype"
    yield {"landmark_queue": queue.long()}, "landmark_queue must have a floating-point dtype"
    yield (
        {"expression_key": rows.to("meta")},
        "expression_key is on meta but expr",
    )
    yield {"temperature": 0.0}, r"temperature must lie in \(0, inf\), got 0.0"
    yield {"variant": "other"}, "variant must be 'paper' or 'official', got 'other'"


@pytest.mark.parametrize(("change", "message"), list(bad_inputs()))
def test_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        expression_landmark_contrast(**{**inputs(), **change})


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.ones(2), torch.tensor([1, 2])), {}, r"soft_target must have shape \(B, C\)"),
        ((torch.ones(2, 3), torch.tensor([1])), {}, "index has B=1 but soft_target has B=2"),
        ((torch.ones(1, 3), torch.ones(1)), {}, "index must be int64, got torch.float32"),
        ((torch.ones(1, 3).int(), torch.tensor([1])), {}, "soft_target must have a floating"),
        ((torch.ones(1, 3), torch.tensor([1])), {"threshold": 1.5}, "threshold must lie in"),
    ],
)
def test_pseudo_labels_refuses(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        pseudo_labels(*arguments, **options)


def test_pseudo_labels_look_at_values_when_asked_for():
    with check_values(), pytest.raises(ValueError, match="rows of soft_target must be prob"):
        pseudo_labels(torch.ones(1, 3), torch.tensor([0]))
