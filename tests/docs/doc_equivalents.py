"""What stands for the documentation's commands where these need data, hours, a network or a card. Review changes here.

A command that nothing here names is run as it is written, in a folder with what its page presumes (`PRESUMED`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from doc_commands import Call

WORDS = {
    "TS_5_4": "PH_000",
    "$SLURM_ARRAY_TASK_ID/20": "1/20",
    "$SCHEDULER": "scheduler.json",
    "IN": "picks",
    "OUT": "converted",
    "DATA": "data",
    "out/": "out",
    "data/": "data",
}
"""Words of a command that stand for something else in the test."""

PRESUMED: dict[str, tuple[str, ...]] = {
    "README.md": ("data", "runs"),
    "tutorial.md": ("runs",),
    "own-particles.md": ("tomograms", "particles.csv"),
    "which-tomogram.md": ("data", "out", "tomograms", "masks"),
    "thresholds.md": ("data", "engines", "picks"),
    "correcting.md": ("picks",),
    "clusters.md": ("data", "engines"),
    "scale.md": ("data", "engines"),
    "effort.md": ("data", "engines"),
    "formats.md": ("data", "out", "picks", "tomograms.star"),
    "api.md": ("out", "tomograms", "picks"),
    "t4.md": ("engines-t4",),
    "demo.md": ("runs",),
    "servers.md": ("out",),
}
"""What a reader has when a page begins; `conftest.py` makes small ones."""

TRAINED = "jaxcryo train --arch tattaka --fold 0 --size small --minutes 30 --data tomograms --picks particles.csv"
"""The start of the one training that is run; `tests/cli` and `tests/training` run others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedOnly:
    """Commands that are parsed, not run, and why."""

    why: str
    applies: Callable[[str, str, Call], bool]
    """To the page's name, the command's text and what it calls."""


def starts(call: Call, *words: str) -> bool:
    return (call.program, *call.arguments)[: len(words)] == words


PARSED_ONLY = (
    ParsedOnly(why="written for a notebook with cards", applies=lambda page, text, call: page == "t4.md"),
    ParsedOnly(
        why="downloads, or reads a checkpoint of 1 GB", applies=lambda _p, _t, call: starts(call, "convert", "port")
    ),
    ParsedOnly(why="one of several hosts", applies=lambda _p, _t, call: bool(call.environment)),
    ParsedOnly(
        why="takes half a minute to compile; one is run",
        applies=lambda _p, text, call: call.program == "train" and not text.startswith(TRAINED),
    ),
    ParsedOnly(
        why="the README's is run",
        applies=lambda page, _t, call: page != "README.md" and starts(call, "infer", "--demo"),
    ),
    ParsedOnly(
        why="the tutorial's is run",
        applies=lambda page, _t, call: page != "tutorial.md" and starts(call, "convert", "check"),
    ),
    ParsedOnly(
        why="needs what a person decided; tests/picks/test_corrections.py applies some",
        applies=lambda _p, _t, call: starts(call, "picks", "apply"),
    ),
    ParsedOnly(
        why="takes minutes; tests/convert/test_int8.py quantizes and checks",
        applies=lambda page, _t, call: page == "int8.md" and call.program in ("convert", "infer"),
    ),
    ParsedOnly(
        why="of a map or planes that are not at hand; tests/phantom/test_commands.py runs them",
        applies=lambda _p, _t, call: starts(call, "phantom", "fit") or starts(call, "phantom", "compare"),
    ),
    ParsedOnly(
        why="starts processes; tests/cli/test_workers.py does",
        applies=lambda _p, _t, call: "--workers" in call.arguments or "--scheduler" in call.arguments,
    ),
    ParsedOnly(
        why="needs planes of a real tomogram; tests/phantom/test_commands.py compares others",
        applies=lambda _p, _t, call: starts(call, "phantom", "compare"),
    ),
    ParsedOnly(
        why="reads POPSICLE, which lies on the portal; tests/project/test_croissant.py writes manifests",
        applies=lambda _p, text, _call: "popsicle/" in text,
    ),
    ParsedOnly(
        why="asks the CryoET Data Portal; tests/project/test_portal.py asks a double",
        applies=lambda _p, _t, call: "--portal" in call.arguments,
    ),
    ParsedOnly(
        why="needs a server; tests/stores runs them against some on loopback",
        applies=lambda page, _t, call: page == "servers.md" and "--dry-run" not in call.arguments,
    ),
    ParsedOnly(
        why="replaces the project's own networks",
        applies=lambda _p, _t, call: "jaxcryo/demo" in call.arguments,
    ),
)

SMALLER: dict[str, dict[str, tuple[str, ...]]] = {
    "phantom": {"--shape": ("32", "72", "80"), "--runs": ("2",)},
    "train": {"--size": ("tiny",), "--steps": ("2",), "--minutes": ()},
}
"""Options that are replaced (added where a command is without) when it is run; those without a value are left out."""

FOREIGN = {
    "pip": "installs",
    "python -m venv": "installs",
    "virtualenv": "installs",
    ".": "installs",
    "git": "downloads",
    "%cd": "a notebook's command",
    "pytest": "is running",
    "kaggle": "downloads",
    "unzip": "of what was downloaded",
    "mkdir": "the shell's own",
    "sbatch": "needs a cluster",
    "export": "the shell's own",
    "dask": "needs a cluster; tests/cli/test_workers.py starts one",
}
"""Other programs that the documentation may call, and why they are not run."""

FOREIGN_PACKAGES = {"virtualenv", "huggingface_hub"}
"""That pip is told to install beside the project."""

FOREIGN_OPTIONS = {"--no-index", "--find-links", "--signal", "--array", "--logdir", "--memory-limit"}
"""Options of other programs that the documentation's prose mentions."""
