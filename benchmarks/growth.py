"""How time and memory grow with the number of tomograms and their depth.

python benchmarks/growth.py                            full-size volumes, a network that costs nothing: our own memory
python benchmarks/growth.py --engines jaxcryo/demo     1, 2, 4 tomograms, and 1, 2, 4 times the depth, with a network

Every row is a process of its own. Memory is the largest resident size less what the process has after its engines were
opened and had run once, so without the weights and what the engines need themselves.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr

FULL = (184, 630, 630)
PART = (64, 320, 320)
SPACING = (10.012444,) * 3


def main() -> None:
    """Prints a table, or is one of its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", help="a network instead of none")
    parser.add_argument("--row", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(_row([pathlib.Path(p) for p in args.row], args.engines)))
        return
    shape = PART if args.engines else FULL
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        rows = [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4)] if args.engines else [(1, 1), (1, 4)]
        for depth in sorted({d for _, d in rows}):
            voxels = np.random.default_rng(0).normal(5.3e-8, 7.2e-6, (shape[0] * depth, *shape[1:])).astype(np.float32)
            write_ome_zarr(place / f"depth{depth}.zarr", voxels, SPACING, levels=1)
        print(f"tomograms of {'×'.join(map(str, shape))} voxels by {args.engines or 'a network that costs nothing'}")
        print("tomograms  depth  seconds  seconds each and depth  GB over the engines")
        for count, depth in rows:
            command = [sys.executable, __file__, "--row", *[str(place / f"depth{depth}.zarr")] * count]
            command += ["--engines", args.engines] if args.engines else []
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds = result["seconds"]
            print(
                f"{count:9}  {depth:4}×  {seconds:7.1f}  {seconds / count / depth:22.1f}  {result['gigabytes']:19.2f}"
            )


def _row(paths: list[pathlib.Path], folder: str | None) -> dict[str, float]:
    from jaxcryo.config import InferenceConfig
    from jaxcryo.picking.pipeline import find_picks

    engines, types = _free_engines() if folder is None else _engines(pathlib.Path(folder))
    for engine in engines:
        np.asarray(engine.predict(np.zeros((engine.batch, *engine.patch_zyx), np.float32)))
    before = _gigabytes("VmRSS")
    began = time.perf_counter()
    for path in paths:
        find_picks(open_volume(path), engines, types, config=InferenceConfig())
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "gigabytes": _gigabytes("VmHWM") - before}


def _free_engines():  # type: ignore[no-untyped-def]
    """Windows of both architectures at paper size, averaged; six times the input is the answer."""
    import jax.numpy as jnp

    from jaxcryo.domain import CZII_TYPES
    from jaxcryo.models import architectures
    from jaxcryo.recipes import recipe
    from jaxcryo.runtime.opened import OpenModel

    engines = []
    for arch in architectures():
        config = recipe(arch)
        engines.append(
            OpenModel(
                name=arch, patch_zyx=config.model.patch_zyx, stride_zyx=config.inference.stride_zyx,
                batch=config.inference.batch, classes=6, intensity=config.intensity,
                predict=lambda w: jnp.broadcast_to(w[:, None] / 20, (len(w), 6, *w.shape[1:])),
            )
        )  # fmt: skip
    return engines, CZII_TYPES


def _engines(folder: pathlib.Path):  # type: ignore[no-untyped-def]
    from jaxcryo.runtime.backends import choose_backend, ensemble_types, open_model
    from jaxcryo.runtime.manifest import read_manifest

    entries = read_manifest(folder)
    backend, _ = choose_backend("auto", folder, entries)
    return [open_model(folder, e, backend) for e in entries], ensemble_types(entries)


def _gigabytes(field: str) -> float:
    """Of this program, as Linux counts it; what `getrusage` gives may be the parent's."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e9


if __name__ == "__main__":
    main()
