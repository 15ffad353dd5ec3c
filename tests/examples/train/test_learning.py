"""The program learns: faces that are seen often are known by heart."""

import pytest

from robustfer.data import DemoFaces
from tests.examples.train.runs import run


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ce", []),
        ("lanet", ["--second-space=coordinates", "--queue=256"]),
    ],
)
def test_faces_are_learnt_by_heart(method, options, tmp_path):
    """Chance is 14 %."""
    faces = DemoFaces(64)
    outcome = run(
        method, *options, "--noise=none", "--batch-size=32", "--epochs=16",
        "--learning-rate=0.01", f"--output={tmp_path}/run", faces=(faces, faces),
    )  # fmt: skip
    assert outcome.history.last["accuracy"] > 0.45
