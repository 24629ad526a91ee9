"""Prints the parity ladder's measured errors: `python tests/golden/ladder.py`."""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]


def main() -> None:
    """One line for each rung; exit code 1 where one is out of its tolerance."""
    from golden.rungs import LADDER

    rungs = [rung for measure in LADDER for rung in measure()]
    print("| rung | against | largest error | tolerance |\n|---|---|---|---|")
    for r in rungs:
        print(f"| {r.name} | {r.against} | {r.error:.1e} | {r.tolerance:.0e} |")
    sys.exit(any(r.error > r.tolerance for r in rungs))


if __name__ == "__main__":
    main()
