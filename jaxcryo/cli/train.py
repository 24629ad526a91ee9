"""`train.py`: trains one architecture on all runs of a dataset but the held-out one."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from jaxcryo.cli.common import parser, reports_errors
from jaxcryo.config import ARCHS, SIZES, TrainConfig
from jaxcryo.domain import CZII_TYPES, ParticleType, particle_types_from_copick
from jaxcryo.errors import InputError
from jaxcryo.io.dataset import Run, check_inside, find_runs, read_picks
from jaxcryo.io.volumes import open_volume
from jaxcryo.metric import Score
from jaxcryo.models import Weights, build
from jaxcryo.recipes import recipe
from jaxcryo.report import score_table
from jaxcryo.training.checkpoint import RunDescription
from jaxcryo.training.loop import Example, Length, TrainingStopped, fit
from jaxcryo.weights import load_model

EXAMPLES = """examples:
  python train.py --arch yu4u --fold 0
      the paper's recipe on data/ (the challenge's layout), the first run in sorted order held out
  python train.py --arch tattaka --fold 2 --accumulate 8
      the other network, its batch of 32 in eight parts, for cards with less memory
  python train.py --arch yu4u --fold 0 --data data/phantom --size small --minutes 15
      a small network on two CPU cores; the schedule fits itself to the time
  python train.py --arch yu4u --fold 0 --init weights/convnext_nano.safetensors
      starts from weights that 'python -m convert port' wrote

Started again with the same options it goes on where it was cut off. Next: python -m convert onnx RUN --out out/
"""


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    args = _parser().parse_args(argv)
    types = particle_types_from_copick(args.config) if args.config else CZII_TYPES
    config = _config(args, len(types))
    runs = find_runs(args.data, split=_train_split(args.data), tomogram_type=args.tomogram_type)
    if len(runs) < 2:
        raise InputError(f"{args.data}: has {len(runs)} training run; at least two are needed, one is held out")
    if not 0 <= args.fold < len(runs):
        raise InputError(
            f"fold {args.fold} does not exist: {args.data} has {len(runs)} runs, folds 0 to {len(runs) - 1}: "
            + ", ".join(f"{i} {r.name}" for i, r in enumerate(runs))
        )
    initial = _initial(args, config)
    examples = [_example(r, types, args.voxel_spacing) for r in runs]
    held_out = examples.pop(args.fold)
    spacing = held_out.volume.grid.spacing_angstrom
    out = pathlib.Path(args.out or f"runs/{args.arch}-{args.size}-fold{args.fold}")
    description = RunDescription(
        config=config,
        types=types,
        fold=args.fold,
        train_runs=tuple(e.volume.name for e in examples),
        held_out=held_out.volume.name,
        spacing_angstrom=spacing,
        steps=args.steps,
    )
    print(
        f"Training {args.arch} ({args.size}) on {len(examples)} runs of {args.data} at {spacing:.3f} Å, "
        f"{held_out.volume.name} held out, into {out}"
    )
    began = time.monotonic()
    try:
        outcome = fit(
            examples,
            held_out,
            description,
            out,
            length=Length(steps=args.steps, minutes=args.minutes),
            initial=initial,
        )
    except TrainingStopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return 1
    result = outcome.validation
    print(f"\n{outcome.step} steps in {(time.monotonic() - began) / 60:.1f} minutes. On {held_out.volume.name}:")
    print(score_table(result.chosen, [t.threshold for t in result.types]))
    print(_best_line(result.best))
    print("wrote:\n" + "\n".join(f"  {f}" for f in outcome.files))
    print(f"next: python -m convert onnx {out} --out out/")
    return 0


def _best_line(best: Score) -> str:
    return f"(with the best thresholds in hindsight: {best.weighted_f4:.3f})"


def _config(args: argparse.Namespace, classes: int) -> TrainConfig:
    config = recipe(args.arch, args.size, classes=classes)
    optim: dict[str, Any] = {
        name: value
        for name, value in (("batch", args.batch), ("accumulate", args.accumulate), ("learning_rate", args.lr))
        if value is not None
    }
    return dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, **optim),
        precision=args.precision,
        seed=args.seed,
        pretrained=config.pretrained and not args.from_scratch and args.init is None,
    )


def _initial(args: argparse.Namespace, config: TrainConfig) -> tuple[Weights, Weights] | None:
    path = args.init
    if path is None:
        if not config.pretrained:
            return None
        name = {"yu4u": "convnext_nano", "tattaka": "resnetrs50"}[config.arch]
        path = pathlib.Path(args.weights) / f"{name}.safetensors"
        if not path.exists():
            hub = {"yu4u": "timm/convnext_nano.in12k_ft_in1k", "tattaka": "timm/resnetrs50.tf_in1k"}[config.arch]
            raise InputError(
                f"the recipe starts from ImageNet weights, and {path} is not there; get them once with\n"
                f"  python -m convert port {hub} --arch {config.arch} --out {path}\n"
                "or train with --from-scratch, or from weights of your own with --init WEIGHTS"
            )
    model = load_model(path)
    _, params, stats = build(config.model, seed=config.seed)
    taken = 0
    for own, given in ((params, model.params), (stats, model.stats)):
        for key, value in given.items():
            if key in own and own[key].shape == value.shape:
                own[key] = value
                taken += 1
    count = len(params) + len(stats)
    if taken == 0:
        raise InputError(f"{path}: none of its tensors fits {config.arch} ({config.size}); choose other weights")
    new = sorted(k for k in params if k not in model.params or model.params[k].shape != params[k].shape)
    print(
        f"{taken} of {count} tensors start from {path} ({model.source})"
        + (f"; new: {', '.join(new[:4])}{' …' if len(new) > 4 else ''}" if new else "")
    )
    return params, stats


def _example(run: Run, types: tuple[ParticleType, ...], spacing_angstrom: float | None) -> Example:
    volume = open_volume(run.volume_path, name=run.name, spacing_angstrom=spacing_angstrom)
    picks = read_picks(run, types)
    check_inside(picks, volume.grid)
    return Example(volume=volume, picks=picks)


def _train_split(root: str) -> Any:
    return "train" if (pathlib.Path(root) / "train").is_dir() else None


def _parser() -> argparse.ArgumentParser:
    p = parser("Train a network on tomograms with known picks.", EXAMPLES)
    p.add_argument("--arch", required=True, choices=ARCHS, help="which of the two networks")
    p.add_argument("--fold", required=True, type=int, help="the run to hold out, counted from 0 in sorted order")
    p.add_argument("--data", default="data", metavar="DIR", help="dataset in the challenge's layout")
    p.add_argument("--out", metavar="RUN", help="run folder (default: runs/ARCH-SIZE-foldK)")
    p.add_argument("--size", default="paper", choices=SIZES, help="the paper's network, or a smaller one")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_positive(int), help="end after so many steps; the schedule fits itself")
    length.add_argument("--minutes", type=_positive(float), help="end in time; the schedule fits itself to the speed")
    p.add_argument("--config", metavar="JSON", help="copick config.json with other particle types")
    p.add_argument("--voxel-spacing", type=_positive(float), metavar="ANGSTROM", help="instead of the files' own")
    p.add_argument("--tomogram-type", default="denoised", help="which reconstruction to train on")
    p.add_argument("--batch", type=_positive(int), help="samples a step (default: the recipe's)")
    p.add_argument("--accumulate", type=_positive(int), help="split a batch into so many parts, to save memory")
    p.add_argument("--lr", type=_positive(float), help="learning rate (default: the recipe's)")
    p.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"), help="of computation")
    p.add_argument("--seed", type=int, default=42, help="of weights, crops and augmentation")
    start = p.add_mutually_exclusive_group()
    start.add_argument("--init", metavar="WEIGHTS", help="start from these weights; what does not fit starts new")
    start.add_argument("--from-scratch", action="store_true", help="start without ImageNet weights")
    p.add_argument("--weights", default="weights", metavar="DIR", help="where ported ImageNet weights are looked for")
    return p


def _positive(kind: type) -> Any:
    def convert(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    convert.__name__ = kind.__name__
    return convert
