"""`jaxcryo COMMAND`: all commands under one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxcryo import __version__
from jaxcryo.calling import PROGRAM
from jaxcryo.cli.command import Group
from jaxcryo.cli.convert import CONVERT
from jaxcryo.cli.infer import INFER
from jaxcryo.cli.phantom import PHANTOM
from jaxcryo.cli.picks import PICKS
from jaxcryo.cli.publish import PUBLISH
from jaxcryo.cli.score import SCORE
from jaxcryo.cli.train import TRAIN

JAXCRYO = Group(
    name="",
    summary="Find proteins in cryo-electron tomograms.",
    commands=(PHANTOM, TRAIN, CONVERT, INFER, SCORE, PICKS, PUBLISH),
    notes="""\
to start, in an empty folder:
  jaxcryo infer --demo
      a phantom tomogram, the bundled networks, picks and a score, in about a minute
  jaxcryo phantom data/phantom --runs 3
      synthetic tomograms to train on
  jaxcryo train --arch yu4u --fold 0 --data data/phantom --size small --minutes 15
      trains a small network; each command ends by naming the next one

All options of a command, with examples: jaxcryo COMMAND --help""",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command with its own arguments, and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"{PROGRAM} {__version__}")
        return 0
    return JAXCRYO.main(arguments)
