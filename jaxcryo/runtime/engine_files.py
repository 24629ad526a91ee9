"""TensorRT engines on disk: each file fits one ONNX file, one TensorRT version and one kind of card."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Literal

from jaxcryo.calling import command
from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path, read_json, write_text
from jaxcryo.runtime.manifest import ModelEntry, file_sha256
from jaxcryo.runtime.tensorrt_target import Target
from jaxcryo.serialize import from_plain, to_plain

FORMAT: Literal[1] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """The difference between an engine and ONNX Runtime when it was built."""

    windows: str
    relative_rms: float
    limit: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """The JSON file beside an engine: what was built, and where. It is there for engines that agreed only."""

    format: Literal[1]
    model: str
    onnx_sha256: str
    engine_sha256: str
    tensorrt: str
    compute_capability: str
    batch: int
    gpu: str
    driver: str
    built: str
    build_seconds: float
    workspace_bytes: int
    optimization_level: int
    agreements: tuple[Agreement, ...]


def engine_path(folder: pathlib.Path, entry: ModelEntry, target: Target) -> pathlib.Path:
    """Where the engine of a model for a target lies."""
    capability = target.gpu.compute_capability.replace(".", "")
    return folder / (f"{entry.name}-{entry.onnx_sha256[:12]}-trt{target.tensorrt}-sm{capability}-b{entry.batch}.engine")


def find_engine(folder: pathlib.Path, entry: ModelEntry, target: Target) -> pathlib.Path:
    """The engine of a model that fits the target and is as it was built.

    Raises:
        InputError: there is none; the message says what the others of this model are.
    """
    path = engine_path(folder, entry, target)
    build = f"build it on this machine: {command(f'convert engine {folder}')}"
    if not path.is_file() or not record_path(path).is_file():
        others = "; ".join(f"{p.name} is {why}" for p, why in other_engines(folder, entry, target))
        raise InputError(
            f"{folder}: has no TensorRT engine of {entry.name} for {target}, batch {entry.batch} "
            f"({others or 'none was built'}); {build}"
        )
    record = read_record(record_path(path))
    if mismatch := _mismatch(record, entry, target):
        raise InputError(f"{path}: is {mismatch}, whatever its name says; {build}")
    if file_sha256(path) != record.engine_sha256:
        raise InputError(f"{path}: is not the file that was built (damaged or replaced); {build}")
    return path


def other_engines(folder: pathlib.Path, entry: ModelEntry, target: Target) -> list[tuple[pathlib.Path, str]]:
    """Engines of the model that do not fit the target, and why: `of TensorRT 10.12.0.36, not 11.4.0.106`."""
    found = []
    for path in sorted(folder.glob(f"{entry.name}-*.engine")):
        try:
            record = read_record(record_path(path))
        except InputError:
            continue
        if record.model == entry.name and (mismatch := _mismatch(record, entry, target)):
            found.append((path, mismatch))
    return found


def is_superseded(path: pathlib.Path, entry: ModelEntry) -> bool:
    """Whether no machine can use the engine any more, since the model was converted anew."""
    record = read_record(record_path(path))
    return (record.onnx_sha256, record.batch) != (entry.onnx_sha256, entry.batch)


def write_engine(path: pathlib.Path, plan: bytes, record: EngineRecord, layers: str) -> None:
    """Writes an engine whole, what it consists of, and last the record without which it is not used."""
    record_path(path).unlink(missing_ok=True)
    with atomic_path(path) as fresh:
        fresh.write_bytes(plan)
    write_text(layers_path(path), layers)
    write_text(record_path(path), json.dumps(to_plain(record), indent=2, ensure_ascii=False) + "\n")


def remove_engine(path: pathlib.Path) -> None:
    """Removes an engine and the files beside it."""
    for file in (record_path(path), layers_path(path), path):
        file.unlink(missing_ok=True)


def read_record(path: pathlib.Path) -> EngineRecord:
    """What is known of an engine.

    Raises:
        InputError: the file is missing or not as it was written.
    """
    data = read_json(path, "expected what was noted when the engine was built: build it again")
    return from_plain(EngineRecord, data, str(path))


def record_path(engine: pathlib.Path) -> pathlib.Path:
    """The file with what is known of an engine."""
    return engine.with_name(engine.name + ".json")


def layers_path(engine: pathlib.Path) -> pathlib.Path:
    """The file with TensorRT's own description of an engine's layers."""
    return engine.with_name(engine.name + ".layers.json")


def _mismatch(record: EngineRecord, entry: ModelEntry, target: Target) -> str:
    """How an engine differs from the target; empty if it fits."""
    pairs = (
        ("of another ONNX file", record.onnx_sha256[:12], entry.onnx_sha256[:12]),
        ("of TensorRT", record.tensorrt, target.tensorrt),
        ("for compute capability", record.compute_capability, target.gpu.compute_capability),
        ("for batch", record.batch, entry.batch),
    )
    return " and ".join(f"{what} {found}, not {wanted}" for what, found, wanted in pairs if found != wanted)
