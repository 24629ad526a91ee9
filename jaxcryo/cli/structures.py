"""A training from structures alone: `jaxcryo train --structures`."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np

from jaxcryo.calling import command
from jaxcryo.cli.train import TrainOptions
from jaxcryo.config import TrainConfig
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.phantom import DrawConfig
from jaxcryo.phantom.likeness import like_files
from jaxcryo.phantom.structures import structure_beads
from jaxcryo.progress import Progress
from jaxcryo.project.particles import read_structured_particles
from jaxcryo.report import draw_reliability, score_table
from jaxcryo.tomogram.statistics import surveyed
from jaxcryo.training.fit import Length, Outcome, Start, TrainingStopped, fit
from jaxcryo.training.from_structures import (
    CALIBRATING,
    calibrated,
    held_out_phantoms,
    phantom_source,
)
from jaxcryo.training.run_folder import RunDescription, RunFolder
from jaxcryo.weights import load_model, save_model

CHALLENGE = "czii"
"""`--structures czii`: the challenge's six particles, whose shapes come with the package."""


def draw_config(
    structures: str, spacing_angstrom: float | None, like: Sequence[str] = (), background: Sequence[str] = ()
) -> DrawConfig:
    """The settings of phantoms with a file's particles; `czii` stands for the challenge's.

    Phantoms resemble the tomograms in `like`, and lie in those in `background`.

    Raises:
        InputError: the file cannot be read, or a structure that it names.
    """
    draw = like_files(DrawConfig(), like, background, spacing_angstrom=spacing_angstrom, note=print)
    if structures == CHALLENGE:
        return dataclasses.replace(draw, types=CZII_TYPES)
    if not pathlib.Path(structures).exists():
        raise InputError(
            f"--structures {structures}: does not exist; expected a .toml file of particle types, each with a "
            f'structure (structure = "6qzp.cif"), or {CHALLENGE} for the challenge\'s'
        )
    found = read_structured_particles(structures, measure=lambda s: structure_beads(s).radius_angstrom)
    return dataclasses.replace(draw, types=tuple(f.type for f in found), structures=tuple(f.structure for f in found))


def train_from_structures(options: TrainOptions, draw: DrawConfig, config: TrainConfig, start: Start | None) -> int:
    """Trains on phantoms that are made meanwhile, and calibrates the scores; 1 if it had to stop."""
    for type_, structure in zip(draw.types, draw.structures or ("",) * len(draw.types), strict=True):
        beads = structure_beads(structure) if structure else None
        shape = "built-in shape, or an irregular globule" if beads is None else beads.source
        print(f"  {type_.name}: radius {type_.radius_angstrom:.0f} Å, {shape}")
    folder = RunFolder(options.out or pathlib.Path("runs", f"{options.arch}-{options.size}-structures"))
    held_out = list(Progress(held_out_phantoms(draw, config.seed, CALIBRATING), "held-out phantoms", CALIBRATING))
    skewness = float(np.median([surveyed(e.volume).statistics.skewness for e in held_out]))
    description = RunDescription(
        config=config,
        types=draw.types,
        fold=0,
        train_runs=("phantoms",),
        held_out=held_out[0].volume.name,
        spacing_angstrom=draw.spacing_angstrom,
        steps=options.steps,
        skewness=round(skewness, 3),
        start=None if start is None else start.sha256,
    )
    print(
        f"Training {options.arch} ({options.size}) on phantoms of {len(draw.types)} particle types at "
        f"{draw.spacing_angstrom:.3f} Å, into {folder}"
    )
    source = phantom_source(draw, config)
    began = time.monotonic()
    try:
        outcome = fit(
            source,
            held_out[0],
            description,
            folder.path,
            length=Length(steps=options.steps, minutes=options.minutes),
            start=start,
            save_every_seconds=60 * options.compute.save_minutes,
        )
    except TrainingStopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return 1
    _tell(outcome, time.monotonic() - began, source.waited_seconds)
    for file in (folder.best, folder.last):
        with Progress(total=CALIBRATING, desc=f"calibrating {file.name}", unit="phantom") as bar:

            def show(done: int, total: int, bar: Progress = bar) -> None:
                bar.update(done == total)

            model = calibrated(load_model(file), held_out, on_windows=show)
        save_model(file, model)
    assert model.calibration is not None
    draw_reliability(folder.reliability, model.calibration)
    error = model.calibration.expected_error
    measured = "" if error is None else f"; expected calibration error {error:.3f}"
    print(f"  {folder.reliability}  scores calibrated on {CALIBRATING} held-out phantoms{measured}")
    print(f"next: {command(f'convert onnx {folder} --out out/')}")
    return 0


def _tell(outcome: Outcome, seconds: float, waited_seconds: float) -> None:
    result = outcome.result
    if outcome.was_finished:
        print("\nalready finished. On a held-out phantom:")
    else:
        print(
            f"\n{result.step} steps in {seconds / 60:.1f} minutes, {waited_seconds:.0f} s of them waiting for "
            "phantoms. On a held-out phantom:"
        )
    print(score_table(result.chosen, [t.threshold for t in result.types]))
    print("in the folder:\n" + "\n".join(f"  {f}" for f in outcome.files))


def check_structures(options: TrainOptions) -> None:
    """Raises InputError where options of a training on tomograms are given too."""
    given = {
        "--data": options.data, "--copick": options.copick, "--picks": options.picks, "--particles": options.particles,
        "--fold": options.fold,
    }  # fmt: skip
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise InputError(
            f"{' and '.join(wrong)} cannot be combined with --structures, which trains without "
            "tomograms; leave out one of them"
        )
