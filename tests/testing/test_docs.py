import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

from robustfer.testing import (
    AugmentationConformance,
    LossConformance,
    ParametricLossConformance,
    PluginConformance,
    StatefulLossConformance,
    failing_checks,
)

KITS = [
    LossConformance,
    AugmentationConformance,
    ParametricLossConformance,
    PluginConformance,
    StatefulLossConformance,
]
PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_tables_of_checks_are_up_to_date():
    make = runpy.run_path(str(PAGE.with_name("make_testing.py")))
    text = PAGE.read_text(encoding="utf-8")
    assert make["page"](text) == text, "run `python docs/make_testing.py`"


@pytest.mark.parametrize("kit", KITS)
def test_the_page_lists_every_check_with_its_meaning(kit):
    text = PAGE.read_text(encoding="utf-8")
    table = text.split(f"<!-- checks of {kit.__name__}, ")[1].split("<!-- end -->")[0]
    listed = dict(re.findall(r"^\| `(test_\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert list(listed) == [name for name in vars(kit) if name.startswith("test_")]
    assert all(listed.values())


def test_the_components_of_the_page_pass(monkeypatch):
    page = ModuleType("page_on_testing")  # a module, so that its classes can be pickled
    monkeypatch.setitem(sys.modules, page.__name__, page)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), str(PAGE), "exec"), vars(page))
    assert failing_checks(page.TestFocal) == {}
    assert failing_checks(page.TestMyPair) == {}
    assert failing_checks(page.TestTempered) == {}
    assert failing_checks(page.TestTemporalConsistency) == {}
    assert failing_checks(page.TestInstalled) == {}
