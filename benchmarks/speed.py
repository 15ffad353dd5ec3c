"""Run the speed benchmarks and print their ratios (``make bench``).

Times are minima of one thread, all contenders in one run; the JSON behind the table, with versions
and machine, is written beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def table(report: dict) -> str:
    """Markdown table: a row a contender, fastest of the others against ours."""
    groups: dict[str, dict[str, dict]] = {}
    for entry in report["benchmarks"]:
        column = entry["extra_info"]["column"]
        groups.setdefault(entry["group"], {})[column] = entry
    lines = [
        "| what | form | ms | peak MiB | times ours |",
        "|---|---|---:|---:|---:|",
    ]
    for group, columns in groups.items():
        ours = columns.get("ours", {}).get("stats", {}).get("min")
        for column, entry in columns.items():
            least = entry["stats"]["min"]
            peak = entry["extra_info"].get("peak_mib")
            lines.append(
                f"| {group} | {column} | {1e3 * least:.3g} | "
                f"{'' if peak is None else f'{peak:.3g}'} | "
                f"{'' if ours is None else f'{least / ours:.2f}'} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run pytest-benchmark over ``bench_*.py`` and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run only benchmarks whose name has this")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    report = options.output / "speed.json"
    command = [sys.executable, "-m", "pytest", *map(str, sorted(HERE.glob("bench_*.py")))]
    command += ["-q", "--benchmark-json", str(report), "--benchmark-columns=min,rounds"]
    command += ["--benchmark-disable-gc", "-p", "no:cacheprovider", "-k", options.only]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    failed = subprocess.run(command, env={**os.environ, **threads}, check=False).returncode
    if failed:
        return failed
    shown = table(json.loads(report.read_text()))
    (options.output / "speed.md").write_text(shown + "\n")
    print(shown)
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
