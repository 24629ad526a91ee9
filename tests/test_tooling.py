"""What keeps the code in order is part of the test run."""

import pathlib
import re
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


def test_every_name_is_defined() -> None:
    """Axes in annotations are names to ruff and mypy, which therefore do not look for undefined ones."""
    command = ["ruff", "check", "--isolated", "--select", "F821", "--output-format", "concise", "jaxcryo"]
    found = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    undefined = []
    for file, line, name in re.findall(r"^(\S+?):(\d+):\d+: F821 [^`]*`(\w+)`", found.stdout, re.MULTILINE):
        code = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        if name not in re.findall(r"\w+", " ".join(re.findall(r'"[^"]*"', code))):
            undefined.append(f"{file}:{line}: {name}")
    assert undefined == []
