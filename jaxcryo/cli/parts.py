"""What is done of runs that are shared out in ranges of slices, kept in the folder of picks until they are whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
import zipfile
from collections.abc import Sequence

import numpy as np

from jaxcryo import __version__
from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path, read_json, write_text
from jaxcryo.picking.peaks import Peaks
from jaxcryo.picks.folder import Settings
from jaxcryo.picks.origin import Origin
from jaxcryo.project.mask import mask_place
from jaxcryo.serialize import from_plain, to_plain
from jaxcryo.tomogram.statistics import Survey

_FOLDER = "parts"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What was found in one range of slices."""

    peaks: Peaks
    pngs: tuple[bytes, ...] = ()
    """Of the page's overlay; none where there is no page."""
    seconds: float
    """That it took."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one run, made from one tomogram with the same settings."""

    run: str
    folder: pathlib.Path

    @classmethod
    def of(cls, out: pathlib.Path, run: str, settings: Settings, origin: Origin, *, count: int, pages: bool) -> Parts:
        """Those that fit these settings, this tomogram, its mask as it is and this number of ranges; others are left
        where they are.

        Raises:
            InputError: there is no mask for the run.
        """
        moved = dataclasses.replace(origin, path="") if origin.sample else origin
        mask = None if settings.mask is None else Origin.of(mask_place(settings.mask, run))
        plain = [__version__, to_plain(settings), to_plain(moved), to_plain(mask), count, pages]
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        return cls(run=run, folder=out / _FOLDER / run / digest[:16])

    def has_surveys(self) -> bool:
        """Whether the tomogram was gone through."""
        return self._surveys.is_file()

    def write_surveys(self, surveys: Sequence[Survey]) -> None:
        """What was found by going through it, as it is and as the models want it; raises as `write_text` does."""
        write_text(self._surveys, json.dumps(to_plain(list(surveys))) + "\n")

    def surveys(self) -> tuple[Survey, ...]:
        """Raises InputError where there are none."""
        return from_plain(tuple[Survey, ...], read_json(self._surveys, self._expected), str(self._surveys))

    def has(self, slices: tuple[int, int]) -> bool:
        """Whether this range is done."""
        return self._path(slices).is_file()

    def write(self, slices: tuple[int, int], part: Part) -> None:
        """Keeps a range, whole; raises as `atomic_path` does."""
        joined = np.frombuffer(b"".join(part.pngs), np.uint8)
        with atomic_path(self._path(slices)) as fresh, fresh.open("wb") as file:
            np.savez(
                file,
                seconds=np.float64(part.seconds),
                pngs=joined,
                png_bytes=np.array([len(png) for png in part.pngs], np.int64),
                **{field.name: getattr(part.peaks, field.name) for field in dataclasses.fields(Peaks)},
            )

    def read(self, slices: tuple[int, int]) -> Part:
        """A range. Raises InputError where it is not there, or damaged."""
        path = self._path(slices)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                ends = np.cumsum(arrays["png_bytes"])
                return Part(
                    peaks=Peaks(**{field.name: arrays[field.name] for field in dataclasses.fields(Peaks)}),
                    pngs=tuple(png.tobytes() for png in np.split(arrays["pngs"], ends)[:-1]),
                    seconds=float(arrays["seconds"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: cannot be read ({error}); {self._expected}") from error

    @property
    def _surveys(self) -> pathlib.Path:
        return self.folder / "surveys.json"

    @property
    def _expected(self) -> str:
        return f"expected a part of {self.run}: remove {self.folder} and give the same command again"

    def _path(self, slices: tuple[int, int]) -> pathlib.Path:
        return self.folder / f"slices-{slices[0]}-{slices[1] - 1}.npz"


def remove_parts(out: pathlib.Path, run: str) -> None:
    """Removes all parts of a run: its picks are there, or are not wanted."""
    shutil.rmtree(out / _FOLDER / run, ignore_errors=True)
    try:
        (out / _FOLDER).rmdir()
    except OSError:
        return  # others have some, or there are none
