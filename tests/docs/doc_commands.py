"""How the commands of the documentation are tried: run on something small, or at least parsed by their own parsers."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jaxcryo.cli import console

OURS = tuple(console._MODULES)
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
        start = next(i for i, w in enumerate(words) if w.rpartition("/")[2] in ("python", "python3", "jaxcryo"))
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
    """A parser has accepted its arguments."""


@contextmanager
def parsing_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[argparse.ArgumentParser]]:
    """Commands end with `Parsed` as soon as their own parser has accepted the arguments; gives the parsers."""
    parse, seen = argparse.ArgumentParser.parse_args, []

    def stop(self: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        seen.append(self)
        parse(self, *args, **kwargs)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        yield seen


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of one of our commands."""
    with parsing_only(monkeypatch) as seen, pytest.raises((Parsed, SystemExit)):
        importlib.import_module(console._MODULES[command][0]).main(["--help"])
    return seen[0]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """The options of a parser and of its subcommands."""
    found = set(parser._option_string_actions)
    return found.union(*(options_of(p) for p in subcommands_of(parser).values()))


def subcommands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The subcommands of a parser by name."""
    return {
        name: sub
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, sub in action.choices.items()
    }
