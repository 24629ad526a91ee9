"""A model in one file: averaged weights with everything that is needed to use them, as safetensors."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxcryo.calibration import Calibration
from jaxcryo.calling import command
from jaxcryo.config import TrainConfig
from jaxcryo.domain import ParticleType
from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path
from jaxcryo.models import Weights, build
from jaxcryo.serialize import from_plain, to_plain, types_from_json, types_to_json

_KEY = "jaxcryo"
_STATISTICS = "stats:"
_MOST_FAULTS = 10
_LARGEST = 2**16
"""Limit of a network's widths and sizes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The result of a training, or of porting a checkpoint."""

    config: TrainConfig
    types: tuple[ParticleType, ...]
    """With the thresholds that validation chose."""
    spacing_angstrom: float | None
    """Voxel spacing of the tomograms it was trained on; None if not known."""
    params: Weights
    stats: Weights
    source: str
    """Where it comes from, in words."""
    skewness: float | None = None
    """Skewness of the training tomograms' intensities; None if not known."""
    calibration: Calibration | None = None
    """Calibration of its scores; None if it was not calibrated on held-out tomograms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Facts:
    """What is stored beside the configuration and the types."""

    source: str
    spacing_angstrom: float | None
    skewness: float | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        for what, value in (("voxel spacing", self.spacing_angstrom), ("skewness", self.skewness)):
            if value is not None and not math.isfinite(value):
                raise InputError(f"the {what} is {value}; expected a number")
        if self.spacing_angstrom is not None and self.spacing_angstrom <= 0:
            raise InputError(f"the voxel spacing is {self.spacing_angstrom} Å; expected one above 0")


def save_model(path: str | pathlib.Path, model: TrainedModel) -> None:
    """Writes the file atomically; parameters and statistics keep their dtype."""
    facts = {
        "config": to_plain(model.config),
        "types": types_to_json(model.types),
        "spacing_angstrom": model.spacing_angstrom,
        "source": model.source,
        "skewness": model.skewness,
        "calibration": None if model.calibration is None else to_plain(model.calibration),
    }
    arrays = {k: np.ascontiguousarray(v) for k, v in model.params.items()}
    arrays |= {_STATISTICS + k: np.ascontiguousarray(v) for k, v in model.stats.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(arrays, temporary, metadata={_KEY: json.dumps(facts)})
        except SafetensorError as error:  # tells of the system's error in its text alone
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read


def model_types(path: str | pathlib.Path) -> tuple[ParticleType, ...]:
    """The particle types of a model in a file, none of whose arrays is read.

    Raises:
        InputError: the file is missing or damaged, or `save_model` did not write it.
    """
    return types_from_json(_read(pathlib.Path(path), arrays=False)[1]["types"])


def load_model(path: str | pathlib.Path) -> TrainedModel:
    """The model in a file, its arrays as float32 whatever they were stored as.

    Raises:
        InputError: the file is missing or damaged, `save_model` did not write it, or its arrays do not fit its config.
    """
    path = pathlib.Path(path)
    arrays, facts = _read(path, arrays=True)
    config, types = (facts.pop(k) for k in ("config", "types"))
    rest = from_plain(_Facts, facts, str(path))
    model = TrainedModel(
        config=from_plain(TrainConfig, config, str(path)),
        types=types_from_json(types),
        spacing_angstrom=rest.spacing_angstrom,
        params={k: v for k, v in arrays.items() if not k.startswith(_STATISTICS)},
        stats={k.removeprefix(_STATISTICS): v for k, v in arrays.items() if k.startswith(_STATISTICS)},
        source=rest.source,
        skewness=rest.skewness,
        calibration=rest.calibration,
    )
    _check(model, path)
    return model


def _read(path: pathlib.Path, *, arrays: bool) -> tuple[Weights, dict[str, Any]]:
    """The arrays of a file, or none, and its description as plain values."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected weights written by '{command('train')}' or '{command('convert port')}'"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys() if arrays else ()
            found = {k: jnp.asarray(file.get_tensor(k), jnp.float32) for k in names}
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read as safetensors ({str(error)[:300]}); copy or write it again"
        ) from error
    if _KEY not in metadata:
        raise InputError(
            f"{path}: holds tensors, but not of this program; port them first: "
            f"{command(f'convert port {path} --arch ... --out WEIGHTS')}"
        )
    try:
        facts = json.loads(metadata[_KEY])
        missing = [k for k in ("config", "types") if k not in facts]
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its description cannot be read ({error}); write it again") from error
    if missing or not isinstance(facts, dict):
        raise InputError(f"{path}: its description lacks {' and '.join(missing) or 'everything'}; write it again")
    return found, facts


def _whole_numbers(plain: Any) -> Iterator[int]:
    if isinstance(plain, int) and not isinstance(plain, bool):
        yield plain
    for value in plain.values() if isinstance(plain, dict) else plain if isinstance(plain, list) else ():
        yield from _whole_numbers(value)


def _check(model: TrainedModel, path: pathlib.Path) -> None:
    tensors = len(model.params) + len(model.stats)
    numbers = list(_whole_numbers(to_plain(model.config.model)))
    if max(numbers) > _LARGEST or min(numbers) < 0 or model.config.model.least_tensors > tensors:
        raise InputError(f"{path}: its configuration cannot be that of its {tensors} tensors; write it again")
    try:
        _, params, stats = build(model.config.model, seed=None)
    except Exception as error:  # whatever layers say to sizes that do not go together
        raise InputError(
            f"{path}: its configuration makes no network ({type(error).__name__}: {str(error)[:200]}); write it again"
        ) from error
    faults = []
    for kind, expected, found in (("parameter", params, model.params), ("statistic", stats, model.stats)):
        faults += [f"no {kind} {k}" for k in sorted(expected.keys() - found.keys())]
        faults += [f"unknown {kind} {k}" for k in sorted(found.keys() - expected.keys())]
        faults += [
            f"{k} has shape {found[k].shape}, expected {expected[k].shape}"
            for k in sorted(found.keys() & expected.keys())
            if found[k].shape != expected[k].shape
        ]
    if len(model.types) != model.config.model.classes:
        faults.append(f"{len(model.types)} particle types for {model.config.model.classes} channels")
    if model.calibration is not None and len(model.calibration.types) != len(model.types):
        faults.append(f"a calibration of {len(model.calibration.types)} types for {len(model.types)}")
    if faults:
        listed = "; ".join(fault[:200] for fault in faults[:_MOST_FAULTS])
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        raise InputError(f"{path}: does not fit its own configuration: {listed}{more}")
