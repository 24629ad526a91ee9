"""The one convention: a command is a frozen record of options, read from the command line by tyro, and its action.

The modules that declare options import neither JAX nor NumPy, so that help comes at once. An action is imported when
the options are right.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, TypeVar

import tyro

from jaxcryo.calling import PROGRAM, command
from jaxcryo.errors import InputError
from jaxcryo.interrupt import ends_at_once
from jaxcryo.output import forgiving_output

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(Generic[Options]):
    """A command: its name, the record of its options, and the function that runs it."""

    name: str
    summary: str
    """What it does, in one line, for the list of commands."""
    options: type[Options]
    """A frozen dataclass. Its docstring is the description, its fields' docstrings are the help texts. Fields of the
    record are shown first, and then a set for each record in it."""
    action: str
    """`module:function`, which takes the options and returns the exit code, or None for 0."""
    examples: Mapping[str, str]
    """Command lines as after `jaxcryo`, and what they do."""
    notes: str = ""
    """Further text at the end of the help."""
    others: Sequence[Command[Any]] = ()
    """Subcommands, which the first argument may name."""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command and returns its exit code.

        Bad input becomes one line on stderr and exit code 2, Ctrl-C exit code 130.
        """
        first, *rest = (sys.argv[1:] if argv is None else argv) or [""]
        for other in self.others:
            if other.name.split()[-1] == first:
                return other.main(rest)
        with (
            forgiving_output(),
            ends_at_once(message="interrupted; completed files were kept"),
            warnings.catch_warnings(),
        ):
            warnings.showwarning = _show_as_note
            try:
                options = self.parse(sys.argv[1:] if argv is None else argv)
                module, _, name = self.action.partition(":")
                return getattr(importlib.import_module(module), name)(options) or 0
            except InputError as error:
                print(f"error: {error}", file=sys.stderr)
                return 2

    def parse(self, argv: Sequence[str]) -> Options:
        """Reads the options from the arguments.

        Raises:
            SystemExit: with 2 after saying what is wrong with them, with 0 after help.
        """
        # Options of nested records have plain names, and a switch is there for the value that is not the default.
        config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
        try:
            return tyro.cli(self.options, prog=command(self.name), args=argv, config=config)
        except SystemExit as stopped:
            if not stopped.code:
                print(self._teaching())
            raise

    def _teaching(self) -> str:
        lines = ["examples:"]
        for line, what in self.examples.items():
            lines += [f"  {command(line)}", f"      {what}"]
        return "\n".join([*lines, *(["", self.notes] if self.notes else [])])


_show = warnings.showwarning


def _show_as_note(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Warnings of this project are meant for users: one line, without the place in the code."""
    if category is UserWarning:
        print(f"note: {message}", file=sys.stderr)
    else:
        _show(message, category, *place, **more)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Commands that share their first word."""

    name: str
    summary: str
    commands: Sequence[Command[Any] | Group]
    """In the order in which they are used."""
    notes: str = ""
    """The end of the help text."""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command that the first argument names; without arguments, and for --help, lists the commands."""
        first, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
        called = command(self.name) if self.name else PROGRAM
        names = {c.name.split()[-1]: c for c in self.commands}
        if first in ("-h", "--help"):
            lines = [f"  {name:10} {c.summary}" for name, c in names.items()]
            parts = [
                f"usage: {called} [--help] COMMAND ...",
                self.summary,
                "\n".join(["commands:", *lines]),
                self.notes,
            ]
            print("\n\n".join(part for part in parts if part))
            return 0
        if first in names:
            return names[first].main(rest)
        close = difflib.get_close_matches(first, names, n=1)
        hint = f"did you mean {called} {close[0]}?" if close else f"expected one of {', '.join(names)}"
        print(f"error: {called} has no command {first!r}; {hint}", file=sys.stderr)
        return 2


def shown(metavar: str | None = None, *, default: str | None = None, name: str | None = None) -> Any:
    """How help shows an option: a placeholder for its value, and its default in words where needed."""

    def hint(value: str) -> str:
        said = default if value in ("None", "False", "True", "") else value
        return "" if said is None else f"(default: {said})"

    return tyro.conf.arg(name=name, metavar=metavar, help_behavior_hint=hint)


Switch = Annotated[bool, shown()]
"""An option without a value: `--name` where the default is False, `--no-name` where it is True."""


def check_above_zero(**values: float | None) -> None:
    """Raises InputError if the option of this name is not above 0; None means that it was not given."""
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name.replace('_', '-')} is {value:g}; expected a number above 0")
