"""Output that fails changes neither the work nor the exit code; progress off a terminal is lines."""

import os
import pathlib
import subprocess
import sys

import pytest

WORK = """
import sys
from jaxcryo.output import forgiving_output
with forgiving_output():
    for i in range(20000):
        print("line", i, "of 10 Å × 3")
    print("an error: 5 Å", file=sys.stderr)
    open(sys.argv[1], "w").write("done")
sys.exit(3)
"""


ALL_FULL = "> /dev/full 2>&1"


def run(folder: pathlib.Path, redirection: str, **environment: str) -> tuple[int, str]:
    """The exit code of a program whose output goes where the shell says, and what the shell shows."""
    script = folder / "work.py"
    script.write_text(WORK, encoding="utf-8")
    command = f"{{ '{sys.executable}' '{script}' '{folder / 'done'}'; echo code $? >&3; }} {redirection}"
    root = str(pathlib.Path(__file__).parents[1])
    shell = subprocess.run(
        ["bash", "-c", f"exec 3>'{folder / 'code'}'; {command}"],
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        timeout=60,
    )
    assert (folder / "done").read_text() == "done"
    return int((folder / "code").read_text().split()[1]), (shell.stdout + shell.stderr).decode()


@pytest.mark.parametrize(
    "redirection", ["| head -1", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-", "> /dev/full 2>&1"]
)
def test_output_that_fails_hides_nothing(tmp_path, redirection) -> None:
    code, shown = run(tmp_path, redirection)
    assert code == 3
    assert "Traceback" not in shown and "Exception ignored" not in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["code", "done", "work.py"]


def test_a_full_disk_is_said_once(tmp_path) -> None:
    code, shown = run(tmp_path, "> /dev/full")
    assert code == 3 and shown.count("No space left on device") == 1 and "an error: 5" in shown


def test_an_ascii_terminal_gets_what_it_can_show(tmp_path) -> None:
    code, shown = run(tmp_path, "", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert code == 3 and "of 10 A x 3" in shown and "an error: 5 A" in shown
