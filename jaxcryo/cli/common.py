"""What the commands share: errors without tracebacks, and options that mean the same everywhere."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence

from jaxcryo.errors import InputError

PARTICLES_HELP = (
    "other particle types than the challenge's: a copick config.json, or a short .toml file (docs/formats.md)"
)

Main = Callable[[Sequence[str] | None], int]


def reports_errors(main: Main) -> Main:
    """Bad input becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("stopped; what was written whole stays", file=sys.stderr)
            return 130

    return run


def parser(description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose help shows defaults and ends with examples."""
    return argparse.ArgumentParser(
        description=description,
        epilog=examples,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS) or action.required:
            return action.help
        return super()._get_help_string(action)
