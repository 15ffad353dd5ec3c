import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustfer.functional.neighbors import cosine_neighbors, neighbor_distribution
from tests.reference import label_distribution as reference


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(batch=st.integers(1, 9), most=st.integers(1, 10), seed=st.integers(0, 10**6))
def test_neighbors_are_those_of_sorting(batch, most, seed):
    """Samples that come twice among them."""
    embeddings = draw(batch, 3, seed=seed)
    index = torch.randint(6, (batch,), generator=torch.Generator().manual_seed(seed))
    neighbors, valid = cosine_neighbors(embeddings, index, num_neighbors=most)
    assert neighbors.shape == valid.shape == (batch, min(most, batch - 1))
    expected = reference.neighbors(embeddings, index.tolist(), most)
    found = [row[kept].tolist() for row, kept in zip(neighbors, valid, strict=True)]
    assert found == expected


def test_neighbors_of_some_rows():
    embeddings, index = draw(7, 3), torch.arange(7)
    rows = torch.tensor([5, 1])
    whole, _ = cosine_neighbors(embeddings, index, num_neighbors=3)
    part, _ = cosine_neighbors(embeddings, index, num_neighbors=3, rows=rows)
    assert torch.equal(part, whole[rows])


def test_the_same_sample_twice_is_no_neighbor_of_itself():
    embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    index = torch.tensor([4, 4, 9])
    neighbors, valid = cosine_neighbors(embeddings, index, num_neighbors=2)
    assert valid.tolist() == [[True, False], [True, False], [True, True]]
    assert neighbors[:2, 0].tolist() == [2, 2]
    official, _ = cosine_neighbors(embeddings, index, num_neighbors=1, variant="official")
    assert official[:2, 0].tolist() == [1, 0]


def test_an_embedding_of_zeros_is_no_neighbor():
    """A face without landmarks gives zeros, which are nearer than a face that looks away."""
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.1]])
    neighbors, valid = cosine_neighbors(embeddings, torch.arange(3), num_neighbors=2)
    assert valid.tolist() == [[True, False], [True, True], [True, False]]
    assert neighbors[[0, 2], 0].tolist() == [2, 0]


def test_official_takes_the_sample_itself_where_there_are_too_few():
    neighbors, valid = cosine_neighbors(
        draw(3, 2), torch.arange(3), num_neighbors=8, variant="official"
    )
    assert valid.all()
    assert neighbors.sort(dim=1).values.tolist() == [[0, 1, 2]] * 3


def test_neighbors_do_not_depend_on_autocast():
    embeddings = draw(40, 8).float()
    expected, _ = cosine_neighbors(embeddings, torch.arange(40), num_neighbors=5)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = cosine_neighbors(embeddings, torch.arange(40), num_neighbors=5)
    assert torch.equal(found, expected)


def test_distribution_is_the_weighted_mean():
    probabilities, scores = draw(5, 4).softmax(1), draw(2, 3).sigmoid()
    neighbors = torch.tensor([[4, 0, 2], [1, 3, 0]])
    valid = torch.tensor([[True, True, True], [True, False, True]])
    found = neighbor_distribution(probabilities, scores, neighbors, valid)
    for row in range(2):
        kept = [k for k in range(3) if valid[row, k]]
        mean = sum(scores[row, k] * probabilities[neighbors[row, k]] for k in kept)
        expected = mean / sum(scores[row, k] for k in kept)
        torch.testing.assert_close(found[row], expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))


def test_a_sample_without_neighbors_gets_the_mean_of_the_batch():
    probabilities = draw(3, 4).softmax(1)
    none = torch.zeros(3, 0, dtype=torch.int64)
    found = neighbor_distribution(probabilities, none.double(), none, none.bool())
    torch.testing.assert_close(found, probabilities.mean(0).expand(3, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_scores_may_have_another_dtype_than_probabilities(dtype):
    probabilities, scores = draw(4, 3).softmax(1), draw(4, 2, seed=1).sigmoid()
    neighbors, valid = torch.tensor([[1, 2], [0, 3], [3, 0], [1, 0]]), torch.ones(4, 2).bool()
    expected = neighbor_distribution(probabilities, scores, neighbors, valid)
    for other in (torch.float32, torch.float64, torch.bfloat16):
        found = neighbor_distribution(probabilities.to(dtype), scores.to(other), neighbors, valid)
        assert found.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0.01)


def test_gradients():
    probabilities = draw(4, 3).softmax(1).requires_grad_()
    scores = draw(4, 2, seed=1).sigmoid().requires_grad_()
    neighbors = torch.tensor([[1, 2], [0, 3], [3, 0], [1, 0]])
    valid = torch.tensor([[True, True], [True, False], [False, False], [True, True]])
    assert torch.autograd.gradcheck(
        lambda p, c: neighbor_distribution(p, c, neighbors, valid), (probabilities, scores)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": torch.ones(3)}, r"embeddings must have shape \(B, D\)"),
        ({"index": torch.arange(2)}, "index has B=2 but embeddings has B=3"),
        ({"embeddings": torch.ones(3, 2).int()}, "embeddings must have a floating-point dtype"),
        ({"index": torch.arange(3.0)}, "index must be int64, got torch.float32"),
        ({"rows": torch.zeros(2)}, "rows must be int64, got torch.float32"),
        ({"rows": torch.zeros(2, 1).long()}, r"rows must have shape \(R\), got \(2, 1\)"),
        ({"rows": torch.zeros(2, device="meta").long()}, "rows is on meta but embeddings is on"),
        ({"num_neighbors": 0}, "num_neighbors must be a whole number from 1 on, got 0"),
        ({"num_neighbors": 1.5}, "num_neighbors must be a whole number from 1 on, got 1.5"),
        ({"variant": "both"}, "variant must be 'paper' or 'official', got 'both'"),
    ],
)
def test_neighbors_refuses_what_does_not_fit(change, message):
    good = {"embeddings": torch.ones(3, 2), "index": torch.arange(3), "num_neighbors": 1}
    with pytest.raises(ValueError, match=message):
        cosine_neighbors(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": torch.ones(3)}, r"probabilities must have shape \(B, C\), got \(3\)"),
        ({"probabilities": torch.ones(3, 2).int()}, "probabilities must have a floating-point"),
        ({"scores": torch.ones(1, 2)}, "neighbors has R=2 but scores has R=1"),
        ({"scores": torch.ones(2, 2).int()}, "scores must have a floating-point dtype"),
        ({"neighbors": torch.zeros(2, 1).long()}, "neighbors has K=1 but scores has K=2"),
        ({"neighbors": torch.zeros(2, 2)}, "neighbors must be int64, got torch.float32"),
        ({"valid": torch.ones(1, 2).bool()}, "valid has R=1 but scores has R=2"),
        ({"valid": torch.ones(2, 2)}, "valid must be bool, got torch.float32"),
        ({"valid": torch.ones(2, 2, device="meta").bool()}, "valid is on meta but probabilities"),
    ],
)
def test_distribution_refuses_what_does_not_fit(change, message):
    good = {
        "probabilities": torch.ones(3, 2),
        "scores": torch.ones(2, 2),
        "neighbors": torch.zeros(2, 2, dtype=torch.int64),
        "valid": torch.ones(2, 2, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=message):
        neighbor_distribution(**{**good, **change})
