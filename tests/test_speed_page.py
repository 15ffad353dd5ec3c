"""The page on speed is what its rows say, and the rows name no machine."""

import json
import runpy
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
KEPT = json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text(encoding="utf-8"))


def test_the_page_is_that_of_the_rows():
    """Run ``python docs/make_speed.py`` after new rows."""
    make = runpy.run_path(str(ROOT / "docs" / "make_speed.py"))
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert make["page"](text, KEPT) == text
    for row in KEPT["rows"]:
        assert row["what"].removesuffix(", cpu") in text


def test_what_is_kept_of_a_report_names_no_machine():
    make = runpy.run_path(str(ROOT / "docs" / "make_speed.py"))
    about = {**KEPT["machine"], "cpu": {"brand_raw": "a processor"}, "node": "a-host"}
    timed = {
        "group": "EMA, cpu",
        "stats": {"min": 0.0012345678},
        "extra_info": {"column": "ours", "peak_mib": 1.26, "by_turns": {"median": 1.236}},
    }
    kept = make["take"]({
        "machine_info": about,
        "commit_info": {"id": "0" * 40, "dirty": True},
        "datetime": "2030-01-02T03:04:05",
        "benchmarks": [timed],
    })  # fmt: skip
    assert kept["commit"] == "0" * 40 + "+changes"
    assert kept["rows"] == [
        {
            "what": "EMA, cpu",
            "form": "ours",
            "seconds": 0.001235,
            "peak_mib": 1.3,
            "by_turns": 1.24,
        }
    ]
    assert "a-host" not in json.dumps(kept)
    assert "## GSMC" in make["page"]("<!-- speed:start -->\n<!-- speed:end -->", kept)


def test_the_picture_is_drawn_from_the_rows(tmp_path):
    draw = runpy.run_path(str(ROOT / "docs" / "pictures" / "speed.py"))
    draw["speed"](KEPT["rows"], tmp_path / "speed.png")
    drawn = np.asarray(Image.open(tmp_path / "speed.png").convert("RGB"))
    assert drawn.std() > 10
