"""The page on the program: its commands are ones that the program takes."""

import re
import shlex

import pytest

from examples.train.commands import COMMANDS
from examples.train.methods import METHODS
from examples.train.options import parse, parse_command
from tests.examples.train.runs import ROOT

PAGE = (ROOT / "docs/train.md").read_text(encoding="utf-8")
LINES = re.findall(r"^    (?:\S.*)?-m examples\.train (.+)$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_commands_of_the_page_are_understood(line, tmp_path):
    name, *arguments = shlex.split(line)
    if name in COMMANDS:
        parse_command(name, COMMANDS[name].load().Options, arguments)
        return
    if "--config" in arguments:
        config = tmp_path / "config.yaml"
        (shared,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
        config.write_text(shared)
        arguments[arguments.index("--config") + 1] = str(config)
    settings = parse(name, METHODS[name].load().Options, arguments)
    assert settings.method == name
    if "faces.yaml" in line:
        seeds = 1 if "--seeds 1" in line else 3
        assert (settings.run.seeds, settings.model.backbone) == (seeds, "tiny")


def test_the_page_names_every_method_and_command_and_only_options_there_are():
    for name in (*METHODS, *COMMANDS):
        assert f"`{name}" in PAGE
    known = {f"--{name.replace('_', '-')}" for method in METHODS
             for name in parse(method, METHODS[method].load().Options, []).flat()}  # fmt: skip
    for command in COMMANDS.values():
        known |= {f"--{name}" for name in command.load().Options.__dataclass_fields__}
    of_others = {"--config", "--help", "--nproc-per-node", "--ntasks-per-node", "--nodes"}
    found = {option.partition(".")[0] for option in re.findall(r"--[a-z][\w.-]*", PAGE)}
    assert found <= known | of_others
