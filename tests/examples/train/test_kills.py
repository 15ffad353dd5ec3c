"""A killed training goes on as if nothing had happened; more moments are tried by hand."""

import os

from tests.examples.train.kills import kill_and_compare
from tests.examples.train.runs import ROOT


def test_killed_at_random_moments_and_resumed_equals_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    outcomes = dict(kill_and_compare(2, tmp_path, cases=[("scn", 2), ("lanet", 0)]))
    assert len(outcomes) == 2
    assert all(outcomes.values()), outcomes
