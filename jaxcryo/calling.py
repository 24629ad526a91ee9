"""How the user calls the commands: `python train.py` in a checkout, `jaxcryo train` where the package is installed.

Imports nothing of the project, so that every message can use it.
"""

from __future__ import annotations

import pathlib
import sys

PROGRAM = "jaxcryo"

_CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
_SCRIPTS = {"train": "train.py", "infer": "infer.py", "convert": "convert/__main__.py"}
_CALLED = {"train": "python train.py", "infer": "python infer.py", "convert": "python -m convert"}


def command(line: str) -> str:
    """A command line as this user would type it, from its words after `jaxcryo`, such as `infer --demo`.

    A user who started `train.py`, `infer.py` or `python -m convert` is shown that form, also by child processes.
    """
    name, _, rest = line.partition(" ")
    started = pathlib.Path(sys.argv[0] if sys.argv else "").resolve()
    if name in _CALLED and started in [_CHECKOUT / script for script in _SCRIPTS.values()]:
        called = _CALLED[name]
    elif started == _CHECKOUT / PROGRAM / "__main__.py":
        called = f"python -m {PROGRAM} {name}"
    else:
        called = f"{PROGRAM} {name}"
    return f"{called} {rest}" if rest else called
