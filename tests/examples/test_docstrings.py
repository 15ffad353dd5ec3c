"""What ``--help`` of an example says is of that example."""

import ast
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("[!_]*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_docstring_names_its_own_file_and_no_other(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    commands = [line.split() for line in text.splitlines() if line.startswith("python ")]
    assert commands
    for _, *words in commands:
        assert words[0] == f"examples/{path.name}" or words[:2] == ["-m", f"examples.{path.stem}"]
