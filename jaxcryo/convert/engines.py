"""The TensorRT engines of a folder, built and compared on the card that will run them."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.util
import pathlib
import time
from typing import TYPE_CHECKING

import jax

from jaxcryo.calling import command
from jaxcryo.convert.comparison import Comparison, aligned, compare, comparison_rows, in_batches, kinds_of_windows
from jaxcryo.convert.comparison import onnxruntime_answer as onnxruntime
from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path
from jaxcryo.runtime.cuda import share_memory
from jaxcryo.runtime.engine_files import (
    FORMAT,
    Agreement,
    EngineRecord,
    engine_path,
    find_engine,
    is_superseded,
    other_engines,
    remove_engine,
    write_engine,
)
from jaxcryo.runtime.manifest import ModelEntry, read_manifest
from jaxcryo.runtime.tensorrt_target import Target, this_machine

if TYPE_CHECKING:
    from jaxcryo.convert.engine_build import BuildOptions
    from jaxcryo.runtime.tensorrt import LoadedEngine

LIMITS = {"float32": 1e-4, "float16": 5e-3}
"""Relative RMS difference from ONNX Runtime on the same file. Kernels round differently (ONNX Runtime computes
float16 in float32 on a CPU, tensor cores may add up in float16); a miscompiled engine differs by far more."""
_WINDOWS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Job:
    folder: pathlib.Path
    target: Target
    options: BuildOptions


def build_engines(folder: pathlib.Path, *, workspace_gib: float, optimization_level: int, force: bool) -> bool:
    """Builds the engines that are missing; returns whether all of them give the same heatmaps as ONNX Runtime.

    Raises:
        InputError: this machine cannot build engines.
    """
    if not 0 < workspace_gib < float("inf"):
        raise InputError(f"--workspace is {workspace_gib:g}; expected GiB above 0")
    entries = read_manifest(folder)
    target = this_machine()
    if importlib.util.find_spec("onnxruntime") is None:
        raise InputError("engines are compared with ONNX Runtime, which is not installed; run pip install onnxruntime")
    share_memory()
    from jaxcryo.convert.engine_build import BuildOptions  # where there is a GPU only

    options = BuildOptions(workspace_bytes=int(workspace_gib * 2**30), optimization_level=optimization_level)
    job = _Job(folder=folder, target=target, options=options)
    print(f"{len(entries)} model{'s' * (len(entries) > 1)} for {target}")
    _remove_superseded(job, entries)
    comparisons: list[Comparison] = []
    for number, entry in enumerate(entries, 1):
        label = f"[{number}/{len(entries)}] {entry.name}"
        if not force and (kept := _fitting(job, entry)):
            print(f"{label}: {kept.name} already exists and matches")
            continue
        print(f"{label}: building, which takes some minutes")
        comparisons += _build(job, entry, label)
    if comparisons:
        print(aligned(comparison_rows(comparisons)))
    if failed := sorted({c.model for c in comparisons if not c.is_ok}):
        print(
            f"failed the accuracy check, discarded: {', '.join(failed)}; try another --optimization-level, another "
            f"TensorRT version, or the other --upsampling of {command('convert onnx')}"
        )
        return False
    print(f"next: {command(f'infer --engines {folder} --data DIR')}")
    return True


def _build(job: _Job, entry: ModelEntry, label: str) -> list[Comparison]:
    """Builds one engine, and writes it if it gives the same heatmaps as ONNX Runtime."""
    from jaxcryo.convert.engine_build import build_engine, layer_information
    from jaxcryo.runtime.tensorrt import load_engine

    path = engine_path(job.folder, entry, job.target)
    began = time.monotonic()
    built = build_engine(job.folder / entry.onnx_file, job.options, _read_timing_cache(job))
    seconds = time.monotonic() - began
    _write_timing_cache(job, built.timing_cache)
    loaded = load_engine(built.plan, path.name)
    comparisons = _compared(job, entry, loaded)
    print(f"{label}: built in {seconds:.0f} s, {len(built.plan) / 1e6:.1f} MB")
    if all(c.is_ok for c in comparisons):
        record = _record(job, entry, built.plan, seconds, comparisons)
        write_engine(path, built.plan, record, layer_information(loaded))
        print(f"  {path}")
    return comparisons


def _compared(job: _Job, entry: ModelEntry, loaded: LoadedEngine) -> list[Comparison]:
    from jaxcryo.runtime.tensorrt import engine_predict

    predict = jax.jit(
        engine_predict(loaded, entry.name, batch=entry.batch, classes=entry.model.classes, patch_zyx=entry.patch_zyx)
    )
    referee = onnxruntime(str(job.folder / entry.onnx_file))
    backend = f"TensorRT {job.target.tensorrt}"
    limit = LIMITS["float16" if entry.precision == "float16" else "float32"]
    return [
        compare(
            entry.name, backend, kind, in_batches(predict, entry, windows), in_batches(referee, entry, windows), limit
        )
        for kind, windows in kinds_of_windows(entry, _WINDOWS).items()
    ]


def _record(job: _Job, entry: ModelEntry, plan: bytes, seconds: float, comparisons: list[Comparison]) -> EngineRecord:
    gpu = job.target.gpu
    return EngineRecord(
        format=FORMAT,
        model=entry.name,
        onnx_sha256=entry.onnx_sha256,
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        tensorrt=job.target.tensorrt,
        compute_capability=gpu.compute_capability,
        batch=entry.batch,
        gpu=f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB",
        driver=f"for CUDA {gpu.driver}",
        built=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        build_seconds=round(seconds, 1),
        workspace_bytes=job.options.workspace_bytes,
        optimization_level=job.options.optimization_level,
        agreements=tuple(Agreement(windows=c.windows, relative_rms=c.relative_rms, limit=c.limit) for c in comparisons),
    )


def _fitting(job: _Job, entry: ModelEntry) -> pathlib.Path | None:
    """The existing engine, if it can be kept; otherwise prints why not."""
    try:
        return find_engine(job.folder, entry, job.target)
    except InputError as error:
        if engine_path(job.folder, entry, job.target).exists():
            print(f"building again: {error}")
        return None


def _remove_superseded(job: _Job, entries: tuple[ModelEntry, ...]) -> None:
    """Removes engines that no machine can use any more; engines of other machines stay."""
    for entry in entries:
        for path, why in other_engines(job.folder, entry, job.target):
            if is_superseded(path, entry):
                remove_engine(path)
                print(f"removed {path.name}: {why}")
            else:
                print(f"kept {path.name} for other machines: {why}")


def _timing_cache_path(job: _Job) -> pathlib.Path:
    capability = job.target.gpu.compute_capability.replace(".", "")
    return job.folder / f"timing-trt{job.target.tensorrt}-sm{capability}.cache"


def _read_timing_cache(job: _Job) -> bytes:
    path = _timing_cache_path(job)
    return path.read_bytes() if path.is_file() else b""


def _write_timing_cache(job: _Job, content: bytes) -> None:
    with atomic_path(_timing_cache_path(job)) as fresh:
        fresh.write_bytes(content)
