"""`python -m convert COMMAND`: weights from and to other programs, and engines."""

from __future__ import annotations

import argparse
import sys

from jaxcryo.calling import as_called
from jaxcryo.convert import check_command, engine_command, export, onnx_command, port
from jaxcryo.errors import InputError

COMMANDS = (port, onnx_command, engine_command, check_command, export)
"""In the order in which they are used; each adds its parser, and says in its default `run` what to do."""


def main(arguments: list[str] | None = None, *, prog: str = "python -m convert") -> int:
    """Runs a command; 0, or 2 after printing what is wrong with the input."""
    parser = argparse.ArgumentParser(prog=prog, description=as_called(__doc__ or "", prog))
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    for added in subparsers.choices.values():
        added.description, added.epilog = (as_called(text or "", prog) for text in (added.description, added.epilog))
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
