"""Run the speed benchmarks and print their ratios (``make bench``).

Times are minima with one thread. All contenders of a file run in one process. The JSON of the
table, with versions and machine, is written beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOTHING_CHOSEN = 5  # pytest's exit code if --only matches no benchmark of a file


def table(report: dict) -> str:
    """Return a Markdown table: a row per contender, with its minimal time relative to ours.

    If plain and ours were also called alternately, it has the ratio of their minima, and the median
    of the pairs.
    """
    groups: dict[str, dict[str, dict]] = {}
    for entry in report["benchmarks"]:
        column = entry["extra_info"]["column"]
        groups.setdefault(entry["group"], {})[column] = entry
    lines = [
        "| what | form | ms | peak MiB | times ours | by turns |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for group, columns in groups.items():
        ours = columns.get("ours", {}).get("stats", {}).get("min")
        turns = columns.get("ours", {}).get("extra_info", {}).get("by_turns")
        by_turns = "" if turns is None else f"{turns['minima']:.3f}, {turns['median']:.3f}"
        for column, entry in columns.items():
            least = entry["stats"]["min"]
            peak = entry["extra_info"].get("peak_mib")
            lines.append(
                f"| {group} | {column} | {1e3 * least:.3g} | "
                f"{'' if peak is None else f'{peak:.3g}'} | "
                f"{'' if ours is None else f'{least / ours:.2f}'} | "
                f"{by_turns if column == 'plain' else ''} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run pytest-benchmark for ``bench_*.py``, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run only benchmarks with this in their name")
    parser.add_argument("--output", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    report: dict = {"benchmarks": []}
    # A process per file, because the allocator's state after one changes the times of the next.
    for file in sorted(HERE.glob("bench_*.py")):
        part = options.output / f"{file.stem}.json"
        part.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", str(file), "-q", "--benchmark-json", str(part)]
        command += ["--benchmark-columns=min,rounds", "--benchmark-disable-gc"]
        command += ["-p", "no:cacheprovider", "-k", options.only]
        command += ["-W", "ignore::pytest_benchmark.logger.PytestBenchmarkWarning"]
        code = subprocess.run(command, env={**os.environ, **threads}, check=False).returncode
        if code == NOTHING_CHOSEN:
            continue
        if code:
            return code
        found = json.loads(part.read_text())
        report = {**found, "benchmarks": report["benchmarks"] + found["benchmarks"]}
    (options.output / "speed.json").write_text(json.dumps(report))
    shown = table(report)
    (options.output / "speed.md").write_text(shown + "\n")
    print(shown)
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
