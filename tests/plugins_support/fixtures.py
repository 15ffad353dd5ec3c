"""Fixtures for test modules with ``pytest_plugins = ["tests.plugins_support.fixtures"]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from robustfer import plugins


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that modules are imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., plugins.Plugins]:
    """Make these entry points all that is installed beside the core."""

    def install(*entry_points: EntryPoint, allowed: Sequence[str] | None = None) -> plugins.Plugins:
        found = plugins.Plugins(entry_points, allowed=allowed)
        monkeypatch.setattr(plugins, "installed", lambda: found)
        return found

    return install
