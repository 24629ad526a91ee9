"""What the commands are called: `python train.py` in a checkout, `jaxcryo train` wherever the project is installed.

Imports nothing of the project.
"""

from __future__ import annotations

import re

PROGRAM = "jaxcryo"
_IN_A_CHECKOUT = re.compile(
    r"\bpython (?:-m (?:jaxcryo\.)?)?(train|infer|convert|phantom|score|picks)(?:\.py)?(?=[\s'`:]|$)"
)


def as_called(text: str, prog: str) -> str:
    """A help text with its commands as the user calls them: as written, or as subcommands of `jaxcryo`."""
    return _IN_A_CHECKOUT.sub(rf"{PROGRAM} \1", text) if prog.startswith(f"{PROGRAM} ") else text
