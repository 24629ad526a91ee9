"""A training: one architecture on all runs of a dataset except the held-out one."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcryo.allocator import keep_freed_memory
from jaxcryo.calling import command
from jaxcryo.cli.command import check_above_zero
from jaxcryo.cli.geometry import say as note
from jaxcryo.cli.inputs import check_truth, find_source, picks_to_train_on, read_types, reading_of
from jaxcryo.cli.labels import corrections_of, everything_marked, marked, partial_config, said_of, with_far_below
from jaxcryo.cli.starting_weights import starting_model, starting_weights
from jaxcryo.cli.structures import check_structures, draw_config, train_from_structures
from jaxcryo.cli.train import TrainOptions
from jaxcryo.config import IntensityConfig, TrainConfig
from jaxcryo.domain import ParticleType, Picks, Run, Volume
from jaxcryo.errors import InputError
from jaxcryo.picking.preprocess import on_scale
from jaxcryo.picks.corrections import ROUNDED_ANGSTROM, Corrections, corrected
from jaxcryo.project.dataset import read_run_picks, within_volume
from jaxcryo.recipes import recipe, with_values
from jaxcryo.report import score_table
from jaxcryo.tomogram.padding import padding_needed
from jaxcryo.tomogram.statistics import Surveyed, of_opposite_contrast, surveyed
from jaxcryo.tomogram.volumes import Reading
from jaxcryo.training import distributed
from jaxcryo.training.fit import Length, Outcome, Start, TrainingStopped, fit
from jaxcryo.training.from_structures import for_structures
from jaxcryo.training.held_out_part import held_out_part
from jaxcryo.training.run_folder import Fingerprint, RunDescription
from jaxcryo.training.source import Example, at_one_spacing
from jaxcryo.training.source import source_of as samples_of
from jaxcryo.weights import TrainedModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What the trainings of all folds have in common."""

    place: str
    """The data, for messages."""
    config: TrainConfig
    types: tuple[ParticleType, ...]
    examples: Sequence[Example]
    fingerprints: dict[str, Fingerprint]
    skewness: float
    start: Start | None
    model: TrainedModel | None
    """The model that partial labels ask which voxels surely are background."""


def train(options: TrainOptions) -> int:
    """Trains on all runs except the held-out one, or on all folds in turn; 1 if a training had to stop."""
    _check(options)
    keep_freed_memory()
    distributed.join([f"{field}={value!r}" for field, value in vars(options).items()])
    wanted = options.from_structures
    if wanted.structures is not None:
        draw = draw_config(wanted.structures, options.input.voxel_spacing, wanted.like, wanted.background)
        config = _config(options, len(draw.types), for_phantoms=True)
        return train_from_structures(options, draw, config, starting_weights(options.start, config, draw.types))
    prepared = _prepared(options)
    outcomes: list[tuple[str, Outcome]] = []
    for fold in range(len(prepared.examples)) if options.fold == "all" else [options.fold or 0]:
        out, description = _folder(options, fold), _description(prepared, fold, options.steps)
        held_out = prepared.examples[fold]
        learned = [e for e in prepared.examples if e is not held_out]
        say(
            f"Training {options.arch} ({options.size}) on {len(description.train_runs)} runs of {prepared.place} at "
            f"{description.spacing_angstrom:.3f} Å, {description.held_out} held out, into {out}"
        )
        began = time.monotonic()
        try:
            outcome = fit(
                samples_of(
                    [with_far_below(e, prepared.model, prepared.config, note) for e in learned],
                    prepared.config,
                    volumes=options.compute.volumes,
                ),
                held_out,
                description,
                out,
                length=Length(steps=options.steps, minutes=options.minutes),
                start=prepared.start,
                save_every_seconds=60 * options.compute.save_minutes,
            )
        except TrainingStopped as stopped:
            print(f"stopped: {stopped}", file=sys.stderr)
            return 1
        _report(outcome, description.held_out, out, minutes=(time.monotonic() - began) / 60)
        outcomes.append((description.held_out, outcome))
    if options.fold == "all":
        say("\n" + _fold_table(outcomes))
    return 0


def say(text: str) -> None:
    """Prints in the one process that speaks."""
    if distributed.is_first():
        print(text)


def _check(options: TrainOptions) -> None:
    recipe = options.recipe
    check_above_zero(
        steps=options.steps,
        minutes=options.minutes,
        batch=recipe.batch,
        accumulate=recipe.accumulate,
        lr=recipe.lr,
        save_minutes=options.compute.save_minutes,
    )
    if options.from_structures.structures is not None:
        check_structures(options)
    elif isinstance(options.fold, int) and options.fold < 0:
        raise InputError(f"--fold is {options.fold}; expected a number from 0, or all")
    wanted = options.from_structures
    if wanted.structures is None and (wanted.like or wanted.background):
        raise InputError("--like and --background shape the phantoms of --structures; pass it too, or leave them out")
    if options.steps is not None and options.minutes is not None:
        raise InputError("--steps and --minutes were both given; choose one")
    if options.start.init is not None and options.start.from_scratch:
        raise InputError("--init and --from-scratch were both given; choose one")
    check_truth(options.truth, options.copick, data=options.data)


def _prepared(options: TrainOptions) -> _Prepared:
    """Reads and checks all that can be before a first step.

    Raises:
        InputError: something cannot be trained on.
    """
    types = read_types(options.particles, options.copick)
    config = _config(options, len(types))
    source = find_source(options.data, options.copick, options.input, train=True)
    runs = source.runs
    if not runs:
        raise InputError(f"{source.place}: has no training run; at least one is needed")
    if len(runs) == 1 and options.fold not in (None, 0):
        raise InputError(f"--fold is {options.fold}, and {source.place} has one run, {runs[0].name}: leave --fold out")
    if len(runs) > 1 and options.fold is None:
        raise InputError("--fold is missing; expected the number of the run to hold out, counted from 0, or all")
    if isinstance(options.fold, int) and options.fold >= len(runs):
        raise InputError(
            f"fold {options.fold} does not exist: {source.place} has {len(runs)} runs, folds 0 to {len(runs) - 1}: "
            + ", ".join(f"{i} {r.name}" for i, r in enumerate(runs))
        )
    label = options.label
    partial = label.labels == "partial"
    model = None
    if partial:
        found = starting_model(options.start, config) if options.start.init is not None else None
        model = None if found is None else found[1]
        config = partial_config(config, model, types, note)
    start = starting_weights(options.start, config, types)
    decided = corrections_of(label.corrections, runs, types)
    spacing = options.input.voxel_spacing
    # A decision marks a particle without picks.
    alone = partial and bool(decided) and options.picks is None
    if alone and (without := [r.name for r in runs if r.name not in decided]):
        raise InputError(f"--corrections has none of {', '.join(without)}; pass their picks with --picks")
    given = {} if alone else picks_to_train_on(options.picks, source, types, options.truth, options.geometry, spacing)
    reading = reading_of(options.input)
    examples = [_example(r, types, reading, given.get(r.name), decided.get(r.name), partial, alone) for r in runs]
    unknown = [t.name for i, t in enumerate(types) if not any(len(e.picks.of_type(i)) for e in examples)]
    if unknown:
        note(f"no run has picks of {', '.join(unknown)}: not learned, and left out of the mean F4")
    config, volumes, skewness = suited(config, [e.volume for e in examples], note)
    examples = [dataclasses.replace(e, volume=v) for e, v in zip(examples, volumes, strict=True)]
    examples = at_one_spacing(examples, note)
    if len(examples) == 1:
        parts = held_out_part(examples[0], config.model.patch_zyx)
        note(parts.about)
        examples = [parts.held_out, parts.training]
    if partial:
        note(said_of(examples, types))
        note(
            "where a held-out tomogram is not marked in full, correct picks of unmarked particles count as false: its "
            "F4 is too low, and the thresholds chosen by it are too high"
        )
    for example in examples:
        padded = padding_needed(example.volume.name, example.volume.grid.shape_zyx, config.model.patch_zyx)
        if padded is not None:
            note(padded)
    fingerprints = {e.volume.name: Fingerprint.of(e.volume, everything_marked(e)) for e in examples}
    return _Prepared(
        place=str(options.copick or options.data or "data"),
        config=config,
        types=types,
        examples=examples,
        fingerprints=fingerprints,
        skewness=skewness,
        start=start,
        model=model,
    )


def suited(
    config: TrainConfig, volumes: Sequence[Volume], note: Callable[[str], object]
) -> tuple[TrainConfig, list[Surveyed], float]:
    """The config with an intensity rule that suits the tomograms; those with their empty regions; their skewness.

    If the recipe's constants are far from the tomograms' scale, each tomogram's own mean and deviation are used. A note
    names tomograms whose contrast looks opposite to the others'.

    Raises:
        InputError: a tomogram cannot be read, or its voxels are all equal.
    """
    gone_through = [surveyed(v, note=note) for v in volumes]
    measured = {v.name: v.statistics for v in gone_through}
    odd = of_opposite_contrast({name: m.skewness for name, m in measured.items()})
    if odd:
        note(
            f"the contrast of {', '.join(odd)} looks opposite to the others': leave it out, or invert that file "
            "(--invert inverts all)"
        )
    off = [name for name, m in measured.items() if not on_scale(m, config.intensity)]
    if config.intensity.rule == "fixed" and off:
        note(
            f"the intensities of {', '.join(off)} are not on the recipe's scale: every tomogram is normalized by its "
            "own mean and standard deviation"
        )
        config = dataclasses.replace(config, intensity=IntensityConfig(rule="tomogram"))
    return config, gone_through, round(float(np.median([m.skewness for m in measured.values()])), 3)


def _folder(options: TrainOptions, fold: int) -> pathlib.Path:
    name = f"{options.arch}-{options.size}-fold{fold}"
    if options.out is None:
        return pathlib.Path("runs", name)
    return options.out / name if options.fold == "all" else options.out


def _description(prepared: _Prepared, fold: int, steps: int | None) -> RunDescription:
    names = [e.volume.name for e in prepared.examples]
    return RunDescription(
        config=prepared.config,
        types=prepared.types,
        fold=fold,
        train_runs=tuple(name for i, name in enumerate(names) if i != fold),
        held_out=names[fold],
        spacing_angstrom=prepared.examples[fold].volume.grid.spacing_angstrom,
        steps=steps,
        skewness=prepared.skewness,
        fingerprints=prepared.fingerprints,
        start=None if prepared.start is None else prepared.start.sha256,
    )


def _report(outcome: Outcome, held_out: str, out: pathlib.Path, *, minutes: float) -> None:
    result = outcome.result
    ended = f"{out} is already finished" if outcome.was_finished else f"{result.step} steps in {minutes:.1f} minutes"
    say(f"\n{ended}. On {held_out}:")
    say(score_table(result.chosen, [t.threshold for t in result.types]))
    say("\nand with the best threshold for each type (tuned on this run, hence optimistic):")
    say(score_table(result.best, result.best_thresholds))
    say("in the folder:\n" + "\n".join(f"  {f}" for f in outcome.files))
    say(f"next: {command(f'convert onnx {out} --out out/')}")


def _fold_table(results: Sequence[tuple[str, Outcome]]) -> str:
    lines = ["fold  held out          weighted F4  at the best thresholds"]
    scores = [(o.result.chosen.weighted_f4_of_known, o.result.best.weighted_f4_of_known) for _, o in results]
    lines += [
        f"{i:4d}  {name:16}  {chosen:11.3f}  {best:22.3f}"
        for i, ((name, _), (chosen, best)) in enumerate(zip(results, scores, strict=True))
    ]
    chosen, best = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    lines.append(f"mean  {'':16}  {chosen:11.3f}  {best:22.3f}")
    return "\n".join(lines)


def _config(options: TrainOptions, classes: int, *, for_phantoms: bool = False) -> TrainConfig:
    config = recipe(options.arch, options.size, classes=classes)
    if for_phantoms:
        config = for_structures(config)
    changed = {
        "batch": options.recipe.batch,
        "accumulate": options.recipe.accumulate,
        "learning_rate": options.recipe.lr,
    }
    optim: dict[str, Any] = {name: value for name, value in changed.items() if value is not None}
    config = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, **optim),
        precision=config.precision if options.compute.precision == "auto" else options.compute.precision,
        rematerialize=options.compute.rematerialize,
        sync_batch_norm=options.compute.sync_batch_norm,
        seed=options.recipe.seed,
        pretrained=config.pretrained and not options.start.from_scratch and options.start.init is None,
    )
    return with_values(config, options.recipe.set)


def _example(
    run: Run,
    types: tuple[ParticleType, ...],
    reading: Reading,
    given: Picks | None,
    corrections: Corrections | None,
    partial: bool,
    alone: bool,
) -> Example:
    volume = reading.open(run.volume_path, run.name)
    picks = read_run_picks(run, types) if given is None and not alone else given
    marks = None
    if partial:
        picks, marks = marked(run.name, picks, corrections, types, note)
    elif corrections is not None and picks is not None:
        picks = corrected(picks, corrections, reach_angstrom=ROUNDED_ANGSTROM, note=note)
    assert picks is not None
    return Example(volume=volume, picks=within_volume(picks, volume.grid, note=note), marks=marks)
