"""What the commands share: errors without tracebacks, and options that mean the same everywhere."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from jaxcryo.calling import as_called
from jaxcryo.errors import InputError
from jaxcryo.interrupt import ends_at_once
from jaxcryo.output import forgiving_output

PARTICLES_HELP = (
    "other particle types than the challenge's: a copick config.json, or a short .toml file (docs/formats.md)"
)

P = ParamSpec("P")


def reports_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Bad input becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        with forgiving_output(), ends_at_once(message="interrupted; completed files were kept"):
            try:
                return main(*args, **kwargs)
            except InputError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2

    return run


def parser(description: str, examples: str, prog: str) -> argparse.ArgumentParser:
    """A parser whose help shows defaults and ends with examples, under the name that it was called by."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=as_called(examples, prog),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS) or action.required:
            return action.help
        return super()._get_help_string(action)
