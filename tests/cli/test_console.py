"""`jaxcryo COMMAND`, `python train.py` and their like are the same commands, each named as the user called it."""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from jaxcryo import __version__
from jaxcryo.calling import command
from jaxcryo.cli.command import Command, Group
from jaxcryo.cli.console import JAXCRYO, main
from jaxcryo.cli.convert import CheckOptions
from jaxcryo.cli.phantom import PhantomOptions
from jaxcryo.phantom import PhantomConfig

ROOT = pathlib.Path(__file__).parents[2]


def leaves(entries: Sequence[Command[Any] | Group]) -> Iterator[Command[Any]]:
    for entry in entries:
        if isinstance(entry, Group):
            yield from leaves(entry.commands)
        else:
            yield from (*entry.others, entry)


COMMANDS = {c.name: c for c in leaves(JAXCRYO.commands)}
REQUIRED = {"train": ("--arch",), "convert onnx": ("--out",), "score": ("PICKS",), "phantom": ("OUT",)}
EXAMPLES = [line for c in COMMANDS.values() for line in c.examples]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_and_names_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: jaxcryo {name} ")
    assert all(f"  jaxcryo {line}\n" in said for line in COMMANDS[name].examples)


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_are_right(line: str) -> None:
    words = shlex.split(line)
    name = next(n for n in sorted(COMMANDS, key=len, reverse=True) if words[: len(n.split())] == n.split())
    COMMANDS[name].parse(words[len(name.split()) :])


def test_most_wanted_options_come_first() -> None:
    """What a command itself holds is shown before its sets, and fits on a screen."""
    for name, entry in COMMANDS.items():
        own = [f for f in entry.options.__dataclass_fields__.values() if not str(f.type).endswith("Options")]
        assert len(own) <= 12, name


@pytest.mark.parametrize("name", REQUIRED)
def test_errors_name_the_command_and_what_is_missing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(name.split())
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert f"jaxcryo {name}" in said and all(option in said for option in REQUIRED[name])


def test_options_are_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["infer", "--engine", "out"])
    assert stopped.value.code == 2
    assert "--engines" in capsys.readouterr().err


def test_input_errors_end_with_2(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["infer", "--engines", str(tmp_path / "none")]) == 2
    assert re.fullmatch("error: .*\n", capsys.readouterr().err)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0 and capsys.readouterr().out == bare
    for entry in JAXCRYO.commands:
        assert re.search(rf"^  {entry.name} +[a-z]", bare, re.MULTILINE)


@pytest.mark.parametrize("name", ["convert", "picks"])
def test_groups_list_their_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: jaxcryo {name} ")
    assert all(c.split()[1] in said for c in COMMANDS if c.startswith(f"{name} "))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxcryo {__version__}\n"


@pytest.mark.parametrize(
    ("words", "meant"), [(["trian"], "jaxcryo train"), (["convert", "onx"], "jaxcryo convert onnx")]
)
def test_unknown_command(words: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert f"{words[-1]!r}" in (said := capsys.readouterr().err) and meant in said


NAMED = ("train", "infer --demo", "convert onnx", "picks convert")
IN_A_CHECKOUT = ("python train.py", "python infer.py --demo", "python -m convert onnx", "jaxcryo picks convert")


@pytest.mark.parametrize(
    ("started", "called"),
    [
        ("train.py", IN_A_CHECKOUT),
        ("convert/__main__.py", IN_A_CHECKOUT),
        ("jaxcryo/__main__.py", tuple(f"python -m jaxcryo {c}" for c in NAMED)),
        ("/usr/bin/jaxcryo", tuple(f"jaxcryo {c}" for c in NAMED)),
        ("/elsewhere/train.py", tuple(f"jaxcryo {c}" for c in NAMED)),
    ],
)
def test_commands_are_named_as_they_were_called(started: str, called: tuple[str, ...], monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / started)])
    assert tuple(map(command, NAMED)) == called


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (["train.py"], "python train.py"),
        (["infer.py"], "python infer.py"),
        (["-m", "convert", "onnx"], "python -m convert onnx"),
        (["-m", "jaxcryo", "score"], "python -m jaxcryo score"),
    ],
)
def test_scripts_say_their_names(words: list[str], called: str) -> None:
    result = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: {called} ") and f"\n  {called} " in result.stdout


def test_defaults_are_those_of_the_phantoms(capsys: pytest.CaptureFixture[str]) -> None:
    config = PhantomConfig()
    options = PhantomOptions(out=pathlib.Path("out"))
    assert options.shape == CheckOptions(engines=pathlib.Path("out")).shape == config.shape_zyx
    assert options.difficulty == config.difficulty
    # That of --like, else this one.
    with pytest.raises(SystemExit):
        main(["phantom", "--help"])
    assert options.voxel_spacing is None and f"else {config.spacing_angstrom}" in capsys.readouterr().out
