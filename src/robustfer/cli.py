"""The command ``robustfer``.

Each command has a function that adds its parser, and a function that runs it and returns the exit
status: 0, or 1 if the command failed. Wrong arguments exit with 2, as usual with argparse.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from textwrap import fill
from typing import TYPE_CHECKING, TypeAlias

from robustfer import __version__, _data_arguments, _shown, plugins, registry
from robustfer.hookspecs import KINDS
from robustfer.new_plugin import new_plugin
from robustfer.plugins import Plugin, PluginError, PluginWarning
from robustfer.registry import AmbiguousComponentError, UnknownComponentError

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

#: A plugin that takes more seconds to load is listed as slow.
SLOW = 0.2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of the process, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="robustfer",
        description="List components for learning from noisy labels, and work on the labels.",
    )
    parser.add_argument("--version", action="version", version=f"robustfer {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_list, _add_show, _add_plugins, _add_new_plugin, _add_noise, _add_audit):
        add(commands)
    with _every_sign_printed(), warnings.catch_warnings():
        options = parser.parse_args(arguments)
        warnings.simplefilter("always", PluginWarning)
        warnings.showwarning = _print_error
        try:
            status: int = options.run(options)
            sys.stdout.flush()
        except (AmbiguousComponentError, PluginError, UnknownComponentError) as error:
            _print_error(error)
            return 1
        except KeyboardInterrupt:
            _print_error("interrupted")
            # 128 + SIGINT, as in shells.
            return 130
        except BrokenPipeError:
            # `robustfer list | head` closes the pipe early. Without this, Python would fail when it
            # flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
    return status


@contextmanager
def _every_sign_printed() -> Iterator[None]:
    """Print "?" for a character that the console cannot show, such as Greek on Windows.

    One character replaces one, so the columns of tables stay aligned.
    """
    with ExitStack() as after:
        for stream in (sys.stdout, sys.stderr):
            before = getattr(stream, "errors", None)
            if before in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
                after.callback(stream.reconfigure, errors=before)
        yield


def _add_list(commands: Commands) -> None:
    parser = commands.add_parser("list", help="list losses and augmentations")
    parser.add_argument("kind", nargs="?", choices=KINDS, help="list only these")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    # Plugins may print while they are imported.
    with redirect_stdout(sys.stderr):
        offers = registry.available(options.kind)
    if options.json:
        rows = [
            {
                "name": name,
                "kind": offer.kind,
                "plugin": offer.plugin,
                "summary": offer.component.summary,
                "reference": offer.component.reference,
            }
            for name, offer in offers.items()
        ]
        print(json.dumps(rows, indent=2))
    else:
        _print_table(
            (name, offer.kind, offer.plugin, offer.component.summary)
            for name, offer in offers.items()
        )
    return 0


def _add_show(commands: Commands) -> None:
    parser = commands.add_parser("show", help="show options, tensors and origin of a component")
    parser.add_argument("name", help="name in the list, or PLUGIN:NAME")
    parser.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> int:
    with redirect_stdout(sys.stderr):
        described = registry.describe(options.name)
    print(f"{described.name}  ({described.kind})\n{described.summary}\n")
    print(fill(_shown.line(described.signature), 100, subsequent_indent="    "), end="\n\n")
    origin = f"{described.source}, plugin {described.plugin}"
    if described.distribution:
        origin += f" of {described.distribution} {described.version}"
    sections = {
        "options": [
            f"{option}{' (required)' if option.required else ''}  {option.meaning}"
            for option in described.options
        ],
        "tensors": [
            f"{tensor.name}{'' if tensor.required else ' (optional)'}  {tensor.shape}"
            for tensor in described.tensors
        ],
        "gives": [described.result] if described.result else [],
        "state": [
            f"{one.signature}  {one.when}{one.meaning and f': {one.meaning}'}"
            for one in described.state
        ],
        "reference": [described.reference],
        "from": [origin],
    }
    for title, lines in sections.items():
        _print_section(title, lines)
    return 0


def _add_plugins(commands: Commands) -> None:
    parser = commands.add_parser("plugins", help="list plugins, their components and failures")
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument(
        "--check",
        action="store_true",
        help="also import all components; exit with 1 if anything failed",
    )
    parser.set_defaults(run=_plugins)


def _plugins(options: argparse.Namespace) -> int:
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        # The failures are printed below.
        warnings.simplefilter("ignore", PluginWarning)
        found = list(plugins.installed())
    if options.check:
        found = _checked(found)
    if options.json:
        print(json.dumps([_plugin_row(plugin) for plugin in found], indent=2))
    else:
        _print_plugins(found)
    return int(options.check and any(plugin.errors for plugin in found))


def _checked(found: Sequence[Plugin]) -> list[Plugin]:
    """Return the plugins with the errors found by importing all their components."""
    names = [plugin.name for plugin in found[1:] if plugin.offers]
    if not names:
        return list(found)
    from robustfer import _plugin_check

    faults = _plugin_check.faults(names)
    return [
        replace(plugin, errors=(*plugin.errors, *map(PluginError, faults.get(plugin.name, ()))))
        for plugin in found
    ]


def _plugin_row(plugin: Plugin) -> dict[str, object]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "blocked": plugin.blocked,
        **{kind: _names(plugin, kind) for kind in KINDS},
        "errors": [str(error) for error in plugin.errors],
        "seconds": round(plugin.seconds, 3),
        "slow": plugin.seconds > SLOW,
        "imports": list(plugin.heavy),
    }


def _print_plugins(found: Sequence[Plugin]) -> None:
    _print_table(
        (plugin.name, plugin.version or "", plugin.distribution or "", _state(plugin))
        for plugin in found
    )
    failures = [str(error) for plugin in found for error in plugin.errors]
    slow = [
        f"{plugin.name}: {plugin.seconds:.2f} s"
        + (f", imports {', '.join(plugin.heavy)}" if plugin.heavy else "")
        for plugin in found
        if plugin.seconds > SLOW
    ]
    rivals: dict[str, list[str]] = {}
    for offer in (offer for plugin in found for offer in plugin.offers):
        rivals.setdefault(offer.component.name, []).append(offer.qualified_name)
    shared = [
        f"{name}: write {' or '.join(names)}" for name, names in rivals.items() if len(names) > 1
    ]
    _print_section("\nfailures", failures)
    _print_section("\nslow to load", slow)
    _print_section("\nnames offered more than once", shared)


def _state(plugin: Plugin) -> str:
    """Return what a plugin offers, or why it offers nothing."""
    offered = [f"{kind}: {', '.join(names)}" for kind in KINDS if (names := _names(plugin, kind))]
    if plugin.blocked:
        offered.append(f"left out by {plugins.VARIABLE}")
    if plugin.errors:
        offered.append("FAILED")
    return "; ".join(offered) or "offers nothing"


def _names(plugin: Plugin, kind: str) -> list[str]:
    return [offer.component.name for offer in plugin.offers if offer.kind == kind]


def _add_new_plugin(commands: Commands) -> None:
    parser = commands.add_parser("new-plugin", help="write a package for your own loss")
    parser.add_argument("name", metavar="NAME", help="such as acme, for a package robustfer-acme")
    parser.add_argument(
        "--directory", metavar="DIR", default=".", help="where to make its folder (default: here)"
    )
    parser.set_defaults(run=_new_plugin)


def _new_plugin(options: argparse.Namespace) -> int:
    try:
        with redirect_stdout(sys.stderr):
            written = new_plugin(options.name, options.directory)
    except (OSError, ValueError) as error:
        _print_error(error)
        return 1
    print("wrote", *written, sep="\n  ")
    steps = ["cd", str(written[0].parent)], ["pip", "install", "-e", ".[test]"], ["pytest"]
    print("next", *map(_shown.command, steps), sep="\n  ")
    return 0


def _add_noise(commands: Commands) -> None:
    parser = commands.add_parser("noise", help="make, show and verify noisy labels")
    _data_arguments.add_noise_actions(parser)
    parser.set_defaults(run=_noise)


def _noise(options: argparse.Namespace) -> int:
    with plugins.torch_importable():
        # Imported here, because the other commands do not need torch.
        from robustfer.noise import commands
    return _run_on_files(commands.run, options)


def _add_audit(commands: Commands) -> None:
    parser = commands.add_parser("audit", help="find, review and correct wrong labels")
    _data_arguments.add_audit(parser)
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    with plugins.torch_importable():
        from robustfer.audit import commands
    return _run_on_files(commands.run, options)


def _run_on_files(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    try:
        return run(options)
    except BrokenPipeError:
        raise
    except (OSError, ImportError, ValueError) as error:
        _print_error(error)
        return 1


def _print_section(title: str, lines: Sequence[str]) -> None:
    """Print lines under a title, or nothing without lines."""
    if lines:
        print(title)
    for line in map(_shown.line, lines):
        print(fill(line, 100, initial_indent="  ", subsequent_indent="      "))


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows, with all columns except the last padded to one width."""
    cells = [tuple(map(_shown.line, row)) for row in rows]
    if cells:
        print(_shown.table(cells, "<" * len(cells[0])))


def _print_error(message: BaseException | str, *_: object, **__: object) -> None:
    """Print a line. As ``warnings.showwarning`` it leaves out the place in the code."""
    print(f"robustfer: {_shown.line(str(message))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
