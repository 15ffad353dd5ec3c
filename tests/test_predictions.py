"""Files of predictions: their rows and columns are those of a data set."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robustfer.audit import read_probabilities
from robustfer.state import TrainingDynamics

ROWS = torch.tensor([[0.9, 0.1], [0.5, 0.5]], dtype=torch.float64)


def table(path, *lines):
    path.write_text("\n".join(lines))
    return path


def test_two_predictions_for_one_sample_are_refused(tmp_path):
    path = table(tmp_path / "a.csv", "id,sad,glad", "a,0.9,0.1", "b,0.5,0.5", "a,0.1,0.9")
    message = r"a\.csv: ids must name each sample once, but rows 0 and 2, .* predictions for 'a'"
    with pytest.raises(ValueError, match=message):
        read_probabilities(path)
    rows = ROWS[[0, 1, 1, 0]].numpy()
    np.savez(tmp_path / "a.npz", probabilities=rows, ids=["a", "b", "a", "b"])
    with pytest.raises(ValueError, match="but rows 0 and 2, .* predictions for 'a'; keep one"):
        read_probabilities(tmp_path / "a.npz")


def test_a_prediction_may_be_repeated(tmp_path):
    path = table(tmp_path / "a.csv", "id,sad,glad", "a,0.9,0.1", "b,0.5,0.5", "a,0.9,0.1")
    rows = read_probabilities(path).aligned(path, ["b", "a"], ["sad", "glad"]).probabilities
    assert torch.equal(rows, ROWS[[1, 0]])


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ("sad,glad", ["glad", "sad"]),
        ("sadness,glad", ["glad", "sad"]),
        ("Sad,glad", ["glad", "sadness"]),
        ("joy,happy", ["happy", "joy"]),
    ],
)
def test_columns_are_named_as_the_classes_or_by_a_synonym(tmp_path, columns, names):
    path = table(tmp_path / "a.csv", columns, "0.9,0.1", "0.5,0.5")
    rows = read_probabilities(path).aligned(path, ["a", "b"], names).probabilities
    assert torch.equal(rows, ROWS.flip(1))


def test_a_table_of_the_training_program_names_images_and_predicted_classes(tmp_path):
    path = table(tmp_path / "a.csv", "image,class,sad,glad", "'=b,sad,0.9,0.1", "a,glad,0.5,0.5")
    found = read_probabilities(path)
    assert found.classes == ("sad", "glad")
    rows = found.aligned(path, ["a", "=b"], ["sad", "glad"]).probabilities
    assert torch.equal(rows, ROWS.flip(0))
    message = "none for 'below/a', only for names like '=b'; predict them all, and name them as"
    with pytest.raises(ValueError, match=message):
        found.aligned(path, ["below/a"], ["sad", "glad"])


@pytest.mark.parametrize("columns", ["sad,bored", "sad,glad,bored", "sad,sadness"])
def test_other_columns_are_refused(tmp_path, columns):
    row = ",".join(["1", *"0" * columns.count(",")])
    path = table(tmp_path / "a.csv", columns, row)
    with pytest.raises(ValueError, match="must have one column for each of sad, glad, got sad"):
        read_probabilities(path).aligned(path, ["a"], ["sad", "glad"])


def test_rows_of_a_record_follow_its_names(tmp_path):
    record = TrainingDynamics(2, num_classes=2, given=torch.tensor([0, 1]))
    record.update(torch.arange(2), ROWS.log())
    path = tmp_path / "dynamics.safetensors"
    names = json.dumps({"classes": ["sad", "glad"], "ids": ["b", "a"]})
    save_file(record.state_dict(), path, {"names": names})
    found = read_probabilities(tmp_path).aligned(path, ["a", "b"], ["glad", "sad"])
    torch.testing.assert_close(found.probabilities, ROWS.flip(0, 1))
    assert found.given.tolist() == [0, 1]
    one = read_probabilities(tmp_path).aligned(path, ["b"], ["sad", "glad"])
    assert (len(one.probabilities), one.given.tolist()) == (1, [0])
    with pytest.raises(ValueError, match="has none for 'c', only for names like 'b'"):
        read_probabilities(tmp_path).aligned(path, ["b", "c"], ["sad", "glad"])
    save_file(record.state_dict(), path, {"names": '{"ids": ["a", "b"]}'})
    with pytest.raises(ValueError, match="names in the metadata must be JSON with the lists"):
        read_probabilities(tmp_path)
