"""Whether two runtimes give the same heatmaps: the windows, the measure, and the table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import INPUT
from jaxcryo.tomogram.normalization import normalization

Windows = Float[NDArray[np.float32], "n d h w"]
Answer = Callable[[Any], Any]
"""Windows to heatmaps, or to other outputs of a model."""
Heatmaps = Float[NDArray[np.float32], "n c d h w"]

_SEED = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One runtime against another on one kind of windows."""

    model: str
    backend: str
    windows: str
    relative_rms: float
    largest: float
    """Largest absolute difference anywhere in the heatmaps."""
    limit: float

    @property
    def is_ok(self) -> bool:
        """Whether it is within its limit; NaN is not."""
        return self.relative_rms <= self.limit


def kinds_of_windows(entry: ModelEntry, count: int) -> dict[str, Windows]:
    """Noise and a phantom, `count` windows of each."""
    return {"noise": _noise(entry, count), "phantom": phantom_windows(entry, count)}


def phantom_windows(entry: ModelEntry, count: int) -> Windows:
    """Overlapping windows of a synthetic tomogram of the entry's particles, as its network sees them."""
    depth, height, width = entry.patch_zyx
    step = width // 4
    config = PhantomConfig(
        shape_zyx=(depth, height, width + (count - 1) * step),
        spacing_angstrom=entry.spacing_angstrom,
        types=entry.types,
    )
    volume, _ = make_phantom(config, seed=_SEED)
    voxels = normalization(volume, entry.intensity)(volume.load())
    return np.stack([voxels[:, :, i * step : i * step + width] for i in range(count)])


def _noise(entry: ModelEntry, count: int) -> Windows:
    return np.random.default_rng(_SEED).standard_normal((count, *entry.patch_zyx), np.float32)


def onnxruntime_answer(model: str | bytes) -> Answer:
    """An ONNX model, by its path or its bytes, run by ONNX Runtime on this CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda windows: session.run(None, {INPUT: windows})[0]


def in_batches(predict: Answer, entry: ModelEntry, windows: Windows) -> Heatmaps:
    """All windows, in batches of the model's size; the last one is filled with copies."""
    size = entry.batch
    padded = np.take(windows, range(math.ceil(len(windows) / size) * size), axis=0, mode="wrap")
    parts = [np.asarray(predict(padded[i : i + size])) for i in range(0, len(padded), size)]
    return np.concatenate(parts)[: len(windows)]


def compare(model: str, backend: str, windows: str, found: Heatmaps, expected: Heatmaps, limit: float) -> Comparison:
    """The difference between what was found and what was expected."""
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


def comparison_rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """A table's heading and a row for each comparison."""
    rows: list[tuple[str, ...]] = [("model", "backend", "windows", "relative RMS", "limit", "max abs", "")]
    rows += [
        (c.model, c.backend, c.windows, f"{c.relative_rms:.1e}", f"{c.limit:.0e}", f"{c.largest:.1e}", word(c.is_ok))
        for c in comparisons
    ]
    return rows


def word(is_ok: bool) -> str:
    """A table's last column."""
    return "ok" if is_ok else "FAIL"


def aligned(rows: list[tuple[str, ...]]) -> str:
    """Rows as text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
