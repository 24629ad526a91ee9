"""From a tomogram's intensities to the networks' input: one rule, for training and picking."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.config import IntensityConfig
from jaxcryo.domain import Volume
from jaxcryo.tomogram.statistics import surveyed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization:
    """(v - center) / scale, limited to ±`clip`; 0 where there is no data."""

    center: float
    scale: float
    clip: float | None = None

    def __call__(self, voxels: Float[NDArray[np.float32], "*b"]) -> Float[NDArray[np.float32], "*b"]:
        changed = (voxels - np.float32(self.center)) / np.float32(self.scale)
        if self.clip is not None:
            np.clip(changed, -self.clip, self.clip, out=changed)
        np.copyto(changed, np.float32(0), where=np.isnan(changed))
        return changed


def normalization(volume: Volume, config: IntensityConfig) -> Normalization:
    """The volume normalized by the config's rule; its statistics are computed unless known or the rule is `fixed`.

    Raises:
        InputError: the volume cannot be read, holds no data, or all voxels are equal.
    """
    if config.rule == "fixed":
        return Normalization(center=config.mean, scale=config.std, clip=config.clip)
    found = surveyed(volume).statistics
    if config.rule == "tomogram":
        return Normalization(center=found.mean, scale=found.std, clip=config.clip)
    return Normalization(center=found.median, scale=found.deviation, clip=config.clip)


def scaled(volume: Volume, *, gain: float, offset: float = 0.0) -> Volume:
    """The volume with each voxel times `gain` plus `offset`; -1 is the opposite contrast."""
    voxels = _Scaled(array=volume.voxels, gain=gain, offset=offset)
    return Volume(name=volume.name, voxels=voxels, grid=volume.grid, has_gaps=volume.has_gaps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scaled:
    """An array that is scaled when it is sliced; slicing reads."""

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
