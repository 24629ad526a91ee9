"""The bundled models beside template matching with the true templates, on the same phantoms: F4 and seconds.

    pip install -e '.[benchmark]'
    python benchmarks/template_matching.py --engines jaxcryo/demo --runs 2
    python benchmarks/template_matching.py --engines out/ --particles particles.toml

Template matching is pytme's, with a spherical mask and the phantom's own wedge. Its thresholds are the best in
hindsight, since it has none of its own; the models' are those of the aim `recall`, found without truth, and the best in
hindsight beside them. With rotations of 30° on two cores: some minutes a phantom and type.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from jaxtyping import Float
from numpy.typing import NDArray
from thresholds import best_threshold

from jaxcryo.calibration import mean_calibration
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.metric import Score, score
from jaxcryo.phantom.drawing import draw_phantom
from jaxcryo.phantom.settings import REAL_CONTENTS, DrawConfig
from jaxcryo.phantom.splatting import splat
from jaxcryo.phantom.structures import BUILT_IN, structure_beads
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.preprocess import fit_volume
from jaxcryo.picking.thresholds import decide
from jaxcryo.picks.candidates import floor_of
from jaxcryo.project.particles import read_structured_particles
from jaxcryo.runtime.backends import choose_backend, open_model
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.tomogram.statistics import surveyed

SEED, FAMILY = 2026, 78
"""Seeds of trainings have other numbers here."""
MOST = 400
"""Candidates of a type in one tomogram."""
LOWPASS_ANGSTROM = 30.0


def main() -> None:
    """Draws, matches, picks, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=pathlib.Path, default=pathlib.Path("jaxcryo/demo"))
    parser.add_argument("--runs", type=int, default=1, help="phantoms")
    parser.add_argument("--particles", help="file that names the structure of each of the models' particles")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 256, 256))
    parser.add_argument("--angles", type=float, default=30.0, metavar="DEGREE", help="between rotations")
    options = parser.parse_args()
    entries = read_manifest(options.engines)
    types = entries[0].types
    backend, _ = choose_backend("auto", options.engines, entries)
    models = [open_model(options.engines, e, backend) for e in entries]
    calibration = mean_calibration([e.calibration for e in entries])
    structures = _structures(options.particles, types)
    config = DrawConfig.real(types=types, structures=structures if options.particles else ())
    config = dataclasses.replace(config, contents=dataclasses.replace(REAL_CONTENTS, abundance=(3.0, 3.0)))
    by_models, by_templates, truths = [], [], []
    seconds = {"models": 0.0, "templates": 0.0}
    for run in range(options.runs):
        shape = tuple(options.shape)
        phantom = draw_phantom(config, (SEED, FAMILY, run), shape)
        grid, name = config.grid(shape), f"phantom {run}"
        volume = surveyed(Volume(name=name, voxels=phantom.voxels, grid=grid))
        position = grid.to_angstrom(phantom.centers_zyx_voxel)
        truths.append(Picks(run=name, types=types, xyz_angstrom=position, type_index=phantom.type_index))
        began = time.perf_counter()
        fitted = fit_volume(volume, entries)
        by_models.append(find_picks(fitted, models, types, config=entries[0].inference, floor=floor_of(types)))
        seconds["models"] += time.perf_counter() - began
        began = time.perf_counter()
        plain = Volume(name=name, voxels=phantom.voxels, grid=grid)
        by_templates.append(_match(plain, types, structures, phantom.imaging.tilt_range_degree, options.angles))
        seconds["templates"] += time.perf_counter() - began
        print(f"{name}: {len(truths[-1])} particles", flush=True)
    decision = decide(by_models, types, calibration)
    own = score(_by_run(truths), {p.run: decision.select(p) for p in by_models}, decision.types)
    print(f"{'':34}  weighted F4  {'  '.join(t.name for t in types)}  seconds a phantom")
    _print("models, recall, without truth", own, types, seconds["models"] / options.runs)
    _print("models, best in hindsight", _hindsight(by_models, truths, types), types, seconds["models"] / options.runs)
    best = _hindsight(by_templates, truths, types)
    _print(f"templates ({options.angles:g}°), best in hindsight", best, types, seconds["templates"] / options.runs)


def _print(name: str, result: Score, types: Sequence[ParticleType], seconds: float) -> None:
    shares = "  ".join(f"{c.f_beta:{len(t.name)}.2f}" for t, c in zip(types, result.counts, strict=True))
    print(f"{name:34}  {result.weighted_f4:11.3f}  {shares}  {seconds:.0f}")


def _structures(particles: str | None, types: Sequence[ParticleType]) -> tuple[str, ...]:
    """Of each type: what the file names, else the built-in one."""
    if particles is None:
        return tuple(BUILT_IN[t.name].beads for t in types)
    named = read_structured_particles(particles, measure=lambda s: structure_beads(s).radius_angstrom)
    by_name = {entry.type.name: entry.structure for entry in named}
    return tuple(by_name.get(t.name) or BUILT_IN[t.name].beads for t in types)


def _match(
    volume: Volume,
    types: Sequence[ParticleType],
    structures: Sequence[str],
    tilts_degree: float,
    angles_degree: float,
) -> Picks:
    """Peaks of the correlation with each type's template, over all rotations."""
    spacing = volume.grid.spacing_angstrom
    voxels = -np.asarray(volume.voxels, np.float32)  # particles are dark
    voxels = (voxels - voxels.mean()) / voxels.std()
    positions, kinds, scores = [], [], []
    for index, (kind, structure) in enumerate(zip(types, structures, strict=True)):
        correlation = _correlation(voxels, _template(structure, spacing), tilts_degree, angles_degree)
        width = max(3, 2 * round(0.5 * kind.radius_angstrom / spacing) + 1)
        peaks = np.argwhere((scipy.ndimage.maximum_filter(correlation, size=width) == correlation) & (correlation > 0))
        height = correlation[tuple(peaks.T)]
        best = np.argsort(-height)[:MOST]
        positions.append(peaks[best].astype(np.float64))
        scores.append(height[best].astype(np.float64))
        kinds.append(np.full(len(best), index))
    return Picks(
        run=volume.name,
        types=tuple(types),
        xyz_angstrom=volume.grid.to_angstrom(np.concatenate(positions)),
        type_index=np.concatenate(kinds),
        score=np.concatenate(scores),
    )


def _correlation(
    voxels: Float[NDArray[np.float32], "z y x"],
    template: Float[NDArray[np.float32], "n n n"],
    tilts_degree: float,
    angles_degree: float,
) -> Float[NDArray[np.float32], "z y x"]:
    """The highest over all rotations at each voxel."""
    # pytme is no dependency of the program.
    from tme.analyzer import MaxScoreOverRotations
    from tme.filters import Compose, WedgeReconstructed
    from tme.matching_data import MatchingData
    from tme.matching_exhaustive import MATCHING_EXHAUSTIVE_REGISTER, match_exhaustive
    from tme.rotations import get_rotation_matrices

    offset = np.indices(template.shape) - (np.array(template.shape)[:, None, None, None] - 1) / 2
    mask = (np.sqrt((offset**2).sum(axis=0)) <= template.shape[0] / 2 - 1).astype(np.float32)
    data = MatchingData(voxels, template, template_mask=mask)
    data.rotations = get_rotation_matrices(angular_sampling=angles_degree, dim=3)
    ends = (tilts_degree, tilts_degree)
    wedge = WedgeReconstructed(angles=ends, create_continuous_wedge=True, tilt_axis=1, opening_axis=0)
    data.template_filter = Compose((wedge,))
    setup, matching = MATCHING_EXHAUSTIVE_REGISTER["FLCSphericalMask"]
    result: Any = match_exhaustive(
        matching_data=data,
        matching_score=matching,
        matching_setup=setup,
        callback_class=MaxScoreOverRotations,
        callback_class_args={"score_threshold": 0},
        job_schedule=(1, 1),
    )
    return np.asarray(result[0], np.float32)


def _template(structure: str, spacing_angstrom: float) -> Float[NDArray[np.float32], "n n n"]:
    """The true density of a structure, smoothed."""
    beads = structure_beads(structure)
    half = int(np.ceil((np.linalg.norm(beads.xyz_angstrom, axis=1).max() + 20) / spacing_angstrom))
    side = 2 * half + 1
    zyx = beads.xyz_angstrom[:, ::-1] / spacing_angstrom + half
    density = splat((side, side, side), zyx, beads.mass_kilodalton)
    k = [scipy.fft.fftfreq(side, spacing_angstrom) for _ in range(3)]
    square = k[0][:, None, None] ** 2 + k[1][:, None] ** 2 + k[2] ** 2
    smooth = scipy.fft.ifftn(scipy.fft.fftn(density) * np.exp(-square * LOWPASS_ANGSTROM**2)).real
    return smooth.astype(np.float32)


def _by_run(picks: Sequence[Picks]) -> dict[str, Picks]:
    return {p.run: p for p in picks}


def _hindsight(candidates: Sequence[Picks], truths: Sequence[Picks], types: Sequence[ParticleType]) -> Score:
    pairs = list(zip(candidates, truths, strict=True))
    limits = [best_threshold(pairs, index) for index in range(len(types))]
    return score(_by_run(truths), {c.run: c.above(limits) for c in candidates}, types)


if __name__ == "__main__":
    main()
