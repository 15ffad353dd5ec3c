"""How well wrong labels are found: runs are kept, rows are made of them, tables of the rows."""

import re
from pathlib import Path

import pytest
import torch

from benchmarks import accuracy, label_errors, label_errors_tables
from examples.train.data import seed_of
from robustfer.noise import rows_to_verify
from tests.data.trees import vote_row, write_ferplus
from tests.reference import audit as reference

SMALL = accuracy.Scale(
    name="look", train_faces=128, tune_faces=8, epochs=1, backbone="tiny",
    arguments=accuracy.AVERAGED,
)  # fmt: skip
FIGURES = {"average_precision", "first_wrong", "suggestions_right"}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(label_errors, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(label_errors, "RESULTS", tmp_path / "results" / "rows.jsonl")
    monkeypatch.setattr(label_errors, "VERIFIED", 20)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    expressions = ("happiness", "neutral", "anger", "sadness")
    rows = [
        vote_row(f"fer{number:04d}.png", **{expressions[number % 4]: 9}) for number in range(140)
    ]
    return write_ferplus(tmp_path_factory.mktemp("ferplus"), rows)


@pytest.mark.usefixtures("results")
def test_runs_become_rows_and_rows_become_tables(root):
    for folds in (1, 2):
        for _ in range(2):  # the second time it is there already
            label_errors.run(
                "symmetric30", seed=1, folds=folds, scale=SMALL, root=root, device="cpu"
            )
    label_errors.score()
    label_errors.score()
    one, two = label_errors.rows()
    assert [label_errors.identity(row) for row in (one, two)] == [
        ("look", "symmetric30", "ce", 1, 1), ("look", "symmetric30", "ce", 2, 1)
    ]  # fmt: skip
    assert one["wrong_labels"] == pytest.approx(0.3, abs=0.12)
    ours = set(label_errors_tables.OURS.values()) | {"log_margin, mean", "area under the margin"}
    assert set(one["figures"]) >= ours
    assert set(two["figures"]) >= set(label_errors_tables.CLEANLAB_TITLES)
    for row in (one, two):
        for title, figures in row["figures"].items():
            kind = {"found", "precision", "recall"} if "issues" in title else FIGURES
            assert figures.keys() == kind, title
            assert all(0 <= value <= 1 for value in figures.values())


def kept(true, given, rows):
    wide = torch.tensor(rows, dtype=torch.float64)
    return label_errors.Kept(torch.tensor(given), torch.tensor(true), {"last": wide}, {})


def test_a_ranking_is_judged_by_the_truth():
    true, given = [0, 1, 2, 0, 1], [0, 0, 2, 1, 1]
    ranking, suggestion = torch.tensor([1, 4, 3, 0, 2]), torch.tensor([1, 1, 0, 2, 0])
    found = label_errors.judge(kept(true, given, [[1 / 3] * 3] * 5), ranking, suggestion)
    wrong = [one != other for one, other in zip(true, given, strict=True)]
    expected = reference.average_precision(ranking.tolist(), wrong)
    assert found["average_precision"] == pytest.approx(expected)
    assert found["first_wrong"] == pytest.approx(2 / 5)
    assert found["suggestions_right"] == 1  # the first one is a quarter of the wrong ones already


def test_each_fold_is_predicted_by_a_network_that_did_not_see_it(root, monkeypatch, results):
    seen = []

    def training(faces, judged, others=None, **options):
        seen.append((set(faces.ids), set(others.ids)))
        rows = torch.full((len(others), 7), float(len(seen)))
        return dict.fromkeys(label_errors.NETWORKS, rows)

    monkeypatch.setattr(label_errors, "one_training", training)
    label_errors.run("symmetric30", seed=1, folds=3, scale=SMALL, root=root, device="cpu")
    assert len(seen) == 3
    assert all(not (one & other) and len(one | other) == 128 for one, other in seen)
    found, _ = label_errors.read(label_errors.record_path(SMALL, "symmetric30", 1, 3))
    assert torch.allclose(found.windows["last"], torch.full((128, 7), 1 / 7).double())


def test_the_second_training_is_kept_once_it_was_run(root, monkeypatch, results):
    where = {"seed": 1, "scale": SMALL, "root": root, "device": "cpu"}
    label_errors.run("symmetric30", folds=1, **where)
    label_errors.keep_second("symmetric30", **where)
    label_errors.score()
    assert len(label_errors.rows()) == 1

    first, _ = label_errors.read(label_errors.record_path(SMALL, "symmetric30", 1, 1))
    nine = torch.full((128, 7), 0.1 / 6).scatter_(1, first.true[:, None], 0.9)
    told = rows_to_verify(first.given, 20, seed=seed_of(1, 0))
    nine[told] = nine[told].roll(1, dims=1)  # these are not judged
    found = {name: nine.clone() for name in ("last", "ema", "mean", "early_mean")}
    found |= {"margin_sum": nine[:, 0], "visits": torch.ones(128), "forgotten": torch.zeros(128)}
    monkeypatch.setattr(label_errors, "recorded", lambda *run: (found, 60.0))
    label_errors.keep_second("symmetric30", **where)
    label_errors.score()
    _, second = label_errors.rows()
    assert label_errors.identity(second) == ("look", "symmetric30", "retrain-verified", 1, 1)
    for title, figures in second["figures"].items():
        assert figures["average_precision"] == pytest.approx(1), title
        assert figures["suggestions_right"] == 1, title
    [again] = label_errors_tables.AGAIN
    shown = label_errors_tables.table(label_errors.rows())
    assert re.search(rf"\| {again} +\| 2 +\| 1 +\| 1\.000 ", shown)


COMMITTED = label_errors.rows()


def test_tables_are_those_of_the_rows():
    """Run ``python -m benchmarks.label_errors table --write`` after adding rows."""
    assert COMMITTED, "no results"
    page = label_errors.PAGE.read_text()
    assert label_errors_tables.with_table(page, COMMITTED) == page


def test_rows_hold_figures_of_whole_data_sets_and_name_their_commit():
    identities = [label_errors.identity(row) for row in COMMITTED]
    assert identities == sorted(set(identities))
    for row in COMMITTED:
        assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", row["commit"])
        assert not re.search(r"/\w+/", str(row))
        assert len(str(row)) < 8_000


def test_results_are_read_from_the_repository():
    assert Path(__file__).parents[2] / "benchmarks/results" == label_errors.RESULTS.parent
