"""Reading a volume slab by slab: every block once, and never the whole volume at a time."""

from __future__ import annotations

import concurrent.futures
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.config import IntensityConfig
from jaxcryo.domain import Volume
from jaxcryo.errors import InputError

_BLOCK_SLICES = 16

ReadSlices = Callable[[int, int], Float[NDArray[np.float32], "z y x"]]
"""Slices from z_start up to z_stop; starts must not descend."""


class SlabReader:
    """A volume's slices for several streams that go through it side by side.

    Blocks follow the chunks of the storage. One is dropped when all streams are past it, so that memory depends on
    how far the streams are apart and not on the volume's depth. The block that will be wanted next is read in the
    background.
    """

    def __init__(self, volume: Volume) -> None:
        chunks = getattr(volume.voxels, "chunks", None)
        chunk = int(chunks[0]) if chunks is not None and len(chunks) == 3 else 1
        self.volume = volume
        self._depth = volume.grid.shape_zyx[0]
        self._block = math.ceil(_BLOCK_SLICES / chunk) * chunk
        self._blocks: dict[int, concurrent.futures.Future[Float[NDArray[np.float32], "z y x"]]] = {}
        self._positions: list[int] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="read")

    def stream(self) -> ReadSlices:
        """A further reader; all are to be made before the first one reads."""
        index = len(self._positions)
        self._positions.append(0)

        def read(z_start: int, z_stop: int) -> Float[NDArray[np.float32], "z y x"]:
            assert self._positions[index] <= z_start < z_stop <= self._depth, "slabs are read in ascending order"
            self._positions[index] = z_start
            self._drop_before(min(self._positions))
            blocks = range(z_start // self._block, (z_stop - 1) // self._block + 1)
            for block in blocks:
                self._ask_for(block)
            if 2 * z_stop - z_start >= (blocks[-1] + 1) * self._block:
                self._ask_for(blocks[-1] + 1)
            parts = [
                self._blocks[b].result()[max(z_start - b * self._block, 0) : z_stop - b * self._block] for b in blocks
            ]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        return read

    def mean_and_std(self, config: IntensityConfig) -> tuple[float, float]:
        """What to subtract from voxels and to divide them by.

        Raises:
            InputError: the rule is `tomogram`, and all voxels are equal.
        """
        return (config.mean, config.std) if config.rule == "fixed" else self._statistics

    @functools.cached_property
    def _statistics(self) -> tuple[float, float]:
        return volume_statistics(self.volume, block=self._block)

    def _ask_for(self, block: int) -> None:
        start = block * self._block
        if block not in self._blocks and start < self._depth:
            stop = min(start + self._block, self._depth)
            self._blocks[block] = self._thread.submit(self.volume.read, start, stop)

    def _drop_before(self, z: int) -> None:
        for block in [b for b in self._blocks if (b + 1) * self._block <= z]:
            del self._blocks[block]


def volume_statistics(volume: Volume, *, block: int = _BLOCK_SLICES) -> tuple[float, float]:
    """Mean and standard deviation of a volume's voxels in one pass over blocks of slices.

    Raises:
        InputError: all voxels are equal.
    """
    count, mean, squares = 0, 0.0, 0.0
    for voxels in _blocks(volume, block):
        # Chan's update: sums of squares of unscaled voxels would lose all digits where |mean| is far above std.
        block_mean = float(voxels.mean(dtype=np.float64))
        total = count + voxels.size
        squares += float(voxels.var(dtype=np.float64)) * voxels.size
        squares += (block_mean - mean) ** 2 * count * voxels.size / total
        mean += (block_mean - mean) * voxels.size / total
        count = total
    std = math.sqrt(squares / count)
    if not std > 0:
        raise InputError(f"{volume.name}: every voxel is {mean:g}; expected a tomogram: reconstruct or copy it again")
    return mean, std


def _blocks(volume: Volume, block: int) -> Iterator[Float[NDArray[np.float32], "z y x"]]:
    depth = volume.grid.shape_zyx[0]
    for start in range(0, depth, block):
        yield volume.read(start, min(start + block, depth))
