"""Peaks of a full-size heatmap: how fast they are found, and what merging and refining them does to the score.

python benchmarks/peaks.py                                        speed, beside scipy.ndimage.maximum_filter
python benchmarks/peaks.py --engines out/ --data data/phantom     also scores, on runs that no training has seen
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from jaxcryo.config import InferenceConfig
from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.metric import RADIUS_SHARE, score
from jaxcryo.picking.peaks import collect_peaks, find_peaks
from jaxcryo.picking.pipeline import find_picks, picks_of_peaks
from jaxcryo.picking.stitch import Slab
from jaxcryo.project.dataset import find_runs, read_truth
from jaxcryo.runtime.backends import choose_backend, ensemble_types, open_model
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.tomogram.volumes import open_volume


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(184, 630, 630), metavar=("Z", "Y", "X"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", type=pathlib.Path)
    parser.add_argument("--data", help="with test runs whose picks are known")
    args = parser.parse_args()
    _speed(tuple(args.shape), args.repeats)
    if args.engines is not None:
        _scores(args.engines, args.data)


def _speed(shape: tuple[int, int, int], repeats: int) -> None:
    thresholds = [0.3] * len(CZII_TYPES)
    rng = np.random.default_rng(0)
    heatmap = np.stack([_heatmap(shape, rng) for _ in thresholds])
    slabs = [Slab(z_start=z, heatmap=jnp.asarray(heatmap[:, z : z + 8])) for z in range(0, shape[0], 8)]

    def ours() -> int:
        return len(collect_peaks(find_peaks(slabs, thresholds)))

    def reference() -> int:
        return sum(int(((maximum_filter(h, size=7, mode="constant") == h) & (h > 0.3)).sum()) for h in heatmap)

    counts = ours(), reference()  # also compiles
    times = [(_seconds(reference), _seconds(ours)) for _ in range(repeats)]
    theirs, own = np.median(times, axis=0)
    print(f"7×7×7 peaks of {len(thresholds)}×{'×'.join(map(str, shape))}: {counts[0]} peaks, {counts[1]} by scipy")
    print(f"scipy.ndimage.maximum_filter {theirs:.2f} s, ours {own:.2f} s, ratio {theirs / own:.1f}")


def _heatmap(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """A hundred particles and a background of waves, as a trained network answers a tomogram."""
    impulses = np.zeros(shape, np.float32)
    impulses[tuple(rng.integers(0, n, 100) for n in shape)] = 1
    waves = gaussian_filter(rng.standard_normal(shape, np.float32), 3)
    particles = gaussian_filter(impulses, 5)
    return particles / particles.max() + waves * np.float32(0.05 / waves.std())


def _scores(folder: pathlib.Path, data: str) -> None:
    entries = read_manifest(folder)
    types = ensemble_types(entries)
    backend, _ = choose_backend("auto", folder, entries)
    engines = [open_model(folder, e, backend) for e in entries]
    runs = find_runs(data, split="test")
    truth = read_truth(data, types, [r.name for r in runs])
    slabs: list[tuple[str, Slab]] = []
    for run in runs:
        volume = open_volume(run.volume_path, name=run.name)
        find_picks(
            volume, engines, types, config=entries[0].inference,
            on_slab=lambda s, name=run.name: slabs.append((name, s)),  # type: ignore[misc]
        )  # fmt: skip
    jax.block_until_ready([s.heatmap for _, s in slabs])
    grids = {r.name: open_volume(r.volume_path, name=r.name).grid for r in runs}
    print("\nmerge radius  refined  weighted F4  distance to the truth in voxels: mean  median")
    for merge in (0.0, 0.5, 0.7, 0.9):
        for refine in (False, True):
            config = dataclasses.replace(entries[0].inference, merge_radius=merge, refine=refine)
            found = {name: _picks(name, slabs, types, grids[name], config) for name in grids}
            distance = np.concatenate([_distances(truth[n], found[n], grids[n].spacing_angstrom) for n in grids])
            print(
                f"{merge:12.1f}  {'yes' if refine else 'no':7}  {score(truth, found, types).weighted_f4:11.3f}  "
                f"{distance.mean():37.2f}  {np.median(distance):6.2f}"
            )


def _picks(name, slabs, types, grid, config: InferenceConfig) -> Picks:  # type: ignore[no-untyped-def]
    own = (s for n, s in slabs if n == name)
    peaks = collect_peaks(find_peaks(own, [t.threshold for t in types], nms_voxel=config.nms_voxel))
    return picks_of_peaks(peaks, name, grid, types, config)


def _distances(truth: Picks, found: Picks, spacing_angstrom: float) -> np.ndarray:
    """Of each known particle that was found to its nearest pick."""
    parts = []
    for i, kind in enumerate(truth.types):
        real, own = truth.of_type(i), found.of_type(i)
        if len(real) and len(own):
            nearest = np.linalg.norm(real[:, None] - own[None], axis=-1).min(axis=1)
            parts.append(nearest[nearest <= RADIUS_SHARE * kind.radius_angstrom])
    return np.concatenate(parts) / spacing_angstrom


def _seconds(call) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
