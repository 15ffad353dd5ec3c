"""Time listing fifty installed plugins, and only reading their metadata, in new processes."""

import pytest

from tests.plugins_support import losses, run_python, write_plugin

PLUGINS = 50

# Finds the plugins and their versions with importlib.metadata, without importing them.
METADATA = """
from importlib.metadata import entry_points
for entry_point in entry_points(group="robustfer"):
    entry_point.dist.metadata["Version"], entry_point.dist.requires
"""
LISTING = "from robustfer import registry; registry.available()"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for number in range(PLUGINS):
        write_plugin(folder, f"p{number}", losses(f"loss_{number}"), requires=["robustfer>=0.1"])
    return folder


@pytest.mark.parametrize(("column", "code"), [("importlib.metadata", METADATA), ("ours", LISTING)])
def test_listing_fifty_plugins(compare, device, site, column, code):
    if device.type != "cpu":
        pytest.skip("plugins know no device")

    def run():
        finished = run_python("-c", code, PYTHONPATH=str(site))
        assert (finished.returncode, finished.stderr) == (0, "")

    compare(run, group=f"list {PLUGINS} plugins, interpreter included", column=column)
