"""`python -m convert COMMAND`: weights from and to other programs, and engines."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys

from jaxcryo.errors import InputError

COMMANDS = ("convert.port", "convert.onnx_command", "convert.engine_command", "convert.check_command", "convert.export")
"""Each module has `add_parser(subparsers)`, which sets the default `run` of its parser."""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; 0, or 2 after printing what is wrong with the input."""
    parser = argparse.ArgumentParser(prog="python -m convert", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in COMMANDS:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name).add_parser(subparsers)
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
