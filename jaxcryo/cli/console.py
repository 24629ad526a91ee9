"""`jaxcryo COMMAND`: all commands under one name, each imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from jaxcryo import __version__
from jaxcryo.calling import PROGRAM

_MODULES = {
    "phantom": ("jaxcryo.cli.phantom", "make synthetic tomograms with known particles, to try everything on"),
    "train": ("jaxcryo.cli.train", "train a network on tomograms with known picks"),
    "convert": ("jaxcryo.cli.convert", "turn trained networks into engines; weights from and to other programs"),
    "infer": ("jaxcryo.cli.infer", "find particles in tomograms"),
    "score": ("jaxcryo.cli.score", "score picks against known ones, as the CZII challenge does"),
    "picks": ("jaxcryo.cli.picks", "convert picks between formats (RELION, Dynamo, copick, ...), or choose thresholds"),
}
"""In the order in which they are used: where each is, and what it does."""

_START = """
to start, in an empty folder:
  jaxcryo infer --demo
      a phantom tomogram, the small networks that come along, picks and a score, in about a minute
  jaxcryo phantom data/phantom --runs 3
      synthetic tomograms to train on
  jaxcryo train --arch yu4u --fold 0 --data data/phantom --size small --minutes 15
      a small network; each command says at its end which one comes next

Every command explains itself: jaxcryo COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command with its own arguments, and gives its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in _MODULES:
        command, *rest = arguments
        module = importlib.import_module(_MODULES[command][0])
        code: int = module.main(rest, prog=f"{PROGRAM} {command}")
        return code
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 0
    parser.parse_args(arguments)
    raise AssertionError("what is not a command is an error to the parser")


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:8} {what}" for name, (_, what) in _MODULES.items()]
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--help] [--version] COMMAND ...",
        description="Find proteins in cryo-electron tomograms.",
        epilog="\n".join(["commands, in the order in which they are used:", *lines, _START]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("command", choices=tuple(_MODULES), metavar="COMMAND", help=argparse.SUPPRESS)
    return parser
