"""Volumes whose intensities are changed as they are read: of the opposite contrast, or on another scale."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Volume


def scaled(volume: Volume, *, gain: float, offset: float = 0.0) -> Volume:
    """The volume with each voxel times `gain` plus `offset`; -1 is the opposite contrast."""
    return dataclasses.replace(volume, voxels=_Scaled(array=volume.voxels, gain=gain, offset=offset))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scaled:
    """An array as it is sliced and then scaled; slicing reads."""

    array: Any
    gain: float
    offset: float

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        return getattr(self.array, "chunks", None)

    def __getitem__(self, key: Any) -> Float[NDArray[np.float32], "..."]:
        return np.asarray(self.array[key], np.float32) * np.float32(self.gain) + np.float32(self.offset)
