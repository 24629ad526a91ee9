"""Partial labels and corrections, prepared for a training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcryo.config import PartialConfig, TrainConfig
from jaxcryo.data.marks import Marks
from jaxcryo.domain import ParticleType, Picks, Run, concatenate_picks
from jaxcryo.errors import InputError
from jaxcryo.picking.preprocess import at_scale
from jaxcryo.picks.corrections import ROUNDED_ANGSTROM, Corrections, corrected, read_corrections
from jaxcryo.tomogram.statistics import are_opposite, surveyed
from jaxcryo.training.source import Example
from jaxcryo.training.starting_model import far_below
from jaxcryo.weights import TrainedModel

_SPACING_TOLERANCE = 0.05
_SCRATCH_WEIGHT = 0.1
"""Weight of unknown voxels as background, where no model says which voxels surely are."""
_LEAST_NEAR = 0.6


def corrections_of(files: Sequence[str], runs: Sequence[Run], types: Sequence[ParticleType]) -> dict[str, Corrections]:
    """Corrections by run.

    Raises:
        InputError: a file cannot be read, names an unknown run or type, or two concern one run.
    """
    found: dict[str, Corrections] = {}
    names = {run.name for run in runs}
    for file in files:
        own = read_corrections(file)
        if own.run not in names:
            raise InputError(f"{file}: is about {own.run}; the runs are {', '.join(sorted(names))}")
        if own.run in found:
            raise InputError(f"{file}: {own.run} has corrections in another file too; expected one file per run")
        unknown = sorted({n for d in own.decisions for n in (d.was, d.now) if n} - {t.name for t in types})
        if unknown:
            raise InputError(f"{file}: names {', '.join(unknown)}; the types are {', '.join(t.name for t in types)}")
        found[own.run] = dataclasses.replace(own, thresholds={})
    return found


def marked(
    run: str,
    picks: Picks | None,
    corrections: Corrections | None,
    types: tuple[ParticleType, ...],
    note: Callable[[str], object],
) -> tuple[Picks, Marks]:
    """The marked particles of a run, and what else is known of it.

    With corrections, only particles that a person confirmed and picks in complete regions are marked.

    Raises:
        InputError: a complete region comes without picks.
    """
    none = Picks(run=run, types=types, xyz_angstrom=np.zeros((0, 3)), type_index=np.zeros(0, np.int64))
    if corrections is None:
        return none if picks is None else picks, Marks(none=none)
    if picks is None:
        if corrections.complete:
            raise InputError(
                f"{run}: its corrections have complete regions, in which all particles are needed; pass the corrected "
                "picks with --picks"
            )
        return corrected(none, _named(corrections)), Marks(none=_rejected(none, corrections))
    whole = corrected(picks, corrections, reach_angstrom=ROUNDED_ANGSTROM, note=note)
    named = corrected(none, _named(corrections))
    sure = np.zeros(len(whole), np.bool_)
    for region in corrections.complete:
        sure |= region.contains(whole.xyz_angstrom)
    for xyz, kind in zip(named.xyz_angstrom, named.type_index, strict=True):
        sure |= (whole.type_index == kind) & np.all(np.abs(whole.xyz_angstrom - xyz) < 1e-3, axis=1)
    return whole.select(sure), Marks(none=_rejected(none, corrections), complete=corrections.complete)


def partial_config(
    config: TrainConfig, model: TrainedModel | None, types: Sequence[ParticleType], note: Callable[[str], object]
) -> TrainConfig:
    """The recipe for partial labels: windows near marks, and the starting model's intensities."""
    partial = PartialConfig()
    if model is None:
        note(
            "training starts without a model that tells background from particles: until the averaged weights can, "
            f"unknown voxels count as background with weight {_SCRATCH_WEIGHT:g}; "
            "starting from a model helps, e.g. --init bundled"
        )
        partial = dataclasses.replace(partial, unknown_weight=_SCRATCH_WEIGHT)
    elif new := [i for i, t in enumerate(types) if t.name not in {own.name for own in model.types}]:
        note(
            f"the starting model does not know {', '.join(types[i].name for i in new)}: until the averaged weights do, "
            f"unknown voxels count as their background with weight {_SCRATCH_WEIGHT:g}"
        )
        partial = dataclasses.replace(partial, unknown_weight=_SCRATCH_WEIGHT, new_types=tuple(new))
    crop = dataclasses.replace(config.crop, near_pick=max(config.crop.near_pick, _LEAST_NEAR))
    intensity = config.intensity if model is None else model.config.intensity
    return dataclasses.replace(config, partial=partial, crop=crop, intensity=intensity)


def with_far_below(
    example: Example, model: TrainedModel | None, config: TrainConfig, note: Callable[[str], object]
) -> Example:
    """The example with the voxels that the starting model is sure are background, seen at the scale of its training.

    Raises:
        InputError: the tomogram cannot be read.
    """
    if model is None or config.partial is None:
        return example
    own, its = example.volume.grid.spacing_angstrom, model.spacing_angstrom
    if its is not None and abs(own / its - 1) > _SPACING_TOLERANCE:
        note(
            f"{example.volume.name}: its voxels are {own:.3f} Å and those of the starting model {its:.3f} Å, so it is "
            "not asked which voxels surely are background"
        )
        return example
    volume = surveyed(example.volume)
    skewness = volume.statistics.skewness
    if model.skewness is not None and are_opposite(skewness, model.skewness):
        note(
            f"{volume.name}: its contrast looks opposite to the starting model's (skewness {skewness:+.1f} and "
            f"{model.skewness:+.1f}), so it is not asked which voxels surely are "
            "background; if it is opposite, use --invert"
        )
        return example
    seen = at_scale(volume, model.config.intensity)
    ask = functools.partial(far_below, model, seen, example.picks.types, config.partial.far_below)
    return dataclasses.replace(example, far_below=ask)


def everything_marked(example: Example) -> Picks:
    """All that is marked, for telling labels apart: particles, rejected positions, corners of complete regions."""
    if example.marks is None:
        return example.picks
    corners = [c for r in example.marks.complete for c in (r.low_xyz_angstrom, r.high_xyz_angstrom)]
    places = dataclasses.replace(
        example.marks.none,
        xyz_angstrom=np.array(corners, np.float64).reshape(-1, 3),
        type_index=np.zeros(len(corners), np.int64),
    )
    return concatenate_picks([example.picks, example.marks.none, places], example.picks.run, example.picks.types)


def said_of(examples: Sequence[Example], types: Sequence[ParticleType]) -> str:
    """What is marked, in a line for people."""
    counts: Mapping[str, int] = {
        t.name: sum(int((e.picks.type_index == i).sum()) for e in examples) for i, t in enumerate(types)
    }
    none = sum(len(e.marks.none) for e in examples if e.marks is not None)
    regions = sum(len(e.marks.complete) for e in examples if e.marks is not None)
    return (
        f"partial labels: {', '.join(f'{n} {name}' for name, n in counts.items() if n)} marked, {none} positions "
        f"rejected, {regions} complete regions; what is not marked is unknown"
    )


def _named(corrections: Corrections) -> Corrections:
    return dataclasses.replace(corrections, decisions=tuple(d for d in corrections.decisions if d.now is not None))


def _rejected(none: Picks, corrections: Corrections) -> Picks:
    """Positions where a person rejected the type that was found."""
    index_of = {t.name: i for i, t in enumerate(none.types)}
    gone = [(d.xyz_angstrom, index_of[d.was]) for d in corrections.decisions if d.was is not None and d.was != d.now]
    return dataclasses.replace(
        none,
        xyz_angstrom=np.array([xyz for xyz, _ in gone], np.float64).reshape(-1, 3),
        type_index=np.array([kind for _, kind in gone], np.int64),
    )
