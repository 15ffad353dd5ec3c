"""Train a network by any method: python -m examples.train METHOD --data KIND:PATH ..."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from examples.train.commands import COMMANDS
from examples.train.methods import METHODS
from examples.train.options import (
    PROGRAM,
    Refused,
    command_parser,
    parse,
    parse_command,
    parser_of,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return 0, or 2 after an error of one line on stderr."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0 if given else 2
    name, *rest = given
    try:
        if name in METHODS:
            return train(name, rest)
        if name in COMMANDS:
            return command(name, rest)
        raise Refused(f"{name} is not a method; choose one of {', '.join((*METHODS, *COMMANDS))}")
    except Refused as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; --resume continues after the last whole epoch" if name in METHODS else ""
        print(f"{PROGRAM}: stopped{hint}", file=sys.stderr)
        return 130


def train(name: str, arguments: Sequence[str]) -> int:
    """Train by a method, or print its help."""
    entry = METHODS[name]
    method = entry.load()
    if any(text in ("-h", "--help") for text in arguments):
        parser_of(name, method.Options, entry.summary).print_help()
        return 0
    settings = parse(name, method.Options, arguments, entry.summary)
    from examples.train.seeds import train_each_seed  # Lightning takes seconds to import

    train_each_seed(settings)
    return 0


def command(name: str, arguments: Sequence[str]) -> int:
    """Run a command for finished runs, or print its help."""
    entry = COMMANDS[name]
    try:
        module = entry.load()
    except ModuleNotFoundError as error:
        raise Refused(f"{name} needs {error.name}: pip install '.[train]'") from error
    if any(text in ("-h", "--help") for text in arguments):
        command_parser(name, module.Options, entry.summary).print_help()
        return 0
    options = parse_command(name, module.Options, arguments)
    from examples.train.engine import refusing

    with refusing():
        module.run(options)
    return 0


def overview() -> str:
    """Return the program's help: its methods and commands."""
    shown = {name: entry.summary for name, entry in METHODS.items()}
    shown |= {name: entry.summary for name, entry in COMMANDS.items()}
    lines = "\n".join(f"  {name:10} {words}" for name, words in shown.items())
    uses = f"usage: {PROGRAM} METHOD --data KIND:PATH ...\n       {PROGRAM} COMMAND RUN ..."
    return f"{uses}\n\n{lines}\n\n{PROGRAM} METHOD --help"


if __name__ == "__main__":
    sys.exit(main())
