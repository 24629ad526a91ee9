"""The options that say how much of the work is done: which runs, over how many windows, how often."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from jaxcryo.inference.effort import EFFORTS, Effort, stride_of
from jaxcryo.inference.manifest import EngineEntry

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One of several parts of a list that together are all of it, none twice."""

    index: int
    """From 1."""
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item: neighbours in the list, which are often alike in size, are spread over the shards."""
        return list(items[self.index - 1 :: self.count])


def add_extent_options(p: argparse.ArgumentParser) -> None:
    """Adds --effort, --tta, --shard and --save-heatmaps."""
    p.add_argument(
        "--effort", choices=EFFORTS, default="full",
        help="how much windows overlap: full as the paper's, balanced and fast in a fraction of the time "
        "(docs/effort.md)",
    )  # fmt: skip
    p.add_argument("--tta", action="store_true", help="average over four flips in the plane: four times as long")
    p.add_argument(
        "--shard", type=_shard, metavar="I/N",
        help="do the I-th of N parts of the runs, without the tables; the same command without it then writes these",
    )  # fmt: skip
    p.add_argument("--save-heatmaps", action="store_true", help="keep heatmaps as OME-Zarr, in PICKS/heatmaps")


def with_effort(entry: EngineEntry, effort: Effort) -> EngineEntry:
    """The model with the stride of an effort."""
    return dataclasses.replace(entry, stride_zyx=stride_of(effort, entry.patch_zyx, entry.stride_zyx))


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; expected I/N with I from 1 to N, as 3/20")
    return Shard(index=index, count=count)
