"""A tomogram from file to picks: the reference's way and ours, in one run on the same cores, windows and weights.

python benchmarks/tomogram.py                     (needs pip install -e '.[parity]')
python benchmarks/tomogram.py --arch yu4u --precision float32 --upsampling resize

The reference is the published networks' way: PyTorch's eager float32 network on batches of windows, heatmaps and
weights of the whole volume summed in NumPy, scipy's maximum filter. Both take freshly drawn weights at paper size; the
two alternate, and each figure is the median of its repeats.
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

from jaxcryo.convert.export import export
from jaxcryo.convert.onnx_models import OnnxOptions, convert_model
from jaxcryo.convert.onnx_write import multiply_adds
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, Volume
from jaxcryo.models import architectures, build
from jaxcryo.models.onnx_layers import Upsampling
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.picking.peaks import collect_peaks, find_peaks
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.reader import SlabReader
from jaxcryo.picking.stitch import Slab, heatmap_slabs
from jaxcryo.picking.windows import plan_windows, window_weight
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.recipes import recipe
from jaxcryo.runtime.backends import open_model
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr
from jaxcryo.weights import TrainedModel

sys.path += [str(pathlib.Path(__file__).parents[1] / "tests" / p) for p in ("parity", ".")]


def main() -> None:
    """Prints a table for each architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=tuple(architectures()), nargs="+", default=tuple(architectures()))
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 224, 272), metavar=("Z", "Y", "X"))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of ours")
    parser.add_argument("--upsampling", choices=("folded", "resize"), default="folded")
    parser.add_argument("--batch", type=int, help="windows at once (default: the recipe's)")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        voxels, _ = make_phantom(PhantomConfig(shape_zyx=tuple(args.shape)), seed=0)
        write_ome_zarr(place / "tomogram.zarr", voxels.load(), voxels.grid.spacing_zyx_angstrom)
        volume = open_volume(place / "tomogram.zarr")
        for arch in args.arch:
            _compare(arch, volume, place, args.precision, args.upsampling, args.batch, args.repeats)


def _compare(
    arch: str, volume: Volume, folder: pathlib.Path, precision: str, upsampling: Upsampling, batch: int | None,
    repeats: int,
) -> None:  # fmt: skip
    config = recipe(arch)
    _, params, stats = build(config.model)
    params["head.kernel"] = 100 * params["head.kernel"]  # heatmaps with peaks
    model = TrainedModel(
        config=config, types=CZII_TYPES, spacing_angstrom=volume.grid.spacing_angstrom, params=params, stats=stats,
        source="untrained",
    )  # fmt: skip
    options = OnnxOptions(upsampling=upsampling, batch=batch)
    entry = convert_model(model, arch, folder, options, source=str(folder / "untrained" / arch))
    entry = dataclasses.replace(entry, precision=precision)
    engine, timer = _timed(open_model(folder, entry, "openvino"))
    reference = _Reference(model, engine)
    plan = plan_windows(volume.grid.shape_zyx, engine.patch_zyx, engine.stride_zyx)
    work = 2 * multiply_adds(onnx.load(folder / entry.onnx_file)) / engine.batch
    all_peaks = find_picks(volume, [engine], CZII_TYPES, config=config.inference, floor=0.0)  # compiles
    types = _crowded(all_peaks)
    reference.predict(np.zeros((1, *engine.patch_zyx), np.float32))
    theirs, ours, networks, peaks_measured = [], [], [], []
    for _ in range(repeats):
        peaks_measured.append(_peak_flops(precision))
        timer.seconds = 0.0
        ours.append(_seconds(lambda: write_copick_picks(
            find_picks(volume, [engine], types, config=config.inference), folder / "picks")))  # fmt: skip
        networks.append(timer.seconds)
        theirs.append(_seconds(lambda: reference.picks(volume, types)))
    peaks_measured.append(_peak_flops(precision))
    own, network, other = float(np.median(ours)), float(np.median(networks)), float(np.median(theirs))
    peak = float(np.median(peaks_measured))
    found = np.concatenate([np.asarray(s.heatmap) for s in heatmap_slabs(volume, [engine])], axis=1)
    expected = reference.heatmap(volume)
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    parts = _parts(volume, engine, found, folder, types) | {"network": network}
    print(f"\n{arch}, {'×'.join(map(str, volume.grid.shape_zyx))} voxels, {plan.count} windows of "
          f"{'×'.join(map(str, engine.patch_zyx))}, {precision}, {upsampling}, batch {engine.batch}")  # fmt: skip
    print(f"  reference {other:7.1f} s  {plan.count / other:6.2f} windows/s")
    print(f"  ours      {own:7.1f} s  {plan.count / own:6.2f} windows/s   ratio {other / own:.2f}")
    print(f"  heatmaps differ by {error:.1e} relative RMS")
    rest = own - network
    print(f"  of our time {network / own:6.1%} in the network, {rest / own:6.1%} ({rest:.2f} s) in all the rest")
    print("  alone:      " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in parts.items()))
    rate = work * plan.count / network
    print(f"  network     {work / 2e9:.1f} G multiply-adds a window, {rate / 1e9:.0f} GFLOP/s of {peak / 1e9:.0f} in a "
          f"matrix product: {rate / peak:.0%}")  # fmt: skip


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
