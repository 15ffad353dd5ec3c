"""Run the tests with the lowest versions that the packages declare.

python .ci/lowest.py PYTHON FOLDER [PYTEST'S ARGUMENTS]    # or: make lowest

PYTHON is the interpreter and FOLDER a new environment. What the adapters depend on needs newer
versions than the core does, so they come second, in the same environment.
"""

import re
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
EXTRAS = ["testing", "train", "onnx", "docs", "dev"]
ADAPTERS = {
    "tests/examples/test_adapters.py",
    "tests/models/test_transformers.py",
    "tests/data/test_sampling.py",
}
BOUND = re.compile(r"([\w.-]+)(?:\[.*\])?>=([\d.]+)")
# It checks types, and no test needs it.
TYPES = {"mypy"}


def projects() -> dict[Path, dict]:
    """The core and the plugins that share its environment: folder -> table of the project."""
    paths = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    return {
        path.parent: tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        for path in paths
        if not (path.parent / "OWN_ENV").exists()
    }


def lowest(lines: list[str]) -> list[str]:
    """The lowest version that each requirement with a bound allows, as constraints for pip."""
    pairs = [match.groups() for line in lines if (match := BOUND.match(line))]
    return sorted({f"{name}=={version}" for name, version in pairs if name != "robustfer"})


def main(python: str, folder: Path, arguments: list[str]) -> None:
    """Make the environment and run the tests in it."""
    extras = projects()[ROOT]["optional-dependencies"]
    core = [line for project in projects().values() for line in project["dependencies"]]
    core += [line for extra in EXTRAS for line in extras[extra]]
    tools = [pin for pin in lowest(extras["dev"]) if pin.split("==")[0] not in TYPES]
    plugins = [part for path in projects() if path != ROOT for part in ("--editable", str(path))]

    def run(*command: str) -> None:
        subprocess.run([folder / "bin" / "python", "-m", *command], cwd=ROOT, check=True)

    subprocess.run([python, "-m", "venv", folder], check=True)
    constraints = folder / "lowest.txt"
    constraints.write_text("\n".join(lowest(core)))
    pip = ["pip", "install", "--quiet", "--constraint", str(constraints)]
    run(*pip, *tools, "editables")
    editable = [f"--editable={ROOT}[{','.join(EXTRAS[:-1])}]", *plugins]
    run(*pip, "--no-build-isolation", *editable)
    tests = arguments or ["tests", *(str(path) for path in projects() if path != ROOT)]
    both = ["pytest", "-q", "--numprocesses", "2", "--dist", "loadfile"]
    run(*both, *tests, *(f"--ignore={path}" for path in ADAPTERS))
    run("pip", "install", "--quiet", *lowest(extras["adapters"]))
    run(*both, *sorted(ADAPTERS))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).absolute(), sys.argv[3:])
