"""Reading a volume slab by slab: every block once, and never the whole volume at a time."""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Volume

_BLOCK_SLICES = 16

ReadSlices = Callable[[int, int], Float[NDArray[np.float32], "z y x"]]
"""Slices from z_start up to z_stop; starts must not descend."""


class SlabReader:
    """A volume's slices for several streams that read it in parallel.

    Blocks follow the chunks of the storage. One is dropped when all streams are past it, so that memory depends on
    how far the streams are apart and not on the volume's depth. The block that will be wanted next is read in the
    background.
    """

    def __init__(self, volume: Volume) -> None:
        chunks = getattr(volume.voxels, "chunks", None)
        chunk = int(chunks[0]) if chunks is not None and len(chunks) == 3 else 1
        self._volume = volume
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

    def _ask_for(self, block: int) -> None:
        start = block * self._block
        if block not in self._blocks and start < self._depth:
            stop = min(start + self._block, self._depth)
            self._blocks[block] = self._thread.submit(self._volume.read, start, stop)

    def _drop_before(self, z: int) -> None:
        for block in [b for b in self._blocks if (b + 1) * self._block <= z]:
            del self._blocks[block]
