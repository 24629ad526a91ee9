"""The options that say how much of the work is done and how: which runs, how many windows, which peaks are picks."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import TypeVar

from jaxcryo.picking.effort import EFFORTS, Effort, stride_of
from jaxcryo.runtime.manifest import ModelEntry

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
    """Adds --effort, --tta, --merge-radius, --refine, --shard and --save-heatmaps."""
    p.add_argument(
        "--effort", choices=EFFORTS, default="full",
        help="how much windows overlap: full as the paper's, balanced and fast in a fraction of the time "
        "(docs/effort.md)",
    )  # fmt: skip
    p.add_argument("--tta", action="store_true", help="average over four flips in the plane: four times as long")
    p.add_argument(
        "--merge-radius", type=_share, metavar="SHARE",
        help="of two picks of a type closer than this share of its radius keep the better one; 0 keeps both (default: "
        "the engines' own, 0.7)",
    )  # fmt: skip
    p.add_argument(
        "--refine", action=argparse.BooleanOptionalAction,
        help="put picks between voxels, at the top of a paraboloid through the peak (default: the engines' own, yes)",
    )  # fmt: skip
    p.add_argument(
        "--shard", type=_shard, metavar="I/N",
        help="do the I-th of N parts of the runs, without the tables; the same command without it then writes these",
    )  # fmt: skip
    p.add_argument("--save-heatmaps", action="store_true", help="keep heatmaps as OME-Zarr, in PICKS/heatmaps")


def with_extent(entry: ModelEntry, args: argparse.Namespace) -> ModelEntry:
    """The model with what the options say instead of its own."""
    effort: Effort = args.effort
    chosen = {"merge_radius": args.merge_radius, "refine": args.refine}
    inference = dataclasses.replace(
        entry.inference,
        stride_zyx=stride_of(effort, entry.patch_zyx, entry.stride_zyx),
        **{k: v for k, v in chosen.items() if v is not None},
    )
    return dataclasses.replace(entry, inference=inference)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"{text} is not a share of the radius from 0 to 2")
    return value


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; expected I/N with I from 1 to N, as 3/20")
    return Shard(index=index, count=count)
