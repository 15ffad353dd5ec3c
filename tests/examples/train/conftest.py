import os

import pytest

from examples.train.seeds import train_each_seed
from tests.examples.train.runs import settings_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory of its own: a run without --output writes there."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert not os.environ.get("TORCHELASTIC_RUN_ID")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Folders of finished runs by name, for the commands that only read them: never write there.

    ce and eac with the seeds 0 and 1, and ce for twice the epochs, as long as eac's image passes.
    """
    root = tmp_path_factory.mktemp("finished")
    for name, options in {"ce": [], "eac": [], "ce-long": ["--epochs=4"]}.items():
        method = name.partition("-")[0]
        train_each_seed(settings_of(method, "--seeds=2", *options, f"--output={root}/{name}"))
    return {path.parent.name + path.name[-2:]: path for path in root.glob("*/seed-*")}
