"""The checks of a plugin: each catches what it is for, in a package with its metadata."""

from textwrap import dedent

import pytest

from robustfer.testing import PluginConformance, failing_checks
from tests.plugins_support import write_plugin

pytest_plugins = ["tests.plugins_support.fixtures"]

LOSS = '''
    from torch import Tensor, nn


    class SquareLoss(nn.Module):
        """The squared score of the label.

        Args:
            factor: factor of the loss.

        Shape:
            logits ``(B, C)``, target ``(B)`` -> scalar.

        Reference:
            Doe, ICCV 2031.
        """

        def __init__(self, *, factor: float = 1.0) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return self.factor * logits.gather(1, target[:, None]).square().mean()
'''
README = """
    # A plugin

    ```python
    from robustfer import registry

    offered = sorted(registry.available())
    ```

    ```python
    last = offered[-1]
    ```
"""
HOOK = """
    from robustfer import hookimpl

    @hookimpl
    def robustfer_losses():
        return [component("zz_square", "{module}:SquareLoss")]
"""

NOTHING, DESCRIPTIONS, NAMES, README_RUNS = (
    "test_nothing_is_wrong",
    "test_descriptions_are_complete",
    "test_names_differ_from_those_of_robustfer",
    "test_readme_runs",
)
# The file to change, what stands there, what to write instead, and the check that must fail.
DEFECTS = {
    "option without meaning": ("loss", "factor: factor of", "of", DESCRIPTIONS),
    "tensor without shape": ("loss", "target ``(B)``", "the label", DESCRIPTIONS),
    "result not said": ("loss", " -> scalar", "", DESCRIPTIONS),
    "listing imports torch": ("hook", "import hookimpl", "import hookimpl; import torch", NOTHING),
    "name of a core's loss": (
        "hook",
        "return [",
        'return [component("eac", "robustfer.losses:EACLoss"), ',
        NAMES,
    ),
    "README fails": ("readme", "offered[-1]", "offered[999]", README_RUNS),
    "README without code": ("readme", "```python", "```text", README_RUNS),
    "README with another result": ("readme", "offered[-1]", "offered[0]", README_RUNS),
}


@pytest.fixture
def conformance_of(site, monkeypatch):
    """Install a plugin with one change, and return its checks."""
    monkeypatch.setenv("PYTHONPATH", str(site))  # for the other process

    def make(file, old, new, check=None):
        name = f"of_{site.name}"  # loading is remembered by name
        sources = {"loss": LOSS, "hook": HOOK.format(module=f"loss_{name}"), "readme": README}
        sources = {key: dedent(text) for key, text in sources.items()}
        assert old in sources[file]
        sources[file] = sources[file].replace(old, new)
        (site / f"loss_{name}.py").write_text(sources["loss"])
        (site / "README.md").write_text(sources["readme"])
        write_plugin(site, name, sources["hook"])

        class Conformance(PluginConformance):
            plugin = name
            readme = site / "README.md"
            # It starts another process, so it runs only where it has something to find.
            if check != NOTHING:
                test_nothing_is_wrong = None

            def check_readme(self, names):
                assert names["last"] == "zz_square"

        return Conformance

    return make


def test_a_sound_plugin_passes(conformance_of):
    assert failing_checks(conformance_of("loss", "Doe", "Roe", NOTHING)) == {}


FACTORY = '''
    def make_square(*, factor: float = 1.0) -> nn.Module:
        """Make the loss.

        Args:
            factor: factor of the loss.

        Shape:
            logits ``(B, C)``, target ``(B)`` -> scalar.
        """
        return SquareLoss(factor=factor)
'''


@pytest.mark.parametrize(("shape", "failing"), [(" -> scalar", set()), ("", {DESCRIPTIONS})])
def test_a_factory_may_be_a_function(shape, failing, conformance_of, monkeypatch):
    factory = FACTORY.replace(" -> scalar", shape)
    monkeypatch.setitem(globals(), "LOSS", LOSS + factory)
    failures = failing_checks(conformance_of("hook", ":SquareLoss", ":make_square"))
    assert set(failures) == failing
    for error in failures.values():
        assert "of the class, or of a factory function" in str(error)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_caught(defect, conformance_of):
    *change, check = DEFECTS[defect]
    failures = failing_checks(conformance_of(*change, check))
    assert set(failures) == {check}
    assert isinstance(failures[check], AssertionError), "a check must say what is wrong"


def test_every_check_catches_something():
    checks = {name for name in dir(PluginConformance) if name.startswith("test_")}
    assert {check for *_, check in DEFECTS.values()} == checks


@pytest.mark.filterwarnings("ignore::robustfer.plugins.PluginWarning")
def test_a_plugin_that_is_not_installed():
    class Conformance(PluginConformance):
        plugin = "nowhere"

    failures = failing_checks(Conformance)
    assert "'nowhere' is named by ROBUSTFER_PLUGINS but not installed" in str(
        failures.pop("test_nothing_is_wrong")
    )
    assert "offers nothing; name its module in [project.entry-points.robustfer]" in str(
        failures.pop("test_descriptions_are_complete")
    )
    assert failures == {}


def test_an_error_names_the_line_of_the_readme(conformance_of):
    conformance = conformance_of("readme", "offered[-1]", "offered[999]")
    with pytest.raises(AssertionError, match=r"README\.md from line 11 on fails: IndexError"):
        conformance().test_readme_runs()


def test_what_an_author_must_set_is_named():
    with pytest.raises(AssertionError, match="set plugin to the name of your plugin"):
        PluginConformance().test_nothing_is_wrong()
