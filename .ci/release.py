"""Build every distribution, check the files in it, and use all of them in an empty environment.

python .ci/release.py    # or: make release
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import robustfer

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
LEFT = f"""\
Left for a person:
  1. CHANGELOG.md says what changed and has the date of today instead of "unreleased".
  2. The version is right in src/robustfer/__init__.py ({robustfer.__version__}) and CITATION.cff,
     and in the pyproject.toml of each plugin that changed.
  3. `make check` passes, and so do `make lowest` and `make newest`.
  4. git tag v{robustfer.__version__} && git push --tags
  5. python -m twine upload dist/*
"""

# What the new environment runs, outside the repository.
README_CODE = """
import pathlib, re, sys
page = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
blocks = re.findall(r"^```python\\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
names = {"__name__": "readme"}
for block in blocks:
    exec(compile(block, sys.argv[1], "exec"), names)
print(f"blocks of code run: {len(blocks)}")
"""
COMPONENTS = """
import sys
import robustfer
from robustfer import registry
assert robustfer.__file__.startswith(sys.prefix), robustfer.__file__
names = sorted(registry.available())
for name in names:
    registry.describe(name)
print(f"{len(names)} components imported")
"""
FOUND = """
import json, subprocess, sys
done = subprocess.run(
    [sys.executable, "-m", "robustfer", "plugins", "--json"], capture_output=True, check=True
)
found = {row["distribution"] for row in json.loads(done.stdout)}
missing = set(sys.argv[1:]) - found
assert not missing, f"plugins that are not found: {sorted(missing)}"
print(f"{len(found) - 1} plugins found")
"""


def build(project: Path) -> Path:
    """Build the sdist, the wheel from the sdist, and return the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST), str(project))
    name = "robustfer" if project == ROOT else project.name.replace("-", "_")
    [wheel] = DIST.glob(f"{name}-*.whl")
    [sdist] = DIST.glob(f"{name}-*.tar.gz")
    check_wheel(wheel, project / "src")
    check_sdist(sdist, project)
    return wheel


def tracked(folder: Path) -> set[str]:
    """Return the files of a folder that git tracks."""
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split("\0")) - {""}


def check_wheel(wheel: Path, source: Path) -> None:
    """Require exactly the files of the source: data files and py.typed, but no tests or runs."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found = {name for name in names if ".dist-info/" not in name}
    if found != (expected := tracked(source)):
        lack, more = sorted(expected - found), sorted(found - expected)
        sys.exit(f"{wheel.name} lacks {lack} and has {more}, compared with what git tracks")
    for needed in ("/py.typed", ".dist-info/licenses/LICENSE"):
        if not any(name.endswith(needed) for name in names):
            sys.exit(f"{wheel.name} has no file that ends with {needed}")
    print(f"  {wheel.name}: {len(found)} files", flush=True)


def check_sdist(sdist: Path, project: Path) -> None:
    """Refuse files that git does not track, such as runs and caches."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    if more := names - tracked(project) - {"PKG-INFO", ".gitignore"}:
        sys.exit(f"{sdist.name} has files that git does not track: {sorted(more)}")


def run(*command: str, cwd: Path = ROOT, shows: str = "") -> None:
    """Run a command, stop with its output if it fails, and print its last line as a result."""
    # The environment must see neither the repository's packages nor a choice of plugins.
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ROBUSTFER"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nfailed:\n{done.stdout}")
    lines = done.stdout.strip().splitlines()
    if shows:
        print(f"  {shows}: {lines[-1]}", flush=True)


def main() -> None:
    """Run the whole list."""
    for old in [*DIST.glob("robustfer*.whl"), *DIST.glob("robustfer*.tar.gz")]:
        old.unlink()
    print("Distributions in dist/:", flush=True)
    wheels = {project: build(project) for project in [ROOT, *PLUGINS]}
    # A distribution with a file OWN_ENV has requirements that conflict with those of the others.
    apart = [project for project in wheels if (project / "OWN_ENV").exists()]
    together = [project for project in wheels if project not in apart]
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder, "environment", "bin", "python"))
        venv.create(Path(folder, "environment"), with_pip=True)
        outside = Path(folder, "outside")
        outside.mkdir()
        print(f"In an empty environment, Python {sys.version.split()[0]}:", flush=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(*install, *(str(wheels[project]) for project in together))
        run(python, "-m", "pip", "check", cwd=outside, shows="pip check")
        for project in together:
            page = project / "README.md"
            shows = str(page.relative_to(ROOT))
            run(python, "-c", README_CODE, str(page), cwd=outside, shows=shows)
        run(python, "-m", "robustfer", "list", cwd=outside, shows="robustfer list ends with")
        run(
            python,
            "-m",
            "robustfer",
            "plugins",
            "--check",
            cwd=outside,
            shows="robustfer plugins --check ends with",
        )
        names = [project.name for project in together if project != ROOT]
        run(python, "-c", FOUND, *names, cwd=outside, shows="robustfer plugins --json")
        run(python, "-c", COMPONENTS, cwd=outside, shows="registry")
    for project in apart:
        print(f"Not installed, because it needs an environment of its own: {project.name}")
    print(LEFT)


if __name__ == "__main__":
    main()
