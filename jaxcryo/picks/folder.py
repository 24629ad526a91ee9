"""A folder of picks that inference wrote: what made them, which runs are done, and other thresholds for them."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxcryo.calling import command
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.picks.candidates import read_candidates
from jaxcryo.picks.formats import PickFormat, above_thresholds, writable_formats
from jaxcryo.picks.origin import FILE_NAME, read_origin, unchanged
from jaxcryo.serialize import from_plain, to_plain, types_from_json
from jaxcryo.stores.address import Address, location

Note = Callable[[str], object]

_FILE_NAME = "settings.json"
_EXPECTED = "expected the settings of an inference"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelUsed:
    """A model that found picks, and how it was run."""

    name: str
    onnx_sha256: str
    stride_zyx: tuple[int, int, int]
    precision: str
    source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings that affect the picks of a folder: with equal settings, the same tomogram gives the same picks.

    Each field's default is what folders from before the field count as.
    """

    engines: tuple[ModelUsed, ...] = ()
    """The models that are averaged; none in a folder that inference did not write."""
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    floor: float | None = None
    """The score that the candidates beside the picks are above; None if there are none."""
    particles: tuple[dict[str, Any], ...] = ()
    """The particle types, without thresholds."""
    nms_voxel: int = 7
    merge_radius: float = 0.0
    refine: bool = False
    tta: bool = False
    voxel_spacing_angstrom: float | None = None
    level: int = 0
    invert: bool = False
    axes: str | None = None
    bytes: str = "auto"
    mask: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicksFolder:
    """A folder of picks, which need not exist."""

    path: pathlib.Path

    @property
    def runs(self) -> pathlib.Path:
        """Where the picks of each run are, in copick's layout."""
        return self.path / "ExperimentRuns"

    def settings(self) -> Settings | None:
        """The settings its picks were made with; None if it does not record them."""
        try:
            return from_plain(Settings, read_json(self.path / _FILE_NAME, _EXPECTED), str(self.path / _FILE_NAME))
        except InputError:
            return None

    def is_of_inference(self) -> bool:
        """Whether inference wrote it."""
        settings = self.settings()
        return settings is not None and bool(settings.engines)

    def write_settings(self, settings: Settings) -> None:
        """Writes the settings before the first picks; raises as `write_text` does."""
        write_text(self.path / _FILE_NAME, json.dumps(to_plain(settings), indent=1, ensure_ascii=False) + "\n")

    def check_ours(self, files: Sequence[pathlib.Path]) -> None:
        """Raises InputError if files that inference would write exist, and the folder is not from an inference."""
        present = [str(file) for file in (self.path / _FILE_NAME, *files) if file.exists()]
        if present and not self.is_of_inference():
            raise InputError(
                f"{', '.join(present)} already exists and is not from an inference; choose another --out or pass "
                "--force"
            )

    def finished(self, settings: Settings, runs: Sequence[Run], *, note: Note) -> set[str]:
        """Those of the runs that the folder has picks of, with these very settings and the same tomogram.

        A note names each run whose tomogram has changed or is another one.

        Raises:
            InputError: the folder holds picks made with other settings, be it of these runs or of others.
        """
        counts = {f.parent.name: len(list(f.glob("jaxcryo_0_*.json"))) for f in self.runs.glob("*/Picks")}
        present = sorted(name for name, count in counts.items() if count)
        if present and to_plain(self.settings()) != to_plain(settings):
            raise InputError(
                f"{self.path}: holds picks of {', '.join(present)} made with different models or settings; choose "
                f"another --out or pass --force (for other thresholds alone: {command('picks threshold')})"
            )
        complete = [run for run in runs if counts.get(run.name) == len(settings.thresholds)]
        done, changes = unchanged(self.runs, complete)
        for name, change in changes.items():
            note(f"{name}: {change}; it is picked again")
        return done

    def types(self) -> tuple[ParticleType, ...]:
        """The particle types that were looked for, else the challenge's.

        Raises:
            InputError: its settings name types that are not valid.
        """
        settings = self.settings()
        return CZII_TYPES if settings is None or not settings.particles else types_from_json(settings.particles)

    def formats(self) -> list[PickFormat]:
        """The formats in which it has its picks."""
        return [f for f in writable_formats().values() if (self.path / _sign(f)).exists()]

    def origins(self) -> list[Run]:
        """The tomograms of its picks, if they are still in their places; servers are not asked."""
        places = sorted(f.parent for f in self.runs.glob(f"*/{FILE_NAME}"))
        paths = {place.name: location(read_origin(place).path) for place in places}
        return [
            Run(name=name, volume_path=path)
            for name, path in paths.items()
            if isinstance(path, Address) or path.exists()
        ]

    def above(
        self,
        thresholds: Mapping[str, float],
        found: Mapping[str, Picks],
        types: tuple[ParticleType, ...],
        *,
        in_force: Mapping[str, float],
        note: Note,
    ) -> dict[str, Picks]:
        """The picks above these thresholds; a type without one keeps its picks in `found`, which are the folder's.

        Thresholds `in_force` replaced those of the settings in a second pass. Where the candidates of all runs are in
        the folder, thresholds may also be lower than those of the inference; `note` is told of thresholds below what
        was saved.

        Raises:
            InputError: the candidates, or picks without scores, cannot be used; a threshold is for an unknown type.
        """
        used = self.settings() or Settings()
        candidates = read_candidates(self.path, types, found)
        if set(candidates) != set(found) or used.floor is None:
            _note_lower(thresholds, used.thresholds, note)
            return {run: above_thresholds(picks, dict(thresholds)) for run, picks in found.items()}
        _note_lower(thresholds, dict.fromkeys(thresholds, used.floor), note)
        # A type that is left out stays at the thresholds of the inference.
        kept = used.thresholds | dict(in_force)
        limits = {t.name: kept[t.name] for t in types if t.name in kept}
        return {run: above_thresholds(picks, limits | dict(thresholds)) for run, picks in candidates.items()}


def _sign(format_: PickFormat) -> str:
    """The path that exists if a folder has picks in this format."""
    return "ExperimentRuns" if format_.place == "." else format_.place or format_.name


def _note_lower(thresholds: Mapping[str, float], saved: Mapping[str, float], note: Note) -> None:
    """Says where thresholds are below what was saved."""
    below = [f"{name} ({saved[name]:g})" for name, value in thresholds.items() if value < saved.get(name, -math.inf)]
    if below:
        note(
            f"picks below these values of their inference were not saved: {', '.join(below)}; run "
            f"'{command('infer')}' again"
        )
