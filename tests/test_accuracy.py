"""The accuracy protocol: a run becomes a row as those in the results, once."""

import pytest

from benchmarks import accuracy
from benchmarks.accuracy_methods import METHODS
from tests.data.trees import vote_row, write_ferplus

COMMITTED = accuracy.rows()
SMALL = accuracy.Scale(name="small", train_faces=64, tune_faces=8, epochs=1, backbone="tiny")
RUN = {"task": "symmetric30", "phase": "tune", "seed": 0, "epochs": 1, "scale": SMALL}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "RESULTS", tmp_path / "results" / "accuracy.jsonl")
    return accuracy.RESULTS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    expressions = ("happiness", "neutral", "anger", "sadness")
    rows = [
        vote_row(f"fer{number:04d}.png", **{expressions[number % 4]: 9}) for number in range(72)
    ]
    return write_ferplus(tmp_path_factory.mktemp("ferplus"), rows)


@pytest.mark.parametrize("name", ["ce", "scn", "composition"])
def test_a_run_is_one_row_like_the_others(name, results, root):
    other = next(row for row in COMMITTED if row["method"] == name and row["phase"] == "tune")
    for _ in range(2):  # the second time it is there already
        accuracy.run(name, setting=METHODS[name].grid[0], root=root, device="cpu", **RUN)
    (row,) = accuracy.rows()
    assert row.keys() == other.keys()
    assert row["last"].keys() == other["last"].keys()
    assert accuracy.identity(row) == {
        **{key: value for key, value in RUN.items() if key != "scale"},
        "method": name, "setting": METHODS[name].grid[0], "scale": "small",
    }  # fmt: skip
    assert row["wrong_labels"] == pytest.approx(0.3, abs=0.12)
    assert row["accuracy_by_epoch"] == [pytest.approx(row["last"]["accuracy"], abs=1e-4)]


def test_every_method_is_a_command_with_settings_that_it_knows(root):
    for method in METHODS.values():
        for setting in (*method.grid, *method.parts.values()):
            settings = accuracy.settings_of(method, setting, root, [])
            flat = settings.flat()
            for option, value in setting.items():
                if option not in method.losses:
                    assert flat[option.replace("-", "_")] == value
