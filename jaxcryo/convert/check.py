"""Checks that every model of a folder gives the same heatmaps on this computer as Flax."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import onnx

from jaxcryo.calling import command
from jaxcryo.convert.comparison import (
    Answer,
    Comparison,
    Windows,
    aligned,
    compare,
    comparison_rows,
    in_batches,
    kinds_of_windows,
    onnxruntime_answer,
    word,
)
from jaxcryo.convert.onnx_write import float16_values, group_of, probe, write_onnx
from jaxcryo.convert.precisions import (
    PrecisionComparison,
    compare_precisions,
    float_precisions,
    in_precision,
    measured,
    milliseconds,
    phantoms_for,
    precision_rows,
    record,
    seconds_per_window,
)
from jaxcryo.errors import InputError
from jaxcryo.models import Network, build
from jaxcryo.models.onnx_layers import Upsampling
from jaxcryo.progress import Progress
from jaxcryo.runtime.manifest import FILE_NAME, ModelEntry, RunPrecision, read_manifest
from jaxcryo.runtime.openvino import cpu_has_bfloat16, openvino_predict
from jaxcryo.weights import TrainedModel, load_model

LIMITS = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 5e-2, "int8": 0.25}
"""Largest relative RMS difference from Flax in float32, by the lower precision of file and runtime. That of int8 only
recognizes a damaged file: whether int8 picks as well is tested on phantoms."""
INT8_BACKEND = "openvino int8"
FLOAT16_SHARE = 0.1
"""No value computed in float16 may exceed this share of its largest number."""
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """The largest magnitude that a module computes in float16 on phantom windows."""

    model: str
    module: str
    largest: float

    @property
    def is_ok(self) -> bool:
        """Whether it is within the share of float16's range; NaN is not."""
        return self.largest <= FLOAT16_SHARE * _FLOAT16_MAX


def check_models(
    folder: pathlib.Path, *, windows: int, phantoms: Mapping[RunPrecision, int], shape_zyx: tuple[int, int, int]
) -> bool:
    """Prints all comparisons; returns whether all are within their limits.

    For each precision in `phantoms` it also picks that many phantoms, beside float32, and records in the manifest what
    changes.
    """
    if windows < 1:
        raise InputError(f"--windows is {windows}; expected at least 1")
    for precision, count in phantoms.items():
        if count < 1:
            raise InputError(f"--{precision} is {count}; expected at least 1 phantom")
    entries = read_manifest(folder)
    for precision in phantoms:
        for entry in entries:
            in_precision(entry, precision)  # refuses before anything takes time
    if not _has_onnxruntime():
        print("onnxruntime is not installed: comparing OpenVINO only (pip install onnxruntime for both)")
    comparisons: list[Comparison] = []
    ranges: list[Range] = []
    for entry in Progress(entries, desc="comparing", unit="model"):
        found, largest = check_entry(folder, entry, windows)
        comparisons += found
        ranges += largest
    print(_table(comparisons, ranges))
    failed = sum(not c.is_ok for c in comparisons) + sum(not r.is_ok for r in ranges)
    if failed:
        print(f"{failed} of {len(comparisons) + len(ranges)} exceed tolerance: do not use these models as they are")
        return False
    if phantoms:
        _search_phantoms(folder, entries, phantoms, shape_zyx)
    print(f"all within tolerance; next: {command(f'infer --engines {folder} --data DIR')}")
    return True


def _search_phantoms(
    folder: pathlib.Path,
    entries: Sequence[ModelEntry],
    phantoms: Mapping[RunPrecision, int],
    shape_zyx: tuple[int, int, int],
) -> None:
    """Measures, prints and records; one model at a time, since one of the paper's size takes long."""
    comparisons: list[PrecisionComparison] = []
    timed: list[str] = []
    for entry in entries:
        for precision, count in phantoms.items():
            with Progress(desc=f"{entry.name}: {precision}", total=2 * count, unit="search") as bar:
                made = phantoms_for(entry, count, shape_zyx)
                comparison = compare_precisions(folder, entry, made, precision, on_search=bar.update)
            comparisons.append(comparison)
            if precision == "int8":
                assert entry.int8 is not None
                seconds = seconds_per_window(folder, entry, (*float_precisions(), "int8"))
                entry = dataclasses.replace(entry, int8=measured(entry.int8, comparison, seconds))
                timed.append(f"{entry.name}: {milliseconds(seconds)} a window")
            else:
                entry = dataclasses.replace(entry, bfloat16_f4_change=comparison.change)
        record(folder, entry)
    print("\n".join([aligned(precision_rows(comparisons)), *timed]))
    print(f"recorded in {folder / FILE_NAME}")


def check_entry(folder: pathlib.Path, entry: ModelEntry, count: int) -> tuple[list[Comparison], list[Range]]:
    """One model in every runtime of this computer; the ranges are of float16 models only."""
    path = folder / entry.onnx_file
    model = load_model(folder / entry.weights_file)
    network, _, _ = build(entry.model, seed=None)
    flax = jax.jit(network.apply)
    kinds = kinds_of_windows(entry, count)
    expected = {k: in_batches(lambda x: flax(model.params, model.stats, x), entry, w) for k, w in kinds.items()}
    comparisons = []
    for backend, limit, predict in _backends(path, entry):
        for kind, windows in kinds.items():
            if backend == INT8_BACKEND and kind == "noise":
                continue  # where a trained network answers next to nothing, so that any error is large
            found = in_batches(predict, entry, windows)
            comparisons.append(compare(entry.name, backend, kind, found, expected[kind], limit))
    ranges = float16_ranges(path, network, model, kinds["phantom"], entry.name) if entry.precision == "float16" else []
    return comparisons, ranges


def float16_ranges(
    path: pathlib.Path, network: Network, model: TrainedModel, windows: Windows, name: str
) -> list[Range]:
    """How large the values get that the ONNX file at `path` computes in float16, measured in its float32 twin."""
    written = onnx.load(path)
    facts = {p.key: p.value for p in written.metadata_props}
    upsampling: Upsampling = "resize" if facts.get("upsampling") == "resize" else "folded"
    module = network.module(model.params, model.stats)
    twin = write_onnx(module, network.config, batch=1, precision="float32", upsampling=upsampling)
    values = float16_values(written, twin)
    largest = _runner(probe(twin, values))
    maxima = np.max([largest(w[None]) for w in windows], axis=0)
    groups: dict[str, float] = {}
    for value, magnitude in zip(values, maxima, strict=True):
        groups[group_of(value)] = float(np.maximum(groups.get(group_of(value), 0.0), magnitude))
    return [Range(model=name, module=module_name, largest=m) for module_name, m in groups.items()]


def _backends(path: pathlib.Path, entry: ModelEntry) -> list[tuple[str, float, Answer]]:
    file_limit = LIMITS[entry.precision]
    backends: list[tuple[str, float, Answer]] = []
    if _has_onnxruntime():
        backends.append(("onnxruntime", file_limit, onnxruntime_answer(str(path))))
    load = functools.partial(
        openvino_predict, batch=entry.batch, classes=entry.model.classes, patch_zyx=entry.patch_zyx
    )
    backends.append(("openvino float32", file_limit, load(path, precision="float32")))
    if cpu_has_bfloat16():
        backends.append(("openvino bfloat16", LIMITS["bfloat16"], load(path, precision="bfloat16")))
    if entry.int8 is not None:
        backends.append((INT8_BACKEND, LIMITS["int8"], load(path.with_name(entry.int8.onnx_file), precision="int8")))
    return backends


def _has_onnxruntime() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def _runner(model: onnx.ModelProto) -> Answer:
    if _has_onnxruntime():
        return onnxruntime_answer(model.SerializeToString())
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32}
    )
    return lambda windows: np.array(compiled(windows)[0])


def _table(comparisons: list[Comparison], ranges: list[Range]) -> str:
    text = aligned(comparison_rows(comparisons))
    if ranges:
        rows: list[tuple[str, ...]] = [("model", "float16 values of", "", "largest", "limit", "of its range", "")]
        limit = f"{FLOAT16_SHARE * _FLOAT16_MAX:.0f}"
        rows += [
            (r.model, r.module, "phantom", f"{r.largest:.3g}", limit, f"{r.largest / _FLOAT16_MAX:.2%}", word(r.is_ok))
            for r in ranges
        ]
        text += "\n\n" + aligned(rows)
    return text
