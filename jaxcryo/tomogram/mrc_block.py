"""Where the voxels begin in an MRC file, whose length and extended header may contradict the header."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxcryo.errors import InputError

HEADER_BYTES = 1024
_SAMPLE = 2**16
"""Most values that are compared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataBlock:
    """Where the voxels begin in a file."""

    path: pathlib.Path
    stream: Any
    kind: np.dtype[Any]
    size: int
    needed: int
    header: Any

    def offset(self, told: list[str]) -> int:
        """Raises InputError if that is not clear, or the file is too short."""
        extended = int(self.header["extended"])
        announced = HEADER_BYTES + extended + self.needed
        if extended >= 0 and self.size == announced:
            return HEADER_BYTES + extended
        if extended > 0 and self.size == HEADER_BYTES + self.needed:
            told.append(
                f"its header announces an extended header of {extended} bytes, which is not there: voxels are read "
                "from where it would be"
            )
            return HEADER_BYTES
        if extended < 0 or self.size < announced:
            sections = max(self.size - HEADER_BYTES - max(extended, 0), 0) // (
                self.needed // int(self.header["size"][2])
            )
            cause = (
                f"it is truncated (it holds {sections} of {int(self.header['size'][2])} sections)"
                if extended == 0 or self.size < HEADER_BYTES + self.needed
                else f"it is truncated, or its extended header is shorter than the {extended} bytes it announces"
            )
            raise InputError(
                f"{self.path}: has {self.size} bytes; its header announces {announced} ({HEADER_BYTES} + {extended} + "
                f"{self.needed}): {cause}; copy it again, or write it anew"
            )
        return self._of_longer_file(extended, announced, told)

    def _of_longer_file(self, extended: int, announced: int, told: list[str]) -> int:
        """Either the voxels end with the file, after an unannounced extended header, or something follows them.

        The bytes in question decide: if they are voxels, they look like the others.
        """
        early, late = HEADER_BYTES + extended, self.size - self.needed
        excess = self.size - announced
        length = min(excess, self.needed) // self.kind.itemsize * self.kind.itemsize
        shared = early + self.needed - late
        usual = self._middle(late, shared)  # voxels in either case
        at_start = _are_alike(self._read(early, length=length, near=early), usual)
        at_end = _are_alike(self._read(self.size - length, length=length, near=late), usual)
        section = self.needed // int(self.header["size"][2])
        longer = f"its file is {excess} bytes longer than its header announces"
        if at_end and not at_start:
            told.append(f"{longer}: an extended header of {late - HEADER_BYTES} bytes was assumed")
            return late
        if at_start and not at_end:
            told.append(f"{longer}: the bytes after the voxels are left out")
            return early
        if at_start and excess % section == 0:
            told.append(f"{longer}, as if it held {excess // section} more sections: those are left out")
            return early
        raise InputError(
            f"{self.path}: {longer} ({self.size} and {announced}), and it cannot be told where its voxels begin: an "
            "extended header that is not announced (nsymbt), a wrong number of sections, or a wrong mode; write it "
            "anew with the program that made it"
        )

    def sample(self, offset: int) -> NDArray[Any]:
        """Values from the middle of the data block."""
        return self._middle(offset, self.needed)

    def _middle(self, start: int, length: int) -> NDArray[Any]:
        taken = min(max(length, 0), _SAMPLE * self.kind.itemsize)
        return self._read(start + (length - taken) // 2, length=taken, near=start)

    def _read(self, start: int, *, length: int, near: int) -> NDArray[Any]:
        """At most a sample of values from `start` on, or from the next place a whole number of values away from `near`;
        from the end of the file if there are fewer."""
        length = min(length, _SAMPLE * self.kind.itemsize)
        start = max(min(start, self.size - length), near)
        start += (near - start) % self.kind.itemsize
        self.stream.seek(start)
        data = self.stream.read(length)
        return np.frombuffer(data[: len(data) // self.kind.itemsize * self.kind.itemsize], self.kind)


def _are_alike(values: NDArray[Any], others: NDArray[Any]) -> bool:
    """Whether values are distributed like others."""
    one, two = values.astype(np.float64), others.astype(np.float64)
    if not len(one) or not len(two) or not np.isfinite(one).all() or not np.isfinite(two).all():
        return False
    low, quarter, median, three_quarters, high = np.quantile(two, (0, 0.25, 0.5, 0.75, 1))
    reach = 2 * (high - low)
    own, usual = float(np.quantile(one, 0.75) - np.quantile(one, 0.25)), three_quarters - quarter
    return bool(
        np.mean((one >= low - reach) & (one <= high + reach)) > 0.999
        and usual / 4 <= own <= 4 * usual
        and abs(np.median(one) - median) <= 4 * usual
    )
