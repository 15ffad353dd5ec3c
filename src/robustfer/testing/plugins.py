"""Checks of an installed plugin, as tests to inherit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from robustfer import registry
from robustfer.plugins import VARIABLE
from robustfer.testing._require import explained


class PluginConformance:
    """Test a plugin as its users find it. Subclass it with a name that starts with ``Test``.

    The plugin must be installed, and no other plugin is loaded. Every check is one test.

    Attributes:
        plugin: name of the plugin, as its entry point has it.
        readme: path of its README, whose Python code must run. ``None``: no code to run.

    >>> class TestCore(PluginConformance):
    ...     plugin = "robustfer"
    >>> TestCore().test_descriptions_are_complete()
    """

    plugin: str = ""
    readme: Path | None = None

    def check_readme(self, names: dict[str, Any]) -> None:
        """Check what the README's code made, by name. Override it to assert what the README says.

        By default the code only has to run.
        """

    def test_nothing_is_wrong(self) -> None:
        """``robustfer plugins --check`` finds no error, and a listing imports no slow package."""
        command = [sys.executable, "-m", "robustfer", "plugins", "--check", "--json"]
        finished = subprocess.run(command, capture_output=True, text=True, env=self._environment())
        with explained(f"`robustfer plugins --check` fails, with {finished.stderr[-500:]!r}"):
            rows = {row["name"]: row for row in json.loads(finished.stdout)}
        problems = rows[self.plugin]["errors"]
        assert not problems, "\n".join(problems)
        slow = rows[self.plugin]["imports"]
        assert not slow, (
            f"listing the plugin imports {', '.join(slow)}; give the factory of each Component as "
            "text, 'package.module:attribute', and import no module of losses with the hooks"
        )

    def test_descriptions_are_complete(self) -> None:
        """``robustfer show`` says what each option, each tensor and the result is."""
        with patch.dict(os.environ, self._environment()):
            offers = [one for one in registry.available().values() if one.plugin == self.plugin]
            described = [registry.describe(one.qualified_name) for one in offers]
        assert described, (
            f"plugin {self.plugin!r} offers nothing; name its module in "
            "[project.entry-points.robustfer] of pyproject.toml, and install the package again"
        )
        for one in described:
            options = [option.name for option in one.options if not option.meaning]
            assert not options, f"{one.name}: the docstring's Args do not say what {options} mean"
            tensors = [tensor.name for tensor in one.tensors if not tensor.shape]
            assert not tensors, f"{one.name}: the docstring's Shape lacks the shapes of {tensors}"
            assert one.result, (
                f"{one.name}: the docstring's Shape lacks the result, after '->'; write it in the "
                "docstring of the class, or of a factory function"
            )

    def test_names_differ_from_those_of_robustfer(self) -> None:
        """No component has the name of one of robustfer's, which is then ambiguous for users."""
        with patch.dict(os.environ, self._environment()):
            taken = [
                offer.component.name
                for name, offer in registry.available().items()
                if offer.plugin == self.plugin and name != offer.component.name
            ]
        assert not taken, (
            f"robustfer has {taken} too, so create({taken[0]!r}) fails for everyone who installs "
            "this plugin; choose another name"
        )

    def test_readme_runs(self) -> None:
        """The Python code of the README runs, block by block. See ``check_readme``."""
        if self.readme is None:
            return
        text = self.readme.read_text(encoding="utf-8")
        blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        assert blocks, f"{self.readme} has no Python code; leave readme at None"
        names: dict[str, Any] = {"__name__": "readme"}
        with patch.dict(os.environ, self._environment()):
            for block in blocks:
                line = text.count("\n", 0, block.start(1))
                code = "\n" * line + block[1]  # errors then name the line of the README
                with explained(f"the code of {self.readme} from line {line + 1} on fails"):
                    exec(compile(code, str(self.readme), "exec"), names)
        self.check_readme(names)

    def _environment(self) -> dict[str, str]:
        assert self.plugin, "set plugin to the name of your plugin, as its entry point has it"
        return {**os.environ, VARIABLE: self.plugin}
