"""Plugins for tests: written as files beside their metadata, or packed and installed by pip."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from textwrap import dedent
from typing import Any
from zipfile import ZipFile

_number = itertools.count()

COMPONENT = """
def component(name, factory="package.module:attribute", reference="Doe, ICCV 2031"):
    from robustfer import Component
    return Component(name=name, factory=factory, summary=f"About {name}", reference=reference)
"""


def losses(*names: str) -> str:
    """Source of a plugin that offers losses of these names."""
    return f"""
        from robustfer import hookimpl

        @hookimpl
        def robustfer_losses():
            return [component(name) for name in {list(names)}]
    """


def package_files(
    name: str,
    *sources: str,
    distribution: str | None = None,
    version: str = "1.0",
    requires: Sequence[str] = (),
) -> dict[str, str]:
    """Files of an installed package with one plugin: a module and its metadata, path -> text.

    The sources, each unindented, make the module; it begins with a function ``component`` that
    makes a Component of a name. Each module has a
    name of its own, so that tests do not find each other's.
    """
    distribution = distribution or f"robustfer-{name}"
    module = f"{distribution.replace('-', '_')}_{next(_number)}"
    folder = f"{distribution.replace('-', '_')}-{version}.dist-info"
    about = [f"Name: {distribution}", f"Version: {version}"]
    about += [f"Requires-Dist: {requirement}" for requirement in requires]
    return {
        f"{module}.py": "\n".join([COMPONENT, *map(dedent, sources)]),
        f"{folder}/METADATA": "\n".join(["Metadata-Version: 2.1", *about, ""]),
        f"{folder}/entry_points.txt": f"[robustfer]\n{name} = {module}\n",
    }


def write_plugin(folder: Path, name: str, *sources: str, **about: Any) -> metadata.EntryPoint:
    """Write a plugin into a folder of ``sys.path`` and return its entry point."""
    files = package_files(name, *sources, **about)
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    own = [path for path in files if path.endswith("METADATA")]
    [entry_point] = metadata.Distribution.at(folder / own[0].split("/")[0]).entry_points
    return entry_point


def write_wheel(folder: Path, name: str, *sources: str, **about: Any) -> Path:
    """Pack a plugin as a wheel, which needs no build tool, and return its path."""
    files = package_files(name, *sources, **about)
    [metadata_path] = [path for path in files if path.endswith("METADATA")]
    folder_name = metadata_path.split("/")[0]
    files[f"{folder_name}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{folder_name}/RECORD"] = "".join(f"{path},,\n" for path in files)
    wheel = folder / f"{folder_name.removesuffix('.dist-info')}-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


class LayeredEnvironment:
    """A new environment that sees all packages of this one, with more installed on top by pip.

    Args:
        folder: where to make it.
        packages: wheels, and folders of packages that hatchling builds.
    """

    def __init__(self, folder: Path, packages: Sequence[Path]) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        scripts = "Scripts" if sys.platform == "win32" else "bin"
        self.python = str(folder / scripts / "python")
        paths = {"base": str(folder), "platbase": str(folder)}
        scheme = "nt" if sys.platform == "win32" else "posix_prefix"
        upper = Path(sysconfig.get_path("purelib", scheme, paths))
        # addsitedir, unlike a plain path, follows the .pth file of an editable install.
        lower = sysconfig.get_path("purelib")
        (upper / "lower.pth").write_text(f"import site; site.addsitedir({lower!r})\n")
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        pip += ["--no-index", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, *map(str, packages)], check=True)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_python(*arguments, python=self.python, **environment)


def run_python(
    *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python with these variables and no ``ROBUSTFER_PLUGINS`` but theirs."""
    inherited = {k: v for k, v in os.environ.items() if k != "ROBUSTFER_PLUGINS"}
    return subprocess.run(
        [python, *arguments], capture_output=True, text=True, env=inherited | environment
    )
