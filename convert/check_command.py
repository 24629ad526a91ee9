"""`python -m convert check`: whether every engine of a folder answers as Flax does, on this computer."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import onnx
import openvino
from jaxtyping import Float
from numpy.typing import NDArray
from tqdm import tqdm

from convert.emit import INPUT, write_onnx
from convert.emit_layers import Upsampling
from convert.emit_probe import float16_values, group_of, probe
from jaxcryo.data.collection import normalize
from jaxcryo.errors import InputError
from jaxcryo.inference.manifest import EngineEntry, read_manifest
from jaxcryo.inference.openvino import openvino_predict
from jaxcryo.models import Network, build
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.weights import TrainedModel, load_model

Windows = Float[NDArray[np.float32], "n d h w"]
Answer = Callable[[Any], Any]
"""Windows to heatmaps, or to whatever else a model answers."""
Heatmaps = Float[NDArray[np.float32], "n c d h w"]

LIMITS = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 5e-2}
"""Relative RMS difference from Flax in float32, by the least precise of file and engine."""
FLOAT16_SHARE = 0.1
"""No value computed in float16 may exceed this share of its largest number."""
_FLOAT16_MAX = float(np.finfo(np.float16).max)
_SEED = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One engine against Flax on one kind of windows."""

    model: str
    backend: str
    windows: str
    relative_rms: float
    largest: float
    """Absolute difference anywhere in the heatmaps."""
    limit: float

    @property
    def is_ok(self) -> bool:
        """Within its limit; NaN is not."""
        return self.relative_rms <= self.limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """The largest magnitude that a module computes in float16 on phantom windows."""

    model: str
    module: str
    largest: float

    @property
    def is_ok(self) -> bool:
        """Within the share of float16's range; NaN is not."""
        return self.largest <= FLOAT16_SHARE * _FLOAT16_MAX


def add_parser(subparsers: Any) -> None:
    """Adds the command to `python -m convert`."""
    parser = subparsers.add_parser("check", help="compare engines with Flax on this computer", description=__doc__)
    parser.add_argument("engines", type=pathlib.Path, help="what 'python -m convert onnx' wrote")
    parser.add_argument("--windows", type=int, default=4, help="of noise and of a phantom, each (default: 4)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints all comparisons; leaves with exit code 1 where one is off."""
    if args.windows < 1:
        raise InputError(f"--windows is {args.windows}; expected at least 1")
    entries = read_manifest(args.engines)
    if not _has_onnxruntime():
        print("onnxruntime is not installed: comparing OpenVINO only (pip install onnxruntime for both)")
    comparisons: list[Comparison] = []
    ranges: list[Range] = []
    for entry in tqdm(entries, desc="comparing", unit="model"):
        found, largest = check_entry(args.engines, entry, args.windows)
        comparisons += found
        ranges += largest
    print(_table(comparisons, ranges))
    off = sum(not c.is_ok for c in comparisons) + sum(not r.is_ok for r in ranges)
    if off:
        print(f"{off} of {len(comparisons) + len(ranges)} are off: do not use these models as they are")
        raise SystemExit(1)
    print(f"all within their limits; next: python infer.py --engines {args.engines} --data DIR")


def check_entry(folder: pathlib.Path, entry: EngineEntry, count: int) -> tuple[list[Comparison], list[Range]]:
    """One model through every engine of this computer; the ranges are of float16 models only."""
    path = folder / entry.onnx_file
    model = load_model(folder / entry.weights_file)
    network, _, _ = build(entry.model, seed=None)
    flax = jax.jit(network.apply)
    kinds = {"noise": _noise(entry, count), "phantom": phantom_windows(entry, count)}
    expected = {k: _in_batches(lambda x: flax(model.params, model.stats, x), entry, w) for k, w in kinds.items()}
    comparisons = []
    for backend, limit, predict in _backends(path, entry):
        for kind, windows in kinds.items():
            found = _in_batches(predict, entry, windows)
            comparisons.append(_compare(entry.name, backend, kind, found, expected[kind], limit))
    ranges = float16_ranges(path, network, model, kinds["phantom"], entry.name) if entry.precision == "float16" else []
    return comparisons, ranges


def float16_ranges(
    path: pathlib.Path, network: Network, model: TrainedModel, windows: Windows, name: str
) -> list[Range]:
    """How large values get where the ONNX file at `path` computes in float16, seen in a float32 twin of it."""
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


def phantom_windows(entry: EngineEntry, count: int) -> Windows:
    """Overlapping windows of a synthetic tomogram of the entry's particles, as its network sees them."""
    depth, height, width = entry.patch_zyx
    step = width // 4
    config = PhantomConfig(
        shape_zyx=(depth, height, width + (count - 1) * step),
        spacing_angstrom=entry.spacing_angstrom,
        types=entry.types,
    )
    volume, _ = make_phantom(config, seed=_SEED)
    voxels = normalize(volume.load(), entry.intensity)
    return np.stack([voxels[:, :, i * step : i * step + width] for i in range(count)])


def _noise(entry: EngineEntry, count: int) -> Windows:
    return np.random.default_rng(_SEED).standard_normal((count, *entry.patch_zyx), np.float32)


def _backends(path: pathlib.Path, entry: EngineEntry) -> list[tuple[str, float, Answer]]:
    file_limit = LIMITS[entry.precision]
    backends: list[tuple[str, float, Answer]] = []
    if _has_onnxruntime():
        backends.append(("onnxruntime", file_limit, _onnxruntime(str(path))))
    load = functools.partial(
        openvino_predict, path, batch=entry.batch, classes=entry.model.classes, patch_zyx=entry.patch_zyx
    )
    backends.append(("openvino float32", file_limit, load(precision="float32")))
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        backends.append(("openvino bfloat16", LIMITS["bfloat16"], load(precision="bfloat16")))
    return backends


def _has_onnxruntime() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def _onnxruntime(model: str | bytes) -> Answer:
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda windows: session.run(None, {INPUT: windows})[0]


def _runner(model: onnx.ModelProto) -> Answer:
    if _has_onnxruntime():
        return _onnxruntime(model.SerializeToString())
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32}
    )
    return lambda windows: np.array(compiled(windows)[0])


def _in_batches(predict: Answer, entry: EngineEntry, windows: Windows) -> Heatmaps:
    """All windows, in batches of the engine's size; the last one is filled with copies."""
    size = entry.batch
    padded = np.take(windows, range(math.ceil(len(windows) / size) * size), axis=0, mode="wrap")
    parts = [np.asarray(predict(padded[i : i + size])) for i in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(windows)]


def _compare(model: str, backend: str, windows: str, found: Heatmaps, expected: Heatmaps, limit: float) -> Comparison:
    difference = found.astype(np.float64) - expected
    scale = np.sqrt(np.mean(np.square(expected, dtype=np.float64)))
    return Comparison(
        model=model,
        backend=backend,
        windows=windows,
        relative_rms=float(np.sqrt(np.mean(difference**2)) / scale) if scale else float(np.abs(difference).max()),
        largest=float(np.abs(difference).max()),
        limit=limit,
    )


def _table(comparisons: list[Comparison], ranges: list[Range]) -> str:
    rows: list[tuple[str, ...]] = [("model", "backend", "windows", "relative RMS", "limit", "max abs", "")]
    rows += [
        (c.model, c.backend, c.windows, f"{c.relative_rms:.1e}", f"{c.limit:.0e}", f"{c.largest:.1e}", _word(c.is_ok))
        for c in comparisons
    ]
    text = _aligned(rows)
    if ranges:
        rows = [("model", "float16 values of", "", "largest", "limit", "of its range", "")]
        limit = f"{FLOAT16_SHARE * _FLOAT16_MAX:.0f}"
        rows += [
            (r.model, r.module, "phantom", f"{r.largest:.3g}", limit, f"{r.largest / _FLOAT16_MAX:.2%}", _word(r.is_ok))
            for r in ranges
        ]
        text += "\n\n" + _aligned(rows)
    return text


def _word(is_ok: bool) -> str:
    return "ok" if is_ok else "OFF"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
