"""How the commands of the documentation are tried: run on something small, or at least parsed by their own parsers."""

from __future__ import annotations

import dataclasses
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, NoReturn

import pytest

from jaxcryo.cli.command import Command
from jaxcryo.cli.console import JAXCRYO

OURS = tuple(entry.name for entry in JAXCRYO.commands)
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_ARRAY = re.compile(r"[A-Z_]+=\([^()]*\)")
_WRAPPERS = ("srun", "nsys")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A command of the documentation: one of ours with its arguments, or another program."""

    program: str
    """A command of `jaxcryo`, `jaxcryo` itself, `python -c`, or the name of another program; empty for assignments."""
    arguments: tuple[str, ...]
    environment: tuple[str, ...] = ()
    wrapper: str = ""

    @property
    def is_ours(self) -> bool:
        return self.program in (*OURS, "jaxcryo")


def understand(command: str) -> Call:
    """What a command calls, under whatever name and wrapper."""
    if _ARRAY.fullmatch(command):
        return Call(program="", arguments=())
    words = shlex.split(command, comments=True)
    environment = []
    while words and _ASSIGNMENT.fullmatch(words[0]):
        environment.append(words.pop(0))
    wrapper = ""
    if words and words[0] in _WRAPPERS:
        wrapper = words[0]
        start = next(i for i, w in enumerate(words) if w.rpartition("/")[2] in ("python", "python3", "jaxcryo", "dask"))
        words = words[start:]
    if not words:
        return Call(program="", arguments=(), environment=tuple(environment))
    program, rest = words[0].rpartition("/")[2], words[1:]
    if program == "jaxcryo" and rest and rest[0] in OURS:
        program, rest = rest[0], rest[1:]
    elif program in ("python", "python3") and rest:
        program, rest = _of_python(rest)
    return Call(program=program, arguments=tuple(rest), environment=tuple(environment), wrapper=wrapper)


def _of_python(words: list[str]) -> tuple[str, list[str]]:
    if words[0] in ("train.py", "infer.py"):
        return words[0].removesuffix(".py"), words[1:]
    if words[0] == "-m":
        module = words[1].removeprefix("jaxcryo.")
        return (module if module in (*OURS, "jaxcryo") else f"python -m {module}"), words[2:]
    return f"python {words[0]}", words[1:]


class Parsed(Exception):  # noqa: N818 - not an error
    """A command has accepted its arguments."""


@contextmanager
def parsing_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands end with `Parsed` as soon as they have accepted their arguments."""
    parse = Command.parse

    def stop(self: Command[Any], argv: Sequence[str]) -> NoReturn:
        parse(self, argv)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(Command, "parse", stop)
        yield


def commands_of(name: str) -> dict[str, Command[Any]]:
    """The commands behind a word of `jaxcryo`, by their second word; a single one has none."""
    entry = next(c for c in JAXCRYO.commands if c.name == name)
    own, others = ({"": entry}, entry.others) if isinstance(entry, Command) else ({}, entry.commands)
    return own | {c.name.split()[1]: c for c in others if isinstance(c, Command)}


_SEEN: dict[str, set[str]] = {}


def options_of(entry: Command[Any]) -> set[str]:
    """The options of a command, as its help shows them."""
    if entry.name not in _SEEN:
        shown = io.StringIO()
        with redirect_stdout(shown), suppress(SystemExit):
            entry.parse(["--help"])
        _SEEN[entry.name] = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown.getvalue()))
    return _SEEN[entry.name]
