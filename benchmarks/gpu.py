"""What this project does on a card, in one command and under nine minutes: parity, training, inference.

python benchmarks/gpu.py --out gpu.json
python benchmarks/gpu.py --tiny         (any machine, small networks: whether the benchmark itself works)

Needs neither OpenVINO nor the internet. PyTorch and timm (pip install -e '.[parity]') are measured beside it where they
are installed, on the same card in the same run, and so is TensorRT. A part that fails is reported, and the others go
on; one that would begin after --minutes is left out. All of it is of untrained weights: times, memory and agreement, no
scores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# PyTorch and TensorRT share the card.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np

from jaxcryo.config import Precision, TrainConfig
from jaxcryo.convert.comparison import aligned
from jaxcryo.convert.onnx_models import OnnxOptions, convert_model
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.domain import CZII_TYPES, Volume
from jaxcryo.models import Weights, build
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.windows import plan_windows
from jaxcryo.recipes import recipe
from jaxcryo.runtime.cuda import find_gpus
from jaxcryo.runtime.manifest import ModelEntry, write_manifest
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.training.source import Example, source_of
from jaxcryo.training.state import initial_state
from jaxcryo.training.step import over_devices, replicate
from jaxcryo.weights import TrainedModel

sys.path += [str(pathlib.Path(__file__).parents[1] / "tests" / p) for p in ("parity", ".")]

ARCHS = ("yu4u", "tattaka")
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how large everything is."""

    archs: tuple[str, ...] = ARCHS
    size: str
    shape_zyx: tuple[int, int, int]
    """Of the phantom that is picked."""
    batch: int
    """Samples of a training step."""
    repeats: int
    precisions: tuple[Precision, ...]
    matrix: int
    """Side of the matrix products that a card's peak is taken from."""

    def config(self, arch: str) -> TrainConfig:
        """The recipe with the plan's batch."""
        config = recipe(arch, self.size)
        return dataclasses.replace(config, optim=dataclasses.replace(config.optim, batch=self.batch, accumulate=1))


PAPER = Plan(
    size="paper", shape_zyx=(184, 630, 630), batch=8, repeats=5, precisions=("float32", "bfloat16", "float16"),
    matrix=8192,
)  # fmt: skip
TINY = Plan(size="tiny", shape_zyx=(16, 64, 64), batch=2, repeats=1, precisions=("float16",), matrix=128)
"""One precision, since all that takes time in it is compiling."""


class NothingToRunError(Exception):
    """A part has nothing to run here; says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all parts; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small networks and a small phantom, on any machine")
    parser.add_argument("--arch", choices=ARCHS, nargs="+", default=ARCHS)
    parser.add_argument("--parts", choices=tuple(PARTS), nargs="+", default=tuple(PARTS), metavar="PART")
    parser.add_argument("--minutes", type=float, default=8.5, help="no part begins later than this")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write; it grows with every part")
    args = parser.parse_args(argv)
    plan = dataclasses.replace(TINY if args.tiny else PAPER, archs=tuple(args.arch))
    return run({name: PARTS[name] for name in args.parts}, plan, minutes=args.minutes, out=args.out)


def run(
    parts: dict[str, Callable[[Plan], Iterator[Row]]], plan: Plan, *, minutes: float, out: pathlib.Path | None
) -> int:
    """Runs the parts one after the other, prints each row as it is measured and a table at the end."""
    began = time.monotonic()
    rows: list[Row] = []
    failed: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, part in parts.items():
        if time.monotonic() - began > 60 * minutes:
            left_out[name] = "no time was left"
        else:
            print(f"-- {name}", flush=True)
            try:
                for row in part(plan):
                    rows.append({"part": name} | row)
                    print("  ".join(str(v) for v in _cells(rows[-1])), flush=True)
            except NothingToRunError as reason:
                left_out[name] = str(reason)
            except Exception as error:  # whatever it is, the other parts are wanted
                failed[name] = f"{type(error).__name__}: {error}"
        if out is not None:
            result = {"plan": dataclasses.asdict(plan), "rows": rows, "failed": failed, "left_out": left_out}
            out.write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + aligned([("part", "what", "value", "unit", "")] + [_cells(row) for row in rows]))
    for title, several in (("left out", left_out), ("FAILED", failed)):
        for name, why in several.items():
            print(f"{title}: {name}: {why[:500]}")
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def _cells(row: Row) -> tuple[str, ...]:
    value = row["value"]
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return row["part"], row["what"], shown, row.get("unit", ""), row.get("note", "")


def device(plan: Plan) -> Iterator[Row]:
    """The card and the versions."""
    for found in jax.local_devices():
        yield {"what": f"JAX device {found.id}", "value": f"{found.device_kind} ({found.platform})"}
    for gpu in find_gpus():
        memory = f"{gpu.memory_bytes / 2**30:.1f} GiB, driver for CUDA {gpu.driver}"
        yield {"what": gpu.name, "value": f"compute capability {gpu.compute_capability}, {memory}"}
    for package in ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "torch", "tensorrt"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield {"what": package, "value": importlib.metadata.version(package)}


def peak(plan: Plan) -> Iterator[Row]:
    """What matrix products reach."""
    for precision in plan.precisions:
        yield {"what": precision, "value": peak_flops(precision, plan) / 1e12, "unit": "TFLOP/s"}


def parity(plan: Plan) -> Iterator[Row]:
    """Heatmaps on the card against those of the CPU in float32, relative RMS; yu4u's also against the golden ones."""
    cpu = jax.local_devices(backend="cpu")[0]
    for arch in plan.archs:
        config = plan.config(arch)
        _, params, stats = build(config.model)
        windows = _windows(plan, config, 2)
        network = build(config.model, seed=None)[0]
        with jax.default_device(cpu), jax.default_matmul_precision("float32"):
            here = jax.device_put((params, stats, windows), cpu)
            expected = np.asarray(jax.jit(network.apply)(*here))
        for precision in plan.precisions:
            found = np.asarray(_apply(config, precision)(params, stats, windows)).astype(np.float64)
            error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected.astype(np.float64) ** 2))
            yield {"what": f"{arch} {precision}", "value": float(error), "unit": "relative RMS"}


def golden(plan: Plan) -> Iterator[Row]:
    """yu4u's network against the published one's heatmaps, in float32."""
    if plan.size != "paper":
        raise NothingToRunError("golden heatmaps are of paper size")
    from golden.rungs import network

    for rung in network():
        note = f"tolerance {rung.tolerance:.0e}, set on CPUs"
        yield {"what": rung.name, "value": float(rung.error), "unit": rung.against, "note": note}


def training(plan: Plan) -> Iterator[Row]:
    """A step of each recipe, samples drawn in it, by pmap over all devices."""
    for arch in plan.archs:
        for precision in plan.precisions:
            config = dataclasses.replace(plan.config(arch), precision=precision)
            seconds, loss, memory = _our_step(plan, config)
            devices = jax.local_device_count()
            note = f"loss {loss:.3g}, pmap over {devices}" + (f", {memory / 2**30:.1f} GiB at most" if memory else "")
            yield {
                "what": f"{arch} {precision}", "value": config.optim.batch * devices / seconds, "unit": "samples/s",
                "note": note,
            }  # fmt: skip


def training_torch(plan: Plan) -> Iterator[Row]:
    """The same steps by PyTorch, of windows and targets that are ready."""
    torch = _torch(plan)
    for arch in plan.archs:
        config = plan.config(arch)
        for name, prepare in (("eager", lambda network: network), ("compiled", torch.compile)):
            torch.cuda.reset_peak_memory_stats()
            network = _torch_network(arch, config).cuda().train()
            step = _torch_step(torch, prepare(network), network.parameters(), plan, config)
            seconds = _median(step, plan.repeats, torch.cuda.synchronize)
            memory = torch.cuda.max_memory_allocated() / 2**30
            yield {
                "what": f"{arch} {name} bfloat16", "value": plan.batch / seconds, "unit": "samples/s",
                "note": f"{memory:.1f} GiB at most",
            }  # fmt: skip
            del network, step
            torch.cuda.empty_cache()


def inference(plan: Plan) -> Iterator[Row]:
    """A whole phantom to picks, by Flax."""
    volume = _phantom(plan.shape_zyx)
    for arch in plan.archs:
        config = plan.config(arch)
        _, params, stats = build(config.model)
        windows = plan_windows(volume.grid.shape_zyx, config.model.patch_zyx, config.inference.stride_zyx).count
        for precision in plan.precisions:
            apply = _apply(config, precision)
            model = OpenModel(
                name=arch, patch_zyx=config.model.patch_zyx, stride_zyx=config.inference.stride_zyx,
                batch=config.inference.batch, classes=config.model.classes, intensity=config.intensity,
                padding=config.inference.padding, predict=jax.tree_util.Partial(apply, params, stats),
            )  # fmt: skip
            flops = _flops(apply, params, stats, _windows(plan, config, 1))
            yield _picked(f"{arch} {precision}", volume, model, config, windows, flops, peak_flops(precision, plan))


def inference_torch(plan: Plan) -> Iterator[Row]:
    """The networks alone, eager in float16, batch after batch."""
    torch = _torch(plan)
    for arch in plan.archs:
        config = plan.config(arch)
        network = _torch_network(arch, config).cuda().eval().half()
        batch = config.inference.batch
        x = torch.zeros((batch, 1, *config.model.patch_zyx), dtype=torch.float16, device="cuda")
        with torch.inference_mode():
            seconds = _median(lambda n=network, x=x: n(x), plan.repeats, torch.cuda.synchronize)
        yield {"what": f"{arch} eager float16, network alone", "value": batch / seconds, "unit": "windows/s"}
        del network
        torch.cuda.empty_cache()


def tensorrt(plan: Plan) -> Iterator[Row]:
    """A whole phantom to picks, by TensorRT in float16."""
    if importlib.util.find_spec("tensorrt") is None or not find_gpus():
        raise NothingToRunError("there is no TensorRT with a card")
    from jaxcryo.convert.engines import build_engines
    from jaxcryo.runtime.backends import open_model

    volume = _phantom(plan.shape_zyx)
    for arch in plan.archs:
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            entry = _converted(arch, plan, folder)
            began = time.perf_counter()
            agrees = build_engines(folder, workspace_gib=4.0, optimization_level=3, force=True)
            yield {
                "what": f"{arch}: engine",
                "value": time.perf_counter() - began,
                "unit": "s",
                "note": f"ok: {agrees}",
            }
            config = plan.config(arch)
            windows = plan_windows(volume.grid.shape_zyx, entry.patch_zyx, entry.stride_zyx).count
            model = open_model(folder, entry, "tensorrt")
            yield _picked(f"{arch} float16", volume, model, config, windows, None, None)


PARTS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "device": device,
    "matrix product": peak,
    "parity": parity,
    "inference": inference,
    "inference, PyTorch": inference_torch,
    "training step": training,
    "training step, PyTorch": training_torch,
    "inference, TensorRT": tensorrt,
    "golden parity": golden,
}
"""In the order of their worth, for --minutes."""


def peak_flops(precision: Precision, plan: Plan) -> float:
    """Operations a second of large matrix products."""
    side, products = plan.matrix, 8
    x = jnp.asarray(np.random.default_rng(0).standard_normal((side, side)) / np.sqrt(side), jnp.dtype(precision))

    @jax.jit
    def multiply(x: jax.Array) -> jax.Array:
        value = x
        for _ in range(products):
            value = value @ x
        return value

    return 2 * products * side**3 / _median(lambda: multiply(x).block_until_ready(), plan.repeats)


def _picked(
    what: str, volume: Volume, model: OpenModel, config: TrainConfig, windows: int, flops: float | None,
    reachable: float | None,
) -> Row:  # fmt: skip
    def pick() -> object:
        return find_picks(volume, [model], CZII_TYPES, config=config.inference, floor=0.5)

    began = time.perf_counter()
    pick()
    first = time.perf_counter() - began
    began = time.perf_counter()
    pick()
    seconds = time.perf_counter() - began
    note = f"{seconds:.1f} s a tomogram, {first:.1f} s with compiling"
    if flops is not None and reachable is not None:
        note += f", {flops * windows / seconds / reachable:.0%} of a matrix product's rate"
    return {"what": what, "value": windows / seconds, "unit": "windows/s", "note": note}


def _our_step(plan: Plan, config: TrainConfig) -> tuple[float, float, int]:
    """Seconds of a step, the last loss, and the bytes that were in use at most (0 where that is not known)."""
    devices = jax.local_devices()
    optim = dataclasses.replace(config.optim, batch=config.optim.batch * len(devices))
    config = dataclasses.replace(config, optim=optim)
    network, params, stats = build(config.model, dtype=jnp.dtype(config.precision))
    state = replicate(
        initial_state(params, stats, total_steps=100, config=optim, half_precision=config.precision == "float16")
    )
    z, y, x = (n + n // 2 for n in config.model.patch_zyx)
    volume, picks = make_phantom(PhantomConfig(shape_zyx=(z, y, x)), seed=0)
    source = source_of([Example(volume=volume, picks=picks)], config)
    step = over_devices(network, config, sigmas_voxel(CZII_TYPES, config.target, volume.grid.spacing_angstrom))
    times = []
    before = _peak_bytes(devices[0])
    with contextlib.closing(source):
        for number in range(plan.repeats + 1):
            batch = source.batch(number)
            began = time.perf_counter()
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - began)
    after = _peak_bytes(devices[0])
    memory = after if after > before else 0  # the peak is never reset: one that did not grow is of a case before
    return statistics.median(times[1:]), float(np.asarray(metrics["loss"]).ravel()[0]), memory


def _peak_bytes(device: jax.Device) -> int:
    return int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))


@functools.cache
def _apply(config: TrainConfig, precision: Precision) -> Callable[..., jax.Array]:
    return jax.jit(build(config.model, seed=None, dtype=jnp.dtype(precision))[0].apply)


def _flops(apply: Any, params: Weights, stats: Weights, windows: jax.Array) -> float | None:
    """By XLA's count, of one window; None where it does not say."""
    costs = apply.lower(params, stats, windows).cost_analysis()
    return None if not costs else costs.get("flops")


def _phantom(shape_zyx: tuple[int, int, int]) -> Volume:
    return make_phantom(PhantomConfig(shape_zyx=shape_zyx), seed=0)[0]


def _windows(plan: Plan, config: TrainConfig, count: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal((count, *config.model.patch_zyx), np.float32))


def _converted(arch: str, plan: Plan, folder: pathlib.Path) -> ModelEntry:
    config = plan.config(arch)
    _, params, stats = build(config.model)
    model = TrainedModel(
        config=config, types=CZII_TYPES, spacing_angstrom=10.012444, params=params, stats=stats, source="untrained"
    )
    entry = convert_model(model, arch, folder, OnnxOptions(precision="float16"), source=f"untrained/{arch}")
    write_manifest(folder, [entry])
    return entry


def _torch(plan: Plan) -> Any:
    """PyTorch; raises NothingToRunError where it has nothing to do here."""
    if plan.size != "paper":
        raise NothingToRunError("the networks in PyTorch are of paper size")
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("timm") is None:
        raise NothingToRunError("torch and timm are not installed")
    import torch

    if not torch.cuda.is_available():
        raise NothingToRunError("PyTorch sees no card")
    return torch


def _torch_network(arch: str, config: TrainConfig) -> Any:
    if arch == "yu4u":
        from torch_reference import Yu4u

        return Yu4u()
    from torch_tattaka import Tattaka

    return Tattaka(config.model)


def _torch_step(torch: Any, network: Any, parameters: Any, plan: Plan, config: TrainConfig) -> Callable[[], None]:
    rule = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0)
    shape = config.model.patch_zyx
    x = torch.randn((plan.batch, 1, *shape), device="cuda")
    y = torch.rand((plan.batch, config.model.classes, *shape), device="cuda") ** 8

    def step() -> None:
        rule.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = ((network(x) - y) ** 2 * (y + 0.1)).mean()
        loss.backward()
        rule.step()

    return step


def _median(call: Callable[[], object], repeats: int, wait: Callable[[], object] = lambda: None) -> float:
    """Seconds of a call, once it has been made before."""
    call()
    wait()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
