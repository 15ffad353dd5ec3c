"""Write a new plugin: a working package that its author fills with a loss."""

from __future__ import annotations

import re
from importlib.resources import files
from keyword import iskeyword
from os import PathLike
from pathlib import Path
from string import Template

from robustfer import __version__, plugins
from robustfer.hookspecs import LIMITS

# File of the package -> its template.
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "src/$module/__init__.py": "init.py.txt",
    "src/$module/losses.py": "losses.py.txt",
    "src/$module/py.typed": "py.typed.txt",
    "tests/test_$name.py": "test.py.txt",
}


def new_plugin(name: str, directory: str | PathLike[str] = ".") -> list[Path]:
    """Write a package with a plugin: a working loss, its entry point, tests and a README.

    Args:
        name: name of the plugin and its loss, such as ``"acme"`` for a package ``robustfer-acme``.
            A hyphen becomes an underscore in code.
        directory: the folder to make the package's folder in.

    Returns:
        The written files, ``pyproject.toml`` first.

    Raises:
        FileExistsError: the package's folder exists; nothing is written.
        ValueError: the name does not fit, or is taken.

    >>> new_plugin("class")
    Traceback (most recent call last):
    ...
    ValueError: NAME must not be a keyword of Python, got 'class'
    """
    name = _checked(name)
    loss = name.removesuffix("_loss")
    words = {
        "name": name,
        "package": f"robustfer-{name.replace('_', '-')}",
        "module": f"robustfer_{name}",
        "function": f"{loss}_loss",
        "loss_class": "".join(part.capitalize() for part in loss.split("_")) + "Loss",
        "version": __version__,
    }
    folder = Path(directory).expanduser() / words["package"]
    templates = files("robustfer") / "templates" / "new_plugin"
    texts = {
        folder / Template(path).substitute(words): Template(
            (templates / template).read_text(encoding="utf-8")
        ).substitute(words)
        for path, template in _FILES.items()
    }
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"{folder} exists; choose another name or directory") from None
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


def _checked(given: str) -> str:
    """Return the name of a new plugin in code, or raise if it does not fit or is taken."""
    name = given.removeprefix("robustfer-").replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise ValueError(
            "NAME must be lower-case letters and digits with single hyphens or underscores between "
            f"them, starting with a letter, such as 'acme' or 'my-loss', got {given!r}"
        )
    if len(name) > LIMITS["name"]:
        raise ValueError(
            f"NAME must have at most {LIMITS['name']} characters, got {len(name)}: {given!r}; "
            "choose a shorter one"
        )
    if iskeyword(name):
        raise ValueError(f"NAME must not be a keyword of Python, got {given!r}")
    installed = plugins.installed()
    for other in installed.names:
        if other.replace("-", "_") == name:
            raise ValueError(
                f"NAME must be new, but a plugin {other!r} is installed; choose another name"
            )
    for offer in (offer for plugin in installed for offer in plugin.offers):
        if offer.component.name == name:
            raise ValueError(
                f"NAME must be new, but plugin {offer.plugin!r} already offers {name!r}; choose "
                "another name"
            )
    return name
