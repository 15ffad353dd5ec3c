import pytest
import torch

from robustfer.models.label_distribution import LabelDistributionEstimator, PairScorer
from robustfer.testing._host_synchronisation import refused_host_synchronisation
from tests.reference import label_distribution as reference


def make(expression_dim=8, landmark_dim=6, dtype=torch.float64, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LabelDistributionEstimator(expression_dim, landmark_dim, **options).to(dtype)


def inputs(batch=7, classes=5, dtype=torch.float64, index=None):
    generator = torch.Generator().manual_seed(1)
    embeddings, landmark_embeddings, logits = (
        torch.randn(batch, size, generator=generator, dtype=torch.float64).to(dtype)
        for size in (8, 6, classes)
    )
    index = torch.arange(batch) if index is None else index
    return {
        "embeddings": embeddings.requires_grad_(),
        "landmark_embeddings": landmark_embeddings.requires_grad_(),
        "logits": logits.requires_grad_(),
        "index": index,
    }


def leaves(estimator, given):
    return [t for t in given.values() if t.requires_grad] + list(estimator.parameters())


@pytest.mark.parametrize(
    ("batch", "most", "index"),
    [(7, 3, None), (7, 20, None), (2, 1, None), (1, 8, None), (6, 4, [3, 3, 1, 0, 1, 3])],
)
def test_is_the_equation(batch, most, index):
    estimator = make(num_neighbors=most)
    given = inputs(batch, index=None if index is None else torch.tensor(index))
    ours, expected = estimator(**given), reference.estimate(estimator, **given)
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(ours.sum(1), torch.ones(batch, dtype=torch.float64))
    wanted = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)).double()
    one, other = (
        torch.autograd.grad((value * wanted).sum(), leaves(estimator, given), allow_unused=True)
        for value in (ours, expected)
    )
    for own, slow in zip(one, other, strict=True):
        slow = torch.zeros_like(own) if slow is None else slow
        torch.testing.assert_close(own, slow, rtol=1e-10, atol=1e-14)


def test_gradients():
    estimator, given = make(num_neighbors=2), inputs(4, 3)
    rows = [given[name] for name in ("embeddings", "landmark_embeddings", "logits")]
    assert torch.autograd.gradcheck(lambda *rows: estimator(*rows, given["index"]), rows)


def test_only_chosen_pairs_are_scored(monkeypatch):
    estimator, given, seen = make(num_neighbors=3), inputs(7), []
    hidden = estimator.expression_scorer.hidden
    relu = torch.nn.functional.relu

    def watched(values):
        seen.append(tuple(values.shape[:-1]))
        return relu(values)

    monkeypatch.setattr(torch.nn.functional, "relu", watched)
    estimator(**given)
    assert set(seen) == {(7, 3)}
    assert hidden.weight.shape == (2, 4)


def test_order_of_the_pair_counts():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        scorer = PairScorer(8).double()
    features = inputs()["embeddings"]
    forth = scorer(features, torch.tensor([[1]]), torch.tensor([0]))
    back = scorer(features, torch.tensor([[0]]), torch.tensor([1]))
    assert (forth - back).abs().item() > 1e-4


def test_neighbors_probabilities_may_be_constants():
    given = inputs()
    make(detach_neighbor_probabilities=True)(**given).square().sum().backward()
    assert given["logits"].grad is None
    assert given["embeddings"].grad.abs().sum() > 0
    given = inputs()
    estimate = make()(**given)
    estimate.square().sum().backward()
    assert given["logits"].grad.abs().sum() > 0
    torch.testing.assert_close(estimate, make(detach_neighbor_probabilities=True)(**given))


def test_order_of_the_batch_does_not_matter():
    estimator, given = make(num_neighbors=3), inputs()
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3])
    shuffled = {name: tensor[order] for name, tensor in given.items()}
    torch.testing.assert_close(estimator(**shuffled), estimator(**given)[order])


def test_official_knows_no_samples():
    given = inputs(6)
    same = inputs(6, index=torch.zeros(6, dtype=torch.int64))
    official = make(num_neighbors=6, variant="official")
    torch.testing.assert_close(official(**given), official(**same))
    everyone = given["logits"].softmax(1).mean(0).expand(6, 5)
    torch.testing.assert_close(make()(**same), everyone)  # no other sample is there


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    estimator = make(dtype=torch.float32, num_neighbors=3)
    given = {n: t.detach().to(dtype) if n != "index" else t for n, t in inputs().items()}
    found = estimator(**given)
    assert found.dtype == torch.float32
    single = {n: t.float() if n != "index" else t for n, t in given.items()}
    torch.testing.assert_close(found, estimator(**single))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(estimator(**single), found)


def test_compiles_whole_and_no_host_waits():
    estimator, given = make(num_neighbors=3), inputs()
    expected = estimator(**given)
    compiled = torch.compile(estimator, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**given), expected)
    with refused_host_synchronisation():
        estimator(**given).square().sum().backward()


def test_repr():
    assert "num_neighbors=3, detach_neighbor_probabilities=False, gather=True, variant='paper'" in (
        repr(make(num_neighbors=3))
    )


def bad_inputs():
    good = {n: t.detach() for n, t in inputs().items()}
    yield (
        {"landmark_embeddings": good["landmark_embeddings"][:2]},
        "landmark_embeddings has B=2 but embeddings has B=7",
    )
    yield {"logits": good["logits"][0]}, r"logits must have shape \(B, C\)"
    yield {"index": good["index"].int()}, "index must be int64, got torch.int32"
    yield {"index": good["index"][:3]}, "index has B=3 but embeddings has B=7"
    yield {"logits": good["logits"].int()}, "logits must have a floating-point dtype"
    yield {"embeddings": good["embeddings"][:, :4]}, r"features must have shape \(B, 8\)"


@pytest.mark.parametrize(("change", "message"), list(bad_inputs()))
def test_refuses_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        make()(**{**inputs(), **change})


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((7, 8), {}, "dim must be even, got 7"),
        ((8, 2), {}, "dim must be a whole number from 4 on, got 2"),
        ((8.0, 8), {}, "dim must be a whole number from 4 on, got 8.0"),
        ((8, "8"), {}, "dim must be a whole number from 4 on, got '8'"),
        ((8, 8), {"num_neighbors": 0}, "num_neighbors must be a whole number from 1 on"),
        ((8, 8), {"variant": "x"}, "variant must be 'paper' or 'official'"),
    ],
)
def test_refuses_options(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        LabelDistributionEstimator(*arguments, **options)


@pytest.mark.parametrize(
    ("neighbors", "rows", "message"),
    [
        (torch.zeros(1, 2).long(), None, "neighbors has B=1 but features has B=4"),
        (torch.zeros(4).long(), None, r"neighbors must have shape \(B, K\), got \(4\)"),
        (torch.zeros(4, 2), None, "neighbors must be int64, got torch.float32"),
        (torch.zeros(4, 2).long(), torch.arange(3), "rows has R=3 but neighbors has R=4"),
        (torch.zeros(2, 2).long(), torch.zeros(2), "rows must be int64, got torch.float32"),
    ],
)
def test_a_scorer_refuses_neighbors_that_are_not_of_its_rows(neighbors, rows, message):
    with pytest.raises(ValueError, match=message):
        PairScorer(8)(torch.ones(4, 8), neighbors, rows)
