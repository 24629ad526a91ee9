"""Where the batches of a training come from."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from jaxcryo.config import TrainConfig
from jaxcryo.data.collection import Collection, check_sizes, collect, epoch_grid, rows_of_step
from jaxcryo.data.marks import Marks, known_voxels
from jaxcryo.data.samples import Batch
from jaxcryo.data.streaming import StreamedWindows
from jaxcryo.domain import Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.picking.preprocess import SPACING_TOLERANCE
from jaxcryo.tomogram.resample import resampled
from jaxcryo.training.step import replicate

# Volumes stay on the device up to this size; beyond it windows are cut from the files.
_RESIDENT_BYTES_CPU = 6e9
_RESIDENT_SHARE_GPU = 0.3


FarBelow = Callable[[], Iterable[tuple[int, UInt8[NDArray[np.uint8], "c d y x"]]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A tomogram with its picks."""

    volume: Volume
    picks: Picks
    marks: Marks | None = None
    """What else is known of it if its labels are partial."""
    far_below: FarBelow | None = None
    """Yields, slab by slab, which voxels the starting model is sure are background; None without such a model."""


def at_one_spacing(examples: Sequence[Example], note: Callable[[str], object]) -> list[Example]:
    """The examples at their median voxel spacing; a note names each one that is resampled to it.

    Raises:
        InputError: spacings are too far apart for all to be right.
    """
    own = sorted(e.volume.grid.spacing_angstrom for e in examples)
    spacing = own[len(own) // 2]
    return [dataclasses.replace(e, volume=_at_spacing(e.volume, spacing, note)) for e in examples]


def _at_spacing(volume: Volume, spacing_angstrom: float, note: Callable[[str], object]) -> Volume:
    own = volume.grid.spacing_zyx_angstrom
    if all(abs(s / spacing_angstrom - 1) <= SPACING_TOLERANCE for s in own):
        return volume
    note(
        f"{volume.name}: resampled from {' × '.join(f'{s:.3f}' for s in own)} Å to {spacing_angstrom:.3f} Å, the "
        "spacing of this training (if the file's spacing is wrong, pass the true one with --voxel-spacing)"
    )
    return resampled(volume, spacing_angstrom)


class SampleSource(Protocol):
    """What `fit` trains on: `batch(n)` returns the input of step n (from 0), on this process's devices.

    A batch is a function of the step alone, on any number of processes. An interrupted training therefore gets the same
    batches as an uninterrupted one. Steps are asked for in order, and a source may prepare the next ones in the
    background. The collection within a batch may differ at every step (tomograms that are renewed while a training
    runs): as long as its arrays keep their shapes and types, the step is compiled once.
    """

    @property
    def epoch_steps(self) -> int:
        """Steps in an epoch, the unit of the recipe's length and of the time between validations."""

    @property
    def about(self) -> str:
        """What it draws from, for people."""

    def batch(self, step: int) -> Batch:
        """The batch of a step; every array has the local devices as its first axis.

        Raises:
            InputError: the tomograms cannot be read.
        """

    def run_name(self, step: int, run: int) -> str:
        """The name of tomogram number `run` in the collection of a step."""

    def close(self) -> None:
        """Ends all work in the background."""


def source_of(
    examples: Sequence[Example], config: TrainConfig, *, volumes: Literal["auto", "device", "stream"] = "auto"
) -> SampleSource:
    """A source of windows of some tomograms, kept on the device or cut from the files; the samples are the same.

    Raises:
        InputError: a volume is smaller than a window, or there are no picks at all.
    """
    partial = config.partial is not None
    if volumes == "stream" and partial:
        raise InputError(
            "--volumes stream does not work with partial labels, whose tomograms are kept on the device; leave it out"
        )
    if partial or volumes == "device" or (volumes == "auto" and _fit_on_device(examples)):
        return ResidentSource(examples, config)
    return StreamedSource(examples, config)


class _ExampleSource:
    """What both sources share: the grid of windows of an epoch, and this process's rows of a step."""

    _where: str

    def __init__(self, examples: Sequence[Example], config: TrainConfig) -> None:
        check_sizes([e.volume for e in examples], [e.picks for e in examples], config.model.patch_zyx)
        self._examples, self._config = examples, config
        self._grid = epoch_grid([e.volume.grid.shape_zyx for e in examples], config.model.patch_zyx, config.crop)
        share = config.optim.batch // jax.process_count()
        self._places = np.arange(jax.process_index() * share, (jax.process_index() + 1) * share)

    @property
    def epoch_steps(self) -> int:
        return max(len(self._grid) // self._config.optim.batch, 1)

    @property
    def about(self) -> str:
        count = len(self._examples)
        return f"{count} run{'s' if count > 1 else ''} {self._where}, {len(self._grid)} windows an epoch"

    def batch(self, step: int) -> Batch:
        rows = self._rows(step).reshape(jax.local_device_count(), -1, 4)
        return Batch(collection=self._on_devices, rows=rows, windows=self._windows(step))

    def run_name(self, step: int, run: int) -> str:
        return self._examples[run].volume.name

    def close(self) -> None:
        """Nothing runs in the background."""

    def _rows(self, step: int) -> Int[NDArray[np.int32], "b 4"]:
        return rows_of_step(self._grid, seed=self._config.seed, step=step, batch=self._config.optim.batch)[self._places]

    def _windows(self, step: int) -> Float[NDArray[np.float32], "k b d h w"] | None:
        return None

    @functools.cached_property
    def _collection(self) -> Collection:
        return collect(
            [e.volume for e in self._examples],
            [e.picks for e in self._examples],
            self._config.intensity,
            self._config.model.patch_zyx,
            rounded=self._config.target.rounded,
            load=isinstance(self, ResidentSource),
            known=self._known(),
            places=self._places_of_none(),
        )

    def _known(self) -> list[UInt8[NDArray[np.uint8], "c z y x"]] | None:
        config = self._config.partial
        if config is None:
            return None
        return [
            known_voxels(e.picks, marks, e.volume.grid, config, far_below=() if e.far_below is None else e.far_below())
            for e in self._examples
            if (marks := e.marks) is not None
        ]

    def _places_of_none(self) -> list[Float[NDArray[np.float64], "n 3"]] | None:
        places = [e.volume.grid.to_voxel(e.marks.none.xyz_angstrom) for e in self._examples if e.marks is not None]
        return places if sum(map(len, places)) else None

    @functools.cached_property
    def _on_devices(self) -> Collection:
        copies: Collection = replicate(self._collection)
        return copies


class ResidentSource(_ExampleSource):
    """Whole tomograms on every device; windows are cut there."""

    _where = "on the device"


class StreamedSource(_ExampleSource):
    """Windows cut from the files in the background, a few steps ahead."""

    _where = "read as needed"

    def close(self) -> None:
        if "_stream" in vars(self):
            self._stream.close()

    def _windows(self, step: int) -> Float[NDArray[np.float32], "k b d h w"] | None:
        return self._stream.of_step(step).reshape(jax.local_device_count(), -1, *self._config.model.patch_zyx)

    @functools.cached_property
    def _stream(self) -> StreamedWindows:
        return StreamedWindows(
            [e.volume for e in self._examples],
            self._collection,
            self._rows,
            self._places,
            key=jax.random.key(self._config.seed),
            patch_zyx=self._config.model.patch_zyx,
            crop=self._config.crop,
            intensity=self._config.intensity,
        )


def _fit_on_device(examples: Sequence[Example]) -> bool:
    size = 4 * len(examples) * math.prod(np.max([e.volume.grid.shape_zyx for e in examples], axis=0).tolist())
    statistics = jax.local_devices()[0].memory_stats()
    limit = _RESIDENT_SHARE_GPU * statistics["bytes_limit"] if statistics else _RESIDENT_BYTES_CPU
    return size * (1 if statistics else jax.local_device_count()) <= limit
