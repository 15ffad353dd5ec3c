import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.accuracy_tables import TASKS, rank_table
from benchmarks.ranks import kendall, spearman

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)


@given(PAIRS)
def test_correlations_are_those_of_scipy(pairs):
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(spearman(first, second))
        assert math.isnan(kendall(first, second))
        return
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second)[0], abs=1e-12)
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second)[0], abs=1e-12)


@given(PAIRS)
def test_only_the_order_counts(pairs):
    first, second = zip(*pairs, strict=True)
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    stretched = [math.exp(value) for value in first]
    assert spearman(stretched, second) == pytest.approx(spearman(first, second))
    assert kendall(stretched, second) == kendall(first, second)


def row(method, task, accuracy, seed=1, epochs=30, phase="report", scale="cpu"):
    return {
        "method": method, "task": task, "seed": seed, "epochs": epochs, "phase": phase,
        "scale": scale, "setting": {}, "last": {"accuracy": accuracy},
    }  # fmt: skip


def test_the_table_is_of_methods_with_all_noises():
    found = []
    for place, name in enumerate(("ce", "eac", "scn", "gsmc")):
        for seed, change in ((1, -0.01), (2, 0.01)):
            found += [
                row(name, "symmetric30", 0.9 - place / 10 + change, seed),
                row(name, "twin", 0.5 + place / 10 + change, seed),
                row(name, "fer2013", 0.4 + place / 10 + change, seed),
            ]
    found += [row("lanet", "twin", 0.1), row("ce", "twin", 0.0, epochs=60)]
    found += [row("ce", "fer2013", 0.99, phase="tune"), row("ce", "symmetric10", 0.0)]
    made = rank_table(found)
    assert "4 methods" in made
    assert "LA-Net" not in made
    lines = [[cell.strip() for cell in line.split("|")] for line in made.splitlines()]
    (symmetric,) = (line[2:5] for line in lines if line[1:2] == [TASKS["symmetric30"]])
    (twin,) = (line[2:5] for line in lines if line[1:2] == [TASKS["twin"]])
    assert symmetric == ["-1.00", "-1.00 to -1.00", "-1.00"]
    (seeds,) = (line[2:5] for line in lines if "one seed with another" in "|".join(line))
    assert seeds == twin == ["1.00", "1.00 to 1.00", "1.00"]
    assert f"{TASKS['twin']}: GSMC 80.0, SCN 70.0, EAC 60.0, cross entropy 50.0" in made


def test_a_correlation_that_hangs_on_one_method_is_seen():
    # The twin swaps the first two of three methods, and agrees about the last, far behind.
    values = {"ce": (0.5, 0.6), "eac": (0.6, 0.5), "scn": (0.7, 0.7)}
    found = [
        row(name, task, value)
        for name, (real, twin) in values.items()
        for task, value in (("fer2013", real), ("twin", twin), ("symmetric30", real))
    ]
    made = " ".join(rank_table(found).split())
    assert "| noise like FER2013's | 0.50 | -1.00 to 1.00 | 0.33 |" in made
    assert "| 30 % symmetric noise | 1.00 | 1.00 to 1.00 | 1.00 |" in made


def test_two_methods_have_no_ranking():
    tasks = ("symmetric30", "twin", "fer2013")
    found = [row(name, task, 0.5) for name in ("ce", "eac") for task in tasks]
    assert rank_table(found) == "Not run yet.\n"
