"""What keeps the code in order is part of the test run."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--quiet", "."],
        ["ruff", "format", "--check", "--quiet", "."],
        pytest.param(["mypy"], marks=pytest.mark.slow),
        ["importlinter.cli", "lint"],
    ],
    ids=["check", "format", "mypy", "imports"],
)
def test_is_clean(command: list[str]) -> None:
    if command[0] == "importlinter.cli":
        args = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    else:
        args = [sys.executable, "-m", *command]
    result = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
