"""int8 twins of a folder's models, with as many layers in int8 as possible without losing picks."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from jaxcryo.calling import command
from jaxcryo.convert.calibration_windows import phantom_calibration
from jaxcryo.convert.comparison import Heatmaps, Windows, aligned, compare, in_batches, phantom_windows
from jaxcryo.convert.int8_graph import Calibration, Layer, quantizable
from jaxcryo.convert.onnx_write import write_onnx
from jaxcryo.convert.precisions import (
    PickedPhantoms,
    PrecisionComparison,
    float_precisions,
    in_precision,
    measured,
    milliseconds,
    phantoms_for,
    pick_phantoms,
    precision_rows,
    record,
    seconds_per_window,
)
from jaxcryo.domain import Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path
from jaxcryo.models import build
from jaxcryo.models.onnx_layers import Upsampling
from jaxcryo.progress import Progress
from jaxcryo.runtime.manifest import (
    FILE_NAME,
    Int8Model,
    ModelEntry,
    RunPrecision,
    file_sha256,
    listed_files,
    read_manifest,
)
from jaxcryo.runtime.openvino import OpenVinoPredict, openvino_predict
from jaxcryo.weights import load_model

_CALIBRATION_PHANTOMS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """How all models of a folder are quantized and compared."""

    phantoms: int = 4
    """Number of phantoms to compare on."""
    shape_zyx: tuple[int, int, int] = (128, 400, 400)
    """Of these."""
    calibrate: Callable[[ModelEntry], tuple[Windows, str]] | None = None
    """Windows to calibrate a model on, and where they come from; None takes phantoms."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerReport:
    """The loss of accuracy and the gain of time from a layer in int8."""

    layer: Layer
    error: float
    """Relative RMS difference of the heatmaps if only this layer is in int8."""
    float_seconds: float | None
    """Time of a batch in float32; None if the layer is computed within another."""
    int8_seconds: float | None


def quantize_models(folder: pathlib.Path, options: QuantizeOptions, *, force: bool = False) -> bool:
    """Writes the int8 models, prints and records what was measured; returns whether none of them failed.

    Existing ones are kept without `force`, and where a new one fails.

    Raises:
        InputError: the folder cannot be used, or the phantoms are too small.
    """
    if options.phantoms < 1:
        raise InputError(f"--phantoms is {options.phantoms}; expected at least 1")
    complete = True
    for entry in read_manifest(folder):
        if entry.int8 is not None and not force:
            print(f"{entry.name}: already has an int8 model, which is kept; --force replaces it")
        else:
            complete &= quantize_model(folder, entry, options)
    return complete


def quantize_model(folder: pathlib.Path, entry: ModelEntry, options: QuantizeOptions) -> bool:
    """Quantizes one model; False if none could be written, and the folder is as it was."""
    graph, before = float32_graph(folder, entry), entry.int8
    layers = quantizable(graph)
    if not layers:
        print(f"{entry.name}: has no layer that could be computed in int8{_what_stays(folder, before)}")
        return False
    windows, of = (_phantoms if options.calibrate is None else options.calibrate)(entry)
    with tempfile.TemporaryDirectory() as place:
        trial = pathlib.Path(place)
        with Progress(desc=f"{entry.name}: calibrating", total=1, unit="set") as bar:
            calibration = Calibration(graph, windows, batch=entry.batch)
            bar.update()
        onnx.save(graph, trial / "float32.onnx")
        reports = _measured_layers(trial, entry, calibration, layers)
        int8 = Int8Model(
            onnx_file="int8.onnx", onnx_sha256="", calibrated_on=of, f4_change=None, agreement=0.0,
            cpu="", speedup=0.0,
        )  # fmt: skip
        entry = dataclasses.replace(entry, int8=int8)
        phantoms = list(phantoms_for(entry, options.phantoms, options.shape_zyx))
        kept, comparisons = _search(folder, trial, entry, calibration, reports, phantoms)
        print(aligned(layer_rows(reports, kept)))
        print(aligned(precision_rows(comparisons)))
        if len(kept) == len(layers):
            print(f"{entry.name}: no layer can be computed in int8 without losing picks{_what_stays(folder, before)}")
            return False
        # Under a new name: until the manifest is written, the folder stays as it was.
        sha256 = file_sha256(trial / int8.onnx_file)
        path = folder / f"{entry.name}-int8-{sha256[:8]}.onnx"
        with atomic_path(path) as fresh:
            fresh.write_bytes((trial / int8.onnx_file).read_bytes())
    kept_names = tuple(r.layer.name for r in kept)
    int8 = dataclasses.replace(int8, onnx_file=path.name, onnx_sha256=sha256, float_layers=kept_names)
    try:
        seconds = seconds_per_window(folder, dataclasses.replace(entry, int8=int8), (*float_precisions(), "int8"))
        int8 = measured(int8, comparisons[-1], seconds)
        record(folder, dataclasses.replace(entry, int8=int8))
    finally:
        _remove_unlisted(folder, entry.name)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, calibrated on {of}; {milliseconds(seconds)} a window, "
        f"{int8.speedup:.2f} times as fast as float; recorded in {folder / FILE_NAME}"
    )
    return True


def _what_stays(folder: pathlib.Path, before: Int8Model | None) -> str:
    if before is None:
        return "; it has no int8 model"
    again = command(f"convert check --int8 4 {folder}")
    return f"; the int8 model of before, {before.onnx_file}, stays ('{again}' compares it again)"


def _remove_unlisted(folder: pathlib.Path, name: str) -> None:
    """Removes int8 files of a model that the manifest does not list: replaced ones, and what runs left that were cut
    off.

    Only what is named by its own contents, as `quantize_model` names it.
    """
    with contextlib.suppress(InputError):  # a manifest that cannot be read is told by whatever reads it next
        listed = listed_files(folder)
        for path in folder.glob(f"{glob.escape(name)}-int8-????????.onnx"):
            if path.name not in listed and path.stem.endswith(file_sha256(path)[:8]):
                path.unlink(missing_ok=True)


def float32_graph(folder: pathlib.Path, entry: ModelEntry) -> onnx.ModelProto:
    """The model's network in float32, whatever the precision of its file, otherwise written like the file."""
    facts = {p.key: p.value for p in onnx.load(folder / entry.onnx_file, load_external_data=False).metadata_props}
    upsampling: Upsampling = "resize" if facts.get("upsampling") == "resize" else "folded"
    model = load_model(folder / entry.weights_file)
    network, _, _ = build(entry.model, seed=None)
    module = network.module(model.params, model.stats)
    return write_onnx(module, entry.model, batch=entry.batch, precision="float32", upsampling=upsampling)


def layers_to_keep(reports: Sequence[LayerReport], count: int) -> tuple[LayerReport, ...]:
    """The layers whose error is largest."""
    return tuple(sorted(reports, key=lambda r: -r.error)[:count])


def layer_rows(reports: Sequence[LayerReport], kept: Sequence[LayerReport]) -> list[tuple[str, ...]]:
    """A table's heading and a row for each layer, the largest error first."""
    rows: list[tuple[str, ...]] = [("layer", "multiply-adds", "error alone", "float32", "int8", "")]
    for report in layers_to_keep(reports, len(reports)):
        rows.append(
            (
                report.layer.name,
                f"{report.layer.share:.1%}",
                f"{report.error:.1e}",
                _ms(report.float_seconds),
                _ms(report.int8_seconds),
                "stays in float" if report in kept else "int8",
            )
        )
    return rows


def _phantoms(entry: ModelEntry) -> tuple[Windows, str]:
    windows = phantom_calibration(entry, phantoms=_CALIBRATION_PHANTOMS)
    return windows, f"{len(windows)} windows of {_CALIBRATION_PHANTOMS} phantoms"


def _measured_layers(
    trial: pathlib.Path, entry: ModelEntry, calibration: Calibration, layers: Sequence[Layer]
) -> list[LayerReport]:
    """Each layer alone in int8, on windows that it was not calibrated on; times with all of them in int8."""
    windows = phantom_windows(entry, entry.batch)
    expected, float_seconds = _timed(trial / "float32.onnx", entry, windows)
    path = trial / "layers.onnx"
    onnx.save(calibration.quantized(layers), path)
    _, int8_seconds = _timed(path, entry, windows)
    reports = []
    for layer in Progress(layers, desc=f"{entry.name}: layers", unit="layer"):
        onnx.save(calibration.quantized([layer]), path)
        found = in_batches(_opened(path, entry), entry, windows)
        error = compare(entry.name, "openvino", "phantom", found, expected, np.inf).relative_rms
        reports.append(
            LayerReport(
                layer=layer,
                error=error,
                float_seconds=_sum(float_seconds, layer.nodes),
                int8_seconds=_sum(int8_seconds, layer.nodes),
            )
        )
    return reports


def _search(
    folder: pathlib.Path,
    trial: pathlib.Path,
    entry: ModelEntry,
    calibration: Calibration,
    reports: Sequence[LayerReport],
    phantoms: Sequence[tuple[Volume, Picks]],
) -> tuple[tuple[LayerReport, ...], list[PrecisionComparison]]:
    """The layers that stay in float: the worst first, twice as many each time, until no picks are lost.

    The int8 model of the last comparison is left in `trial`.
    """
    assert entry.int8 is not None
    comparisons: list[PrecisionComparison] = []
    count = 0

    def picked(place: pathlib.Path, precision: RunPrecision, what: str) -> PickedPhantoms:
        with Progress(desc=f"{entry.name}: {what}", total=len(phantoms), unit="phantom") as bar:
            (found,) = pick_phantoms(place, [in_precision(entry, precision)], phantoms, on_search=bar.update)
        return found

    wide = picked(folder, "float32", "float32")
    while count < len(reports):
        kept = layers_to_keep(reports, count)
        onnx.save(calibration.quantized([r.layer for r in reports if r not in kept]), trial / entry.int8.onnx_file)
        narrow = picked(trial, "int8", f"int8 except {count} of {len(reports)} layers")
        comparisons.append(PrecisionComparison(model=entry.name, precision="int8", float32=wide, other=narrow))
        if comparisons[-1].change is None or comparisons[-1].is_good:
            return kept, comparisons
        count = max(2 * count, 1)
    return tuple(reports), comparisons


def _opened(path: pathlib.Path, entry: ModelEntry, *, timed: bool = False) -> OpenVinoPredict:
    return openvino_predict(
        path, batch=entry.batch, classes=entry.model.classes, patch_zyx=entry.patch_zyx, timed=timed
    )


def _timed(path: pathlib.Path, entry: ModelEntry, windows: Windows) -> tuple[Heatmaps, dict[str, float]]:
    """The heatmaps, and the seconds of each node."""
    predict = _opened(path, entry, timed=True)
    in_batches(predict, entry, windows)  # the first one is slower
    return in_batches(predict, entry, windows), predict.layer_seconds()


def _sum(seconds: Mapping[str, float], nodes: Sequence[str]) -> float | None:
    known = [seconds[n] for n in nodes if n in seconds]
    return sum(known) if known else None


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.1f} ms"
