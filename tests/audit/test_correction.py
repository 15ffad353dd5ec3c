import pytest
import torch

from robustfer.audit import audit, corrected_labels
from robustfer.audit.scores import label_posterior
from robustfer.noise import transition_from_verified
from tests.audit.test_scores import draw


@pytest.mark.parametrize("classes", [2, 7, 100])
@pytest.mark.parametrize("evidence", [0, 0.3, 1])
def test_soft_labels_are_the_loop(classes, evidence):
    given, rows, matrix = draw(20, classes)
    found = corrected_labels(given, rows, transition=matrix, evidence=evidence)
    for label, row, soft in zip(given.tolist(), rows.tolist(), found, strict=True):
        products = [p * float(matrix[k, label]) ** evidence for k, p in enumerate(row)]
        expected = [product / sum(products) for product in products]
        torch.testing.assert_close(soft, torch.tensor(expected, dtype=torch.float64))


def test_whole_evidence_is_the_posterior():
    given, rows, matrix = draw(50, 7)
    found = corrected_labels(given, rows, transition=matrix, evidence=1)
    right = found[torch.arange(50), given]
    torch.testing.assert_close(1 - right, label_posterior(given, rows, matrix).wrong_probability)


def test_verified_labels_move_the_shares_as_the_audit_does():
    given, rows, _ = draw(400, 3)
    true = rows.argmax(1)
    estimate = transition_from_verified(true[:100], given[:100], num_classes=3)
    for transition in (None, estimate):
        found = corrected_labels(given, rows, transition=transition, evidence=1)
        wrong = audit(given, rows, transition=transition).wrong_probability
        torch.testing.assert_close(1 - found[torch.arange(400), given], wrong)
    assert not torch.equal(corrected_labels(given, rows, transition=estimate, evidence=0), rows)
    torch.testing.assert_close(corrected_labels(given, rows, evidence=0), rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes_and_arrays(dtype):
    given, rows, matrix = draw(50, 7, dtype=dtype)
    expected = corrected_labels(given, rows.double(), transition=matrix.double())
    found = corrected_labels(given, rows, transition=matrix)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(found.sum(1), torch.ones(50))
    lists = corrected_labels(given.tolist(), rows.double().numpy(), transition=matrix.double())
    torch.testing.assert_close(lists, expected)


def test_a_prediction_that_excludes_its_label_is_kept():
    found = corrected_labels([1], [[1.0, 0.0]], transition=torch.eye(2))
    assert found.tolist() == [[1.0, 0.0]]


def test_bad_arguments_name_themselves():
    with pytest.raises(ValueError, match=r"evidence.*1\.5"):
        corrected_labels([0], [[0.5, 0.5]], evidence=1.5)
    with pytest.raises(ValueError, match="given"):
        corrected_labels([0, 1], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="transition"):
        corrected_labels([0], [[0.5, 0.5]], transition=torch.eye(3))
