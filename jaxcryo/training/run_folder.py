"""The folder of a training: the names of its files; its description and its result, written and read here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxcryo.config import TrainConfig
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.metric import Counts, Score
from jaxcryo.serialize import from_plain, to_plain, types_from_json, types_to_json
from jaxcryo.training.validation import Validation

_FINGERPRINT_SLICES = 8
_EXPECTED = "expected a run folder of a training"


class RunFolder:
    """Where each file of a training is."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.config = path / "config.json"
        """The description of the training: a `RunDescription`."""
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.csv"
        self.validation = path / "validation.csv"
        self.tensorboard = path / "tensorboard"
        self.curves = path / "curves.png"
        self.picture = path / "validation.png"
        self.report = path / "report.html"
        self.reliability = path / "reliability.png"
        """Written by trainings whose scores were calibrated."""
        self.result = path / "result.json"
        """The outcome of a finished training: a `Result`."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def listed(self) -> tuple[pathlib.Path, ...]:
        """The files of a finished training for users."""
        tables = (self.metrics, self.validation)
        return (self.best, self.last, self.config, *tables, self.curves, self.picture, self.report)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Identifies the data that a training began with; equal for a copy elsewhere."""

    tomogram: str
    """A digest of some slices before normalization, after --invert and resampling."""
    picks: str

    @classmethod
    def of(cls, volume: Volume, picks: Picks) -> Fingerprint:
        """Reads a few slices.

        Raises:
            InputError: they cannot be read.
        """
        depth = volume.grid.shape_zyx[0]
        tomogram = hashlib.sha256(repr((volume.grid.shape_zyx, volume.grid.spacing_angstrom)).encode())
        for z in np.unique(np.linspace(0, depth - 1, min(_FINGERPRINT_SLICES, depth)).astype(int)).tolist():
            tomogram.update(volume.read(z, z + 1).tobytes())
        rows = np.column_stack([picks.type_index, np.round(picks.xyz_angstrom, 3)]).astype("<f8")
        order = np.lexsort(rows.T[::-1])  # picks are a set
        return cls(tomogram=tomogram.hexdigest()[:16], picks=hashlib.sha256(rows[order].tobytes()).hexdigest()[:16])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What is trained in a run folder: written when it starts, compared when it is continued."""

    config: TrainConfig
    types: tuple[ParticleType, ...]
    fold: int
    train_runs: tuple[str, ...]
    held_out: str
    spacing_angstrom: float
    steps: int | None
    """The number of steps that was asked for; None if epochs or minutes set the length."""
    skewness: float | None = None
    """Skewness of the training tomograms' intensities, to recognize opposite contrast."""
    fingerprints: Mapping[str, Fingerprint] = dataclasses.field(default_factory=dict)
    """Fingerprint of each run by name."""
    start: str | None = None
    """The SHA-256 of the weights' file that it started from, None for fresh weights."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, the run folder's config.json."""
        plain = {**to_plain(dataclasses.replace(self, types=())), "types": types_to_json(self.types)}
        read_back: dict[str, Any] = json.loads(json.dumps(plain))
        return read_back


def config_of(folder: RunFolder) -> TrainConfig | None:
    """The recipe that the run in a folder began with; None where there is no run yet.

    Raises:
        InputError: the description cannot be used, or weights lie there without one.
    """
    if folder.config.exists():
        return from_plain(TrainConfig, _read(folder.config).get("config"), str(folder.config))
    present = [str(file) for file in (folder.best, folder.last) if file.exists()]
    if present:
        raise InputError(
            f"{', '.join(present)}: already exists, and not from a known training run ({folder.config} is "
            "missing); choose another --out"
        )
    return None


def describe(folder: RunFolder, description: RunDescription) -> bool:
    """Writes the description of a new run; True if the folder already holds this very run.

    Raises:
        InputError: the folder holds a run of another description; the message names what differs.
    """
    new = description.to_json()
    began = config_of(folder)
    if began is None:
        write_text(folder.config, json.dumps(new, indent=1) + "\n")
        return False
    old = _read(folder.config)
    old["config"] = to_plain(began)  # choices that did not exist yet had what is their default now
    # The skewness is measured and need not match; trainings from before fingerprints have none to compare.
    measured = ("skewness", *(name for name in ("fingerprints", "start") if name not in old))
    differing = [_difference(*d) for d in _differences(old, {k: v for k, v in new.items() if k not in measured})]
    if differing:
        raise InputError(
            f"{folder} holds a training that differs from this one: {'; '.join(differing)}. Continue it with its "
            "original data and options, or start a new one in another folder with --out"
        )
    return True


def read_description(folder: RunFolder) -> RunDescription:
    """The description in a run folder.

    Raises:
        InputError: it is missing or cannot be used.
    """
    fields = _read(folder.config)
    types = types_from_json(fields.pop("types", ()))
    description = from_plain(RunDescription, {**fields, "types": []}, str(folder.config))
    return dataclasses.replace(description, types=types)


def _read(path: pathlib.Path) -> dict[str, Any]:
    fields = read_json(path, _EXPECTED)
    if not isinstance(fields, dict):
        raise InputError(f"{path}: expected an object with the run's description")
    return fields


def _differences(old: Any, new: Any, *name: str) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*(k for k in old if k in new or name), *(k for k in new if k not in old)]:
            yield from _differences(old.get(key), new.get(key), *name, key)
    elif old != new:
        yield name, old, new


def _difference(name: tuple[str, ...], old: Any, new: Any) -> str:
    """A difference, in the terms of the user's options."""
    match name:
        case ("fingerprints", run, *_) if old is None or new is None:
            return f"{run} was {'not ' if old is None else ''}part of it"
        case ("fingerprints", run, "tomogram"):
            return f"the tomogram of {run} has other voxels (another file, tomogram type, spacing or --invert)"
        case ("fingerprints", run, "picks"):
            return f"the picks of {run} have changed"
        case ("start",):
            began, begins = ("fresh weights" if s is None else f"weights of SHA-256 {s[:12]}…" for s in (old, new))
            return f"it began from {began}, this one would from {begins} (--init, --from-scratch)"
        case _:
            return f"{'.'.join(name)} was {old!r}, is {new!r} now"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The last validation's scores."""

    step: int
    types: tuple[ParticleType, ...]
    """At the chosen thresholds."""
    chosen: Score
    best_thresholds: tuple[float, ...]
    best: Score

    @classmethod
    def of(cls, step: int, validation: Validation) -> Result:
        """The part of a validation that is saved."""
        return cls(
            step=step,
            types=validation.types,
            chosen=dataclasses.replace(validation.chosen, types=validation.types),
            best_thresholds=validation.best_thresholds,
            best=dataclasses.replace(validation.best, types=validation.types),
        )


def write_result(folder: RunFolder, result: Result) -> None:
    """Marks the run in the folder as finished."""
    plain = {
        "step": result.step,
        "weighted_f4": result.chosen.weighted_f4,
        "weighted_f4_best": result.best.weighted_f4,
        "types": types_to_json(result.types),
        "best_thresholds": list(result.best_thresholds),
        "chosen": [dataclasses.asdict(c) for c in result.chosen.counts],
        "best": [dataclasses.asdict(c) for c in result.best.counts],
    }
    write_text(folder.result, json.dumps(plain, indent=1) + "\n")


def read_result(folder: RunFolder) -> Result | None:
    """The result of a finished run; None if it is not finished, or its result cannot be used."""
    try:
        plain = read_json(folder.result, _EXPECTED)
        types = types_from_json(plain["types"])
        chosen, best = (
            Score(types=types, counts=tuple(Counts(**c) for c in plain[name])) for name in ("chosen", "best")
        )
        thresholds = tuple(map(float, plain["best_thresholds"]))
        return Result(step=plain["step"], types=types, chosen=chosen, best_thresholds=thresholds, best=best)
    except (ValueError, KeyError, TypeError, InputError):
        return None
