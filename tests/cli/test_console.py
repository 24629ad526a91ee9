"""`jaxcryo COMMAND` is the command of that name, under its own name."""

from __future__ import annotations

import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

from jaxcryo import __version__
from jaxcryo.calling import as_called
from jaxcryo.cli import console

ROOT = pathlib.Path(__file__).parents[2]
COMMANDS = tuple(console._MODULES)
REQUIRED = {
    "train": "--arch, --fold",
    "convert": "COMMAND",
    "score": "PICKS",
    "picks": "COMMAND",
    "phantom": "OUT",
}


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        console.main([*arguments, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_calls_the_commands_as_the_user_did(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys, command)
    assert said.startswith(f"usage: jaxcryo {command} ")
    epilog = said[said.index("\n\n") :]
    assert not re.search(r"^ .*python (train|infer)\.py", epilog, re.MULTILINE)


@pytest.mark.parametrize("command", sorted(REQUIRED))
def test_errors_name_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        console.main([command])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert f"jaxcryo {command}: error: the following arguments are required: {REQUIRED[command]}" in said


def test_input_errors_end_with_2(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main(["infer", "--engines", str(tmp_path / "none")]) == 2
    assert "error: " in capsys.readouterr().err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main([]) == 0
    bare = capsys.readouterr().out
    assert bare == help_of(capsys)
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[a-z]", bare, re.MULTILINE)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        console.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"jaxcryo {__version__}\n"


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        console.main(["trian"])
    assert stopped.value.code == 2
    assert "'trian'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("python train.py --arch yu4u", "jaxcryo train --arch yu4u"),
        ("that 'python -m convert onnx' wrote", "that 'jaxcryo convert onnx' wrote"),
        ("jaxcryo picks convert a b", "jaxcryo picks convert a b"),
        ("python -m convert: weights", "jaxcryo convert: weights"),
        ("python -c 'import jaxcryo'", "python -c 'import jaxcryo'"),
    ],
)
def test_text_as_called(written: str, called: str) -> None:
    assert as_called(written, "jaxcryo train") == called
    assert as_called(written, "python train.py") == written


@pytest.mark.parametrize("command", COMMANDS)
def test_the_other_names_stay(command: str) -> None:
    """Without `jaxcryo` a command goes by the script's or the module's name."""
    module = importlib.import_module(console._MODULES[command][0])
    names = {"train": "python train.py", "infer": "python infer.py", "convert": "python -m convert"}
    default = inspect.signature(module.main).parameters["prog"].default
    assert default == names.get(command, f"python -m jaxcryo.{command}")


def test_script_says_its_name() -> None:
    result = subprocess.run(
        [sys.executable, "train.py", "--fold", "0"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "python train.py: error: the following arguments are required: --arch" in result.stderr
