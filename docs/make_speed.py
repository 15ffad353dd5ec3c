"""Write the tables of docs/speed.md from benchmarks/results/speed.json.

    make bench
    python docs/make_speed.py --take runs/bench/speed.json
    python docs/pictures/speed.py

The first line measures, the second keeps what the page needs and writes the page, the third
draws the picture. A test fails while the page is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("speed.md")
ROWS = Path(__file__).parents[1] / "benchmarks" / "results" / "speed.json"

#: Heading on the page, and how the names of its benchmarks begin.
SECTIONS = {
    "EAC": ("class maps and consistency", "mirrored pair"),
    "SCN": ("SCN loss",),
    "GSMC": ("GSMC", "EMA"),
    "LA-Net": ("landmark contrast", "label distribution", "adaptive wing", "heat maps"),
    "Labels": (
        "label store",
        "label table",
        "posterior",
        "audit",
        "duplicates",
        "forward",
        "train",
    ),
    "Loops and plugins": ("update of", "step", "epoch", "views of", "list "),
}
MACHINE = ("python_version", "torch", "torchvision", "timm", "kornia", "numpy", "threads")


def take(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page needs of a report of ``benchmarks/speed.py``, without names of hosts."""
    about = report["machine_info"]
    rows = []
    for entry in report["benchmarks"]:
        extra = entry["extra_info"]
        turns = extra.get("by_turns")
        rows.append({
            "what": entry["group"],
            "form": extra["column"],
            "seconds": float(f"{entry['stats']['min']:.4g}"),
            "peak_mib": None if extra.get("peak_mib") is None else round(extra["peak_mib"], 1),
            "by_turns": None if turns is None else round(turns["median"], 2),
        })  # fmt: skip
    return {
        "commit": report["commit_info"]["id"] + "+changes" * report["commit_info"]["dirty"],
        "date": report["datetime"][:10],
        "machine": {
            "cpu": about["cpu"].get("brand_raw", ""),
            **{key: about[key] for key in MACHINE},
        },
        "rows": rows,
    }


def page(text: str, kept: Mapping[str, Any]) -> str:
    """Return the page with everything between its speed marks written anew."""
    parts = [_about(kept)]
    left = list(kept["rows"])
    for title, beginnings in {**SECTIONS, "Others": ("",)}.items():
        rows = [row for row in left if row["what"].startswith(beginnings)]
        left = [row for row in left if row not in rows]
        if rows:
            parts.append(f"## {title}\n\n{_table(rows)}")
    made = "\n\n".join(parts)
    return re.sub(
        r"(<!-- speed:start -->\n).*?(<!-- speed:end -->)",
        lambda found: f"{found[1]}\n{made}\n\n{found[2]}",
        text,
        flags=re.DOTALL,
    )


def _about(kept: Mapping[str, Any]) -> str:
    machine = kept["machine"]
    packages = ", ".join(f"{name} {machine[name]}" for name in ("torch", "timm", "kornia", "numpy"))
    return (
        f"Measured on {kept['date']} at commit `{kept['commit'][:10]}`: one thread of one "
        f"{machine['cpu']} core, Python {machine['python_version']}, {packages}."
    )


def _table(rows: list[Mapping[str, Any]]) -> str:
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["what"].removesuffix(", cpu"), {})[row["form"]] = row
    lines = [
        "| what | literal | plain | ours | MiB | others |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for what, forms in groups.items():
        if "ours" not in forms:
            lines += [_line(f"{what}, {form}", row, {}) for form, row in forms.items()]
        else:
            lines.append(_line(what, forms["ours"], forms))
    return "\n".join(lines)


def _line(what: str, ours: Mapping[str, Any], forms: Mapping[str, Mapping[str, Any]]) -> str:
    times = {form: f"{row['seconds'] / ours['seconds']:.2f}x" for form, row in forms.items()}
    others = [f"{form} {times[form]}" for form in forms if form not in ("ours", "plain", "literal")]
    plain = times.get("plain", "")
    if ours["by_turns"] is not None:
        plain += f" ({ours['by_turns']:.2f}x)"
    cells = (
        what,
        times.get("literal", ""),
        plain,
        _time(ours["seconds"]),
        f"{ours['peak_mib']:.1f}" if ours["peak_mib"] else "",
        ", ".join(others),
    )
    return f"| {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}
    unit = next((unit for unit, size in units.items() if seconds >= size), "µs")
    return f"{seconds / units[unit]:.3g} {unit}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--take", type=Path, help="report of benchmarks/speed.py to keep")
    options = parser.parse_args()
    if options.take:
        taken = take(json.loads(options.take.read_text(encoding="utf-8")))
        lines = ",\n".join(
            f"    {json.dumps(row, ensure_ascii=False)}" for row in taken.pop("rows")
        )
        head = json.dumps(taken, indent=2)[:-2]
        ROWS.write_text(f'{head},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")
    written = page(PAGE.read_text(encoding="utf-8"), json.loads(ROWS.read_text(encoding="utf-8")))
    PAGE.write_text(written, encoding="utf-8")
