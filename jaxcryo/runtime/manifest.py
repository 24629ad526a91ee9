"""`engines.json`: the list of converted models in a folder, and how to run each.

The file keeps the name from when converted models were called engines, since scripts and `--engines` use it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any, Literal

from jaxcryo.calibration import Calibration
from jaxcryo.config import InferenceConfig, IntensityConfig, NetworkConfig
from jaxcryo.domain import ParticleType, check_types
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.models import Architecture  # noqa: F401  # the registry reads `model`
from jaxcryo.serialize import from_plain, to_plain

FILE_NAME = "engines.json"
FORMAT: Literal[2] = 2
_FORMATS = (1, FORMAT)
RunPrecision = Literal["float32", "bfloat16", "float16", "int8"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Int8Model:
    """A model's int8 twin: an ONNX file beside the float one, and the comparison of the two on phantoms."""

    onnx_file: str
    onnx_sha256: str
    calibrated_on: str
    """What the ranges of its values were measured on, in words."""
    float_layers: tuple[str, ...] = ()
    """Layers that stayed in float, because they cost the most accuracy."""
    f4_change: float | None
    """Weighted F4 in int8 minus that in float32; None if the model finds too little to tell."""
    agreement: float
    """The share of both sets of picks that the other set has, too."""
    cpu: str
    """The CPU on which times were measured, as `cpu_described` returns it."""
    speedup: float
    """Speed relative to the fastest float precision on that CPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One converted model. File names are relative to the manifest's folder."""

    name: str
    size: str
    model: NetworkConfig
    onnx_file: str
    onnx_sha256: str
    weights_file: str
    weights_sha256: str
    precision: RunPrecision
    """Precision of the ONNX file, float32 or float16; for a model about to be run, the precision that it runs in."""
    types: tuple[ParticleType, ...]
    """In channel order, with this model's thresholds."""
    intensity: IntensityConfig
    spacing_angstrom: float
    """Voxel spacing of the tomograms it was trained on."""
    inference: InferenceConfig
    """How it is run: its batch is the ONNX file's."""
    source: str
    """The checkpoint it was converted from."""
    bfloat16_f4_change: float | None = None
    """Weighted F4 on phantoms in bfloat16 minus that in float32; None if not compared."""
    skewness: float | None = None
    """Skewness of the training tomograms' intensities, to recognize opposite contrast. None if not known."""
    calibration: Calibration | None = None
    """Calibration of its scores; None if it was not calibrated on held-out tomograms."""
    int8: Int8Model | None = None
    """None if `convert quantize` was not run."""

    @property
    def arch(self) -> str:
        """The architecture's name."""
        return self.model.arch

    @property
    def patch_zyx(self) -> tuple[int, int, int]:
        """The window."""
        return self.model.patch_zyx

    @property
    def stride_zyx(self) -> tuple[int, int, int]:
        """The stride of windows in voxels."""
        return self.inference.stride_zyx

    @property
    def batch(self) -> int:
        """Windows in a batch."""
        return self.inference.batch

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """The names of all its files, with their SHA-256."""
        own = ((self.onnx_file, self.onnx_sha256), (self.weights_file, self.weights_sha256))
        return own if self.int8 is None else (*own, (self.int8.onnx_file, self.int8.onnx_sha256))

    @property
    def running_sha256(self) -> str:
        """SHA-256 of the ONNX file for its precision."""
        return self.onnx_sha256 if self.precision != "int8" or self.int8 is None else self.int8.onnx_sha256

    def __post_init__(self) -> None:
        check_types(self.types)
        if not 0 < self.spacing_angstrom < math.inf:
            raise InputError(f"{self.name}: the voxel spacing is {self.spacing_angstrom} Å; expected one above 0")
        if len(self.types) != self.model.classes:
            raise InputError(f"{self.name}: {len(self.types)} particle types for {self.model.classes} classes")
        if self.calibration is not None and len(self.calibration.types) != len(self.types):
            raise InputError(f"{self.name}: a calibration of {len(self.calibration.types)} types for {len(self.types)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Manifest:
    format: Literal[2]
    models: tuple[ModelEntry, ...]


def write_manifest(folder: str | pathlib.Path, entries: Sequence[ModelEntry]) -> pathlib.Path:
    """Writes `engines.json` whole or not at all, and returns its path.

    Raises:
        InputError: the entries do not belong together as in `read_manifest`, or the folder cannot be written to.
    """
    path = pathlib.Path(folder) / FILE_NAME
    _check_together(path, entries)
    write_text(path, manifest_text(entries))
    return path


def manifest_text(entries: Sequence[ModelEntry]) -> str:
    """What `engines.json` holds, in today's format."""
    manifest = _Manifest(format=FORMAT, models=tuple(entries))
    return json.dumps(to_plain(manifest), indent=2, ensure_ascii=False) + "\n"


def read_manifest(folder: str | pathlib.Path) -> tuple[ModelEntry, ...]:
    """The models of a folder, after their files' contents were checked.

    Raises:
        InputError: no such folder, no readable manifest, no models, a file missing or changed since the manifest was
            written, two models of one name, or particle types that differ between models.
    """
    folder = pathlib.Path(folder)
    entries = _entries(folder)
    _check_together(folder / FILE_NAME, entries)
    for entry in entries:
        for name, sha256 in entry.files:
            _check_file(folder, name, sha256)
    return entries


def listed_files(folder: str | pathlib.Path) -> set[str]:
    """The names of all files that belong to a folder's models, whether they are there and whole or not.

    Raises:
        InputError: no such folder, or no readable manifest.
    """
    return {name for entry in _entries(pathlib.Path(folder)) for name, _ in entry.files}


def _entries(folder: pathlib.Path) -> tuple[ModelEntry, ...]:
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the output of convert: convert a checkpoint first")
    if not path.exists():
        raise InputError(f"{folder}: has no {FILE_NAME}; expected the output of convert: convert again")
    data = read_json(path, "expected the output of convert")
    if isinstance(data, dict) and data.get("format") not in _FORMATS:
        raise InputError(
            f"{path}: its format is {reprlib.repr(data.get('format'))}; expected {FORMAT} or older: convert again"
        )
    return from_plain(_Manifest, _of_today(data), str(path)).models


def _of_today(data: Any) -> Any:
    """Format 1 as format 2: it wrote window, stride and batch a second time, beside the records that they are of."""
    if not isinstance(data, dict) or data.get("format") != 1 or not isinstance(data.get("engines"), list):
        return data
    rest = {key: value for key, value in data.items() if key != "engines"}
    return {**rest, "format": FORMAT, "models": [_entry_of_today(entry) for entry in data["engines"]]}


def _entry_of_today(entry: Any) -> Any:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), dict) for key in ("model", "inference")):
        return entry
    new = {key: value for key, value in entry.items() if key not in ("arch", "patch_zyx", "stride_zyx", "batch")}
    new["model"] = entry["model"] | {key: entry[key] for key in ("arch", "patch_zyx") if key in entry}
    new["inference"] = entry["inference"] | {key: entry[key] for key in ("stride_zyx", "batch") if key in entry}
    return new


def file_sha256(path: str | pathlib.Path) -> str:
    """The SHA-256 of a file's contents in hexadecimal."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_together(path: pathlib.Path, entries: Sequence[ModelEntry]) -> None:
    if not entries:
        raise InputError(f"{path}: lists no model; expected at least one: convert a checkpoint")
    names = [entry.name for entry in entries]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"{path}: models named twice: {', '.join(twice)}; each needs its own name")
    first = entries[0]
    for entry in entries[1:]:
        # Thresholds were found for each model alone, and may differ.
        if [(t.name, t.radius_angstrom) for t in entry.types] != [(t.name, t.radius_angstrom) for t in first.types]:
            raise InputError(
                f"{path}: {first.name} finds {_described(first)}, {entry.name} finds {_described(entry)}; averaged "
                "models need the same particle types in the same order: convert them to different folders"
            )


def _described(entry: ModelEntry) -> str:
    return ", ".join(f"{t.name} ({t.radius_angstrom:g} Å)" for t in entry.types)


def _check_file(folder: pathlib.Path, name: str, sha256: str) -> None:
    path = folder / name
    if pathlib.PurePath(name).name != name:
        raise InputError(f"{folder / FILE_NAME}: {name[:80]!r} is not the name of a file in this folder: convert again")
    if not path.is_file():
        raise InputError(f"{path}: is missing, but {FILE_NAME} lists it: convert or copy it again")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): copy the folder again") from error
    if found != sha256:
        raise InputError(f"{path}: does not match {FILE_NAME}: convert, copy or download it again")
