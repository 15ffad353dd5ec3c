"""The config files that are shown: every key is an option, and its value takes effect."""

from pathlib import Path

import pytest
import yaml

import examples.train
from examples.train.methods import METHODS
from examples.train.options import parse

CONFIGS = sorted(Path(examples.train.__file__).parent.glob("configs/*.yaml"))


def settings_of(path, *options):
    method = yaml.safe_load(path.read_text())["method"]
    return parse(method, METHODS[method].load().Options, [f"--config={path}", *options])


def test_there_are_configs():
    assert {path.stem.partition("_")[0] for path in CONFIGS} == {"rafdb", "affectnet"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_value_of_a_config_takes_effect(path):
    asked = yaml.safe_load(path.read_text())
    flat = settings_of(path).flat()
    assert {name: flat[name] for name in asked} == asked
    default = parse(asked["method"], METHODS[asked["method"]].load().Options, []).flat()
    changed = {name for name in asked if flat[name] != default[name]}
    assert {"data", "reader", "backbone"} <= changed


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_command_in_a_config_gives_the_path_and_names_the_file(path):
    kind = yaml.safe_load(path.read_text())["data"].partition(":")[0]
    lines = path.read_text().replace("\\\n#", " ").split("\n")
    command = next(line for line in lines if "python -m" in line and "--config" in line).split()
    assert command[command.index("--config") + 1] == f"examples/train/configs/{path.name}"
    given = command[command.index("--data") :]
    settings = settings_of(path, *given, "--seed=3")
    assert settings.data.data == f"{kind}:PATH"
    assert settings.run.seed == 3
