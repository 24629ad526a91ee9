"""A tomogram from file to picks: the reference's way and ours in every precision, in one run on the same cores.

python benchmarks/tomogram.py                     (needs pip install -e '.[parity,int8]')
python benchmarks/tomogram.py --arch yu4u --precision float32 int8 --shape 16 176 176 --no-reference

The reference is the published networks' way: PyTorch's eager float32 network on batches of windows, heatmaps and
weights of the whole volume summed in NumPy, scipy's maximum filter. All take the same freshly drawn weights at paper
size; they take turns, and each figure is the median of its repeats. In int8 are all layers that can be: which of them
a trained network has to keep in float, `jaxcryo convert quantize` finds.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from scipy.ndimage import maximum_filter

from jaxcryo.config import InferenceConfig
from jaxcryo.convert.comparison import aligned, phantom_windows
from jaxcryo.convert.export import export
from jaxcryo.convert.int8_graph import Calibration, quantizable
from jaxcryo.convert.onnx_models import OnnxOptions, convert_model
from jaxcryo.convert.onnx_write import multiply_adds
from jaxcryo.convert.precisions import float_precisions
from jaxcryo.convert.quantize import float32_graph
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, Volume
from jaxcryo.models import architectures, build
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.picking.peaks import collect_peaks, find_peaks
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.reader import SlabReader
from jaxcryo.picking.stitch import Slab, heatmap_slabs
from jaxcryo.picking.windows import plan_windows, window_weight
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.recipes import recipe
from jaxcryo.runtime.backends import open_model
from jaxcryo.runtime.manifest import Int8Model, ModelEntry, RunPrecision, file_sha256
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr
from jaxcryo.weights import TrainedModel

sys.path += [str(pathlib.Path(__file__).parents[1] / "tests" / p) for p in ("parity", ".")]


def main() -> None:
    """Prints a table for each architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=tuple(architectures()), nargs="+", default=tuple(architectures()))
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 224, 272), metavar=("Z", "Y", "X"))
    parser.add_argument("--precision", choices=("float32", "bfloat16", "int8"), nargs="+", help="of ours (default: all "
                        "that this CPU has)", default=(*float_precisions(), "int8"))  # fmt: skip
    parser.add_argument("--upsampling", choices=("folded", "resize"), default="folded")
    parser.add_argument("--batch", type=int, help="windows at once (default: the recipe's)")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--no-reference", action="store_true", help="without PyTorch")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        voxels, _ = make_phantom(PhantomConfig(shape_zyx=tuple(args.shape)), seed=0)
        write_ome_zarr(place / "tomogram.zarr", voxels.load(), voxels.grid.spacing_zyx_angstrom)
        volume = open_volume(place / "tomogram.zarr")
        for arch in args.arch:
            options = OnnxOptions(upsampling=args.upsampling, batch=args.batch)
            _compare(arch, volume, place, args.precision, options, args.repeats, reference=not args.no_reference)


def _compare(
    arch: str, volume: Volume, folder: pathlib.Path, precisions: Sequence[RunPrecision], options: OnnxOptions,
    repeats: int, *, reference: bool,
) -> None:  # fmt: skip
    config = recipe(arch)
    _, params, stats = build(config.model)
    params["head.kernel"] = 100 * params["head.kernel"]  # heatmaps with peaks
    model = TrainedModel(
        config=config, types=CZII_TYPES, spacing_angstrom=volume.grid.spacing_angstrom, params=params, stats=stats,
        source="untrained",
    )  # fmt: skip
    entry = convert_model(model, arch, folder, options, source=str(folder / "untrained" / arch))
    if "int8" in precisions:
        entry = _with_int8(folder, entry)
    ours = {p: _Ours(folder, dataclasses.replace(entry, precision=p)) for p in precisions}
    first = next(iter(ours.values())).engine
    # Their thresholds are of one precision, so that all have as much to do.
    types = _crowded(find_picks(volume, [first], CZII_TYPES, config=config.inference, floor=0.0))
    theirs = _Reference(model, first) if reference else None
    for each in ours.values():
        find_picks(volume, [each.engine], types, config=config.inference)  # compiles
    if theirs is not None:
        theirs.predict(np.zeros((1, *first.patch_zyx), np.float32))
    their_seconds = []
    for _ in range(repeats):
        for each in ours.values():
            each.run(volume, types, config.inference, folder / "picks")
        if theirs is not None:
            their_seconds.append(_seconds(lambda: theirs.picks(volume, types)))
    plan = plan_windows(volume.grid.shape_zyx, first.patch_zyx, first.stride_zyx)
    work = 2 * multiply_adds(onnx.load(folder / entry.onnx_file)) / first.batch
    found = {p: each.heatmap(volume) for p, each in ours.items()}
    expected = next(iter(found.values())) if theirs is None else theirs.heatmap(volume)
    print(f"\n{arch}, {'×'.join(map(str, volume.grid.shape_zyx))} voxels, {plan.count} windows of "
          f"{'×'.join(map(str, first.patch_zyx))}, {work / 2e9:.1f} G multiply-adds each, {options.upsampling}, batch "
          f"{first.batch}")  # fmt: skip
    rows = [("", "seconds", "windows/s", "ratio", "heatmaps differ", "network", "the rest", "GFLOP/s", "of a product")]
    other = float(np.median(their_seconds)) if their_seconds else None
    if other is not None:
        rows.append(("reference", f"{other:.1f}", f"{plan.count / other:.2f}", "1", *[""] * 5))
    for precision, each in ours.items():
        seconds, network = float(np.median(each.seconds)), float(np.median(each.network_seconds))
        error = np.sqrt(np.mean((found[precision] - expected) ** 2) / np.mean(expected**2))
        rate, peak = work * plan.count / network, None if precision == "int8" else float(np.median(each.peaks))
        rows.append(
            (
                precision, f"{seconds:.1f}", f"{plan.count / seconds:.2f}",
                "" if other is None else f"{other / seconds:.2f}", f"{error:.1e}", f"{network / seconds:.1%}",
                f"{seconds - network:.2f} s", f"{rate / 1e9:.0f}", "" if peak is None else f"{rate / peak:.0%}",
            )
        )  # fmt: skip
    print(aligned(rows))
    parts = _parts(volume, first, next(iter(found.values())), folder, types)
    print("alone: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items()))


def _with_int8(folder: pathlib.Path, entry: ModelEntry) -> ModelEntry:
    """The model with all layers in int8 that can be."""
    graph = float32_graph(folder, entry)
    calibration = Calibration(graph, phantom_windows(entry, 2 * entry.batch), batch=entry.batch)
    file = folder / f"{entry.name}-int8.onnx"
    onnx.save(calibration.quantized(quantizable(graph)), file)
    int8 = Int8Model(
        onnx_file=file.name, onnx_sha256=file_sha256(file), calibrated_on="phantoms", f4_change=None, agreement=0.0,
        cpu="", speedup=0.0,
    )  # fmt: skip
    return dataclasses.replace(entry, int8=int8)


class _Ours:
    """A model in one precision, and what was measured of it."""

    def __init__(self, folder: pathlib.Path, entry: ModelEntry) -> None:
        self.precision = entry.precision
        self.engine, self._timer = _timed(open_model(folder, entry, "openvino"))
        self.seconds: list[float] = []
        self.network_seconds: list[float] = []
        self.peaks: list[float] = []

    def run(self, volume: Volume, types: tuple[ParticleType, ...], config: InferenceConfig, out: pathlib.Path) -> None:
        if self.precision != "int8":
            self.peaks.append(_peak_flops(self.precision))
        self._timer.seconds = 0.0
        self.seconds.append(
            _seconds(lambda: write_copick_picks(find_picks(volume, [self.engine], types, config=config), out))
        )
        self.network_seconds.append(self._timer.seconds)

    def heatmap(self, volume: Volume) -> np.ndarray:
        return np.concatenate([np.asarray(s.heatmap) for s in heatmap_slabs(volume, [self.engine])], axis=1)


@dataclasses.dataclass
class _Timer:
    seconds: float = 0.0


def _timed(engine: OpenModel) -> tuple[OpenModel, _Timer]:
    """The engine, and how long it is in its network."""
    timer, predict = _Timer(), engine.predict
    request = predict._request  # type: ignore[attr-defined]

    class Request:
        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            return getattr(request, name)

        def infer(self) -> None:
            began = time.perf_counter()
            request.infer()
            timer.seconds += time.perf_counter() - began

    predict._request = Request()  # type: ignore[attr-defined]
    return engine, timer


class _Reference:
    """Validation as the published code does it."""

    def __init__(self, model: TrainedModel, engine: OpenModel) -> None:
        import torch

        self.torch, self.engine = torch, engine
        if model.config.arch == "yu4u":
            from torch_reference import Yu4u

            network = Yu4u()
            state = {k.removeprefix("model."): torch.from_numpy(v) for k, v in export(model, "lightning").items()}
            network.load_state_dict(state)
            self.network = network.eval()
        else:
            from torch_tattaka import Tattaka

            self.network = Tattaka(model.config.model).load(export(model, "timm"), model.params | model.stats)

    def predict(self, windows: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            answer: np.ndarray = self.network(self.torch.from_numpy(windows)[:, None]).numpy()
        return answer

    def heatmap(self, volume: Volume) -> np.ndarray:
        engine, intensity = self.engine, self.engine.intensity
        plan = plan_windows(volume.grid.shape_zyx, engine.patch_zyx, engine.stride_zyx)
        axes = (plan.z, plan.y, plan.x)
        voxels = (volume.load() - np.float32(intensity.mean)) / np.float32(intensity.std)
        padded = np.pad(voxels, [(a.pad_before, a.padded - a.size - a.pad_before) for a in axes])
        sums = np.zeros((engine.classes, *padded.shape), np.float32)
        counts = np.zeros_like(sums)
        weight = window_weight(engine.patch_zyx)
        places = [
            tuple(slice(s, s + n) for s, n in zip(start, engine.patch_zyx, strict=True))
            for start in itertools.product(*(a.starts for a in axes))
        ]
        for first in range(0, len(places), engine.batch):
            batch = places[first : first + engine.batch]
            for place, answer in zip(batch, self.predict(np.stack([padded[p] for p in batch])), strict=True):
                sums[(slice(None), *place)] += answer * weight
                counts[(slice(None), *place)] += weight
        inside = tuple(slice(a.pad_before, a.pad_before + a.size) for a in axes)
        return (sums / counts)[(slice(None), *inside)]

    def picks(self, volume: Volume, types: Sequence[ParticleType]) -> list[np.ndarray]:
        heatmap = self.heatmap(volume)
        return [
            np.argwhere((maximum_filter(h, size=7) == h) & (h > t.threshold))
            for h, t in zip(heatmap, types, strict=True)
        ]


def _crowded(peaks: Picks) -> tuple[ParticleType, ...]:
    """Thresholds that leave forty particles of each type, since those of untrained networks say nothing."""
    assert peaks.score is not None
    scores = [np.sort(peaks.score[peaks.type_index == i])[::-1] for i in range(len(peaks.types))]
    return tuple(
        dataclasses.replace(t, threshold=float(s[min(40, len(s) - 1)]) if len(s) else 0.0)
        for t, s in zip(peaks.types, scores, strict=True)
    )


def _parts(
    volume: Volume, engine: OpenModel, heatmap: np.ndarray, folder: pathlib.Path, types: tuple[ParticleType, ...]
) -> dict[str, float]:
    """Seconds of the other steps, each alone."""
    depth = volume.grid.shape_zyx[0]
    read = SlabReader(volume).stream()
    instant = dataclasses.replace(
        engine, predict=lambda w: np.float32(0) * w[:, None] + np.zeros((engine.classes, 1, 1, 1), np.float32)
    )
    slabs = [Slab(z_start=z, heatmap=heatmap[:, z : z + 8]) for z in range(0, depth, 8)]  # type: ignore[arg-type]
    thresholds = [t.threshold for t in types]
    peaks = collect_peaks(find_peaks(slabs, thresholds))
    picks = Picks(
        run="tomogram", types=types, xyz_angstrom=volume.grid.to_angstrom(peaks.zyx_voxel),
        type_index=peaks.type_index, score=peaks.score,
    )  # fmt: skip
    for slab in heatmap_slabs(volume, [instant]):  # compiles
        slab.heatmap.block_until_ready()

    def stitch() -> None:
        for slab in heatmap_slabs(volume, [instant]):
            slab.heatmap.block_until_ready()

    return {
        "read": _seconds(lambda: [read(z, z + 8) for z in range(0, depth - 8, 8)]),
        "read, gather and stitch": _seconds(stitch),
        "peaks": _seconds(lambda: collect_peaks(find_peaks(slabs, thresholds))),
        "write": _seconds(lambda: write_copick_picks(picks, folder / "again")),
    }


def _peak_flops(precision: str, size: int = 2048, products: int = 8, repeats: int = 3) -> float:
    """What large matrix products, one after the other, reach in a precision, by the library that runs the network."""
    import openvino
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    value = first = ops.parameter([size, size], np.float32)
    for _ in range(products):
        value = ops.matmul(value, ops.constant(rng.standard_normal((size, size), np.float32) / 45), False, False)
    hint = openvino.Type.bf16 if precision == "bfloat16" else openvino.Type.f32
    compiled = openvino.Core().compile_model(
        openvino.Model([value], [first]), "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()
    x = rng.standard_normal((size, size), np.float32)
    request.infer([x])
    seconds = float(np.median([_seconds(lambda: request.infer([x])) for _ in range(repeats)]))
    return 2 * products * size**3 / seconds


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
