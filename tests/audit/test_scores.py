import math

import pytest
import torch

from robustfer.audit import audit, scores
from robustfer.audit.scores import checked, label_posterior, log_margin, neighbor_disagreement
from tests.reference import audit as reference


def draw(samples, classes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = (3 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)).softmax(1)
    given = torch.randint(classes, (samples,), generator=generator)
    matrix = torch.randn(classes, classes, generator=generator, dtype=torch.float64).softmax(1)
    return given, rows.to(dtype), matrix.to(dtype)


@pytest.fixture(params=[None, 1])
def chunks(request, monkeypatch):
    """All rows at once, and each by itself."""
    if request.param is not None:
        monkeypatch.setattr(scores, "_BYTES", request.param)


@pytest.mark.parametrize("classes", [2, 7, 1000])
@pytest.mark.usefixtures("chunks")
def test_scores_of_probabilities_are_the_loop(classes):
    given, rows, matrix = draw(20, classes)
    margin, found = log_margin(given, rows), label_posterior(given, rows, matrix)
    total, transition = torch.zeros(classes, dtype=torch.float64), matrix.tolist()
    for i, (label, row) in enumerate(zip(given.tolist(), rows.tolist(), strict=True)):
        assert margin[i].item() == pytest.approx(reference.log_margin(row, label))
        wrong, suggestion, classes_of_row = reference.posterior(row, label, transition)
        assert found.wrong_probability[i].item() == pytest.approx(wrong)
        assert found.log_odds[i].item() == pytest.approx(math.log(wrong / (1 - wrong)), abs=1e-6)
        assert int(found.suggestion[i]) == suggestion
        total += torch.tensor(classes_of_row, dtype=torch.float64)
    torch.testing.assert_close(found.class_counts, total)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes_and_arrays(dtype):
    given, rows, matrix = draw(50, 7, dtype=dtype)
    expected = label_posterior(given, rows.double(), matrix.double())
    found = audit(given, rows, transition=matrix)
    assert found.wrong_probability.dtype == torch.float32
    torch.testing.assert_close(
        found.wrong_probability.double(), expected.wrong_probability, rtol=1e-3, atol=1e-4
    )
    if dtype != torch.bfloat16:
        arrays = audit(given.int().numpy(), rows.numpy(), transition=matrix.tolist())
        torch.testing.assert_close(arrays.score, found.score, rtol=1e-3, atol=1e-3)


def test_zeros_leave_numbers():
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    given, matrix = torch.tensor([0, 0, 0]), torch.eye(3)
    assert log_margin(given, rows).isfinite().all()
    found = label_posterior(given, rows, matrix)
    assert found.log_odds.isfinite().all()
    assert found.wrong_probability.isfinite().all()
    assert found.log_odds[0] < found.log_odds[1]
    assert found.class_counts.sum().item() == pytest.approx(3)


def test_what_rounds_to_one_is_still_told_apart():
    rows = torch.tensor([[1e-20, 1.0], [1e-30, 1.0], [1.0, 1e-20], [1.0, 1e-30]])
    given, matrix = torch.zeros(4, dtype=torch.int64), torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    found = label_posterior(given, rows, matrix)
    assert (
        found.wrong_probability.tolist() == [1.0, 1.0, 0.0, 0.0]
        or (found.wrong_probability[2:] < 1e-18).all()
    )
    assert found.log_odds.argsort(descending=True).tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.usefixtures("chunks")
def test_neighbours_are_the_loop(count):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(12, 4, generator=generator)
    vectors[3] *= 1e30
    given = torch.randint(3, (12,), generator=generator)
    found = neighbor_disagreement(given, vectors, num_neighbors=count)
    expected = [
        reference.disagreement(vectors.double().tolist(), given.tolist(), row, count)
        for row in range(12)
    ]
    torch.testing.assert_close(
        found.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-6
    )
    moved = neighbor_disagreement(given.numpy(), vectors.numpy(), num_neighbors=count)
    torch.testing.assert_close(moved, found)


def test_a_sample_unlike_all_others_counts_its_neighbours_alike():
    vectors = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.1]]
    found = neighbor_disagreement([0, 0, 1], vectors, num_neighbors=2)
    assert found.isfinite().all()
    assert found[0].item() == 0.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: checked([0], [[0.5, 0.5], [1.0, 0.0]]), ValueError, "given has N=1 but"),
        (lambda: checked([2], [[0.5, 0.5]]), ValueError, "class indices from 0 to 1, got 2"),
        (lambda: checked([0.0], [[0.5, 0.5]]), ValueError, "given must hold whole numbers"),
        (
            lambda: checked([0], [[2.5, -1.5]]),
            ValueError,
            "row 0 sums to 1 and its least value is -1.5",
        ),
        (lambda: checked(["a"], [[0.5, 0.5]]), TypeError, "given must be a torch.Tensor"),
        (
            lambda: audit([0], [[0.5, 0.5]], transition=torch.eye(3)),
            ValueError,
            "transition has C=3 but probabilities has C=2",
        ),
        (
            lambda: audit([0], [[0.5, 0.5]], transition=[[0.5, 0.2], [0.1, 0.9]]),
            ValueError,
            "rows of transition must be probabilities that sum to 1",
        ),
        (lambda: neighbor_disagreement([0], [[1.0]]), ValueError, "at least two samples, got 1"),
        (lambda: neighbor_disagreement([0, 1], [[1.0], [math.nan]]), ValueError, "be finite"),
        (lambda: neighbor_disagreement([0], [[1.0], [2.0]]), ValueError, "given has N=1 but"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
