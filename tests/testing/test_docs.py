import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from robustfer.testing import (
    AugmentationConformance,
    LossConformance,
    ParametricLossConformance,
    StatefulLossConformance,
    failing_checks,
)

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.mark.parametrize(
    ("title", "conformance"),
    [
        ("## The checks of a loss\n", LossConformance),
        ("## The checks of an augmentation\n", AugmentationConformance),
        ("## Parameters of a loss\n", ParametricLossConformance),
        ("## Losses with state\n", StatefulLossConformance),
    ],
)
def test_the_page_lists_every_check(title, conformance):
    section = PAGE.read_text().split(title)[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(test_\w+)` \|", section, re.MULTILINE)
    assert sorted(listed) == sorted(name for name in vars(conformance) if name.startswith("test_"))


def test_the_components_of_the_page_pass(monkeypatch):
    page = ModuleType("page_on_testing")  # a module, so that its classes can be pickled
    monkeypatch.setitem(sys.modules, page.__name__, page)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), str(PAGE), "exec"), vars(page))
    assert failing_checks(page.TestFocal) == {}
    assert failing_checks(page.TestMyPair) == {}
    assert failing_checks(page.TestTempered) == {}
    assert failing_checks(page.TestTemporalConsistency) == {}
